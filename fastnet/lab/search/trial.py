"""A trial as its objective sees it, and what comes of an attempt at it."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastnet.lab.search.space import Value
from fastnet.train import record
from fastnet.train.lock import exclusive
from fastnet.train.loop import Run, fit

# Numba's workqueue aborts when two threads of a process are in parallel kernels, as in workers that run threads.
_ONE_AT_A_TIME = threading.Lock()
_AGAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Trial:
    """Number and parameters of a trial, and the folder that is its own: None for a sweep without a journal.

    `trial["l2"]` is a parameter's value. The folder is not made; who tries again finds there what was left behind.
    """

    number: int
    parameters: Mapping[str, Value]
    folder: Path | None = None

    def __getitem__(self, name: str) -> Any:
        return self.parameters[name]

    def fit(self, *arguments: Any, **settings: Any) -> Run:
        """`fastnet.fit` in the trial's folder, silent; a run that was begun there goes on from its checkpoint.

        Waits while another process is training there: one that was thought dead, or that nobody could stop.
        Raises what `fit` raises.
        """
        settings = {"verbose": False, **settings}
        with _ONE_AT_A_TIME:
            if self.folder is None:
                return fit(*arguments, **settings)
            while True:
                try:
                    return fit(*arguments, **settings, out=self.folder, resume=self._begun(self.folder))
                except BlockingIOError:
                    time.sleep(_AGAIN_SECONDS)

    def _begun(self, folder: Path) -> bool:
        """Whether there is a checkpoint; what a run leaves that has none yet is removed."""
        if (folder / record.CHECKPOINT).exists():
            return True
        if folder.is_dir():
            with exclusive(folder):
                for name in (record.CONFIG, record.CHECKPOINT, record.NONFINITE):
                    for file in (name, f"{name}.part"):
                        (folder / file).unlink(missing_ok=True)
        return False


class Outcome(NamedTuple):
    """How an attempt ended: 'done' with a value, 'failed' with a line, or 'interrupted'."""

    state: str
    seconds: float
    value: float | None = None
    error: str | None = None


def attempt(objective: Callable[[Trial], float], trial: Trial) -> Outcome:
    """Call the objective. Whatever it raises becomes an outcome, so that what a future raises is its executor's."""
    began = time.perf_counter()
    try:
        value = objective(trial)
    except KeyboardInterrupt:
        return Outcome("interrupted", time.perf_counter() - began)
    except (Exception, SystemExit) as error:
        return Outcome("failed", time.perf_counter() - began, error=_line(error))
    seconds = time.perf_counter() - began
    # A 0-d array and NumPy's numbers are numbers here; True is none.
    with contextlib.suppress(TypeError, ValueError):
        if not isinstance(value, bool | str) and np.ndim(value) == 0 and math.isfinite(float(value)):
            return Outcome("done", seconds, value=float(value))
    return Outcome("failed", seconds, error=f"the objective returned {str(value)[:80]}, which is no finite number")


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
