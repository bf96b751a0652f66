"""Searches for hyper-parameters: spaces, plans, a journal on disk, workers, and `Tuner` over them."""

from fastnet.lab.search.plan import Plan, Result
from fastnet.lab.search.space import Choice, Log, Uniform
from fastnet.lab.search.trial import Trial
from fastnet.lab.search.tuner import Tuner

__all__ = ["Choice", "Log", "Plan", "Result", "Trial", "Tuner", "Uniform"]
