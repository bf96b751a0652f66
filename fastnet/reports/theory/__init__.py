"""R4's questions of theory, answered by measurement, September 2020.

A module of this package, `q01` to `q11`, is a question: the statement, the report's answer, what is measured here, and
whether the measurement bears the answer out. The folder is the list. Everything is small, seconds to about a minute on
two cores, and the same at every scale.
"""

import importlib
from pathlib import Path

EXPERIMENTS = tuple(importlib.import_module(f"{__name__}.{path.stem}").QUESTION.experiment()
                    for path in sorted(Path(__file__).parent.glob("q[0-9][0-9].py")))
