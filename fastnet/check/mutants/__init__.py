"""Mistakes put into the passes on purpose, one at a time: the checks have to find and name each of them.

`call`, `mistake` and `run` are the machinery; the other modules are the catalogue, as data.
"""

from fastnet.check.mutants.mistake import Mistake
from fastnet.check.mutants.run import CATALOGUE, Outcome, check_mutants, put_in, rows, total

__all__ = ["CATALOGUE", "Mistake", "Outcome", "check_mutants", "put_in", "rows", "total"]
