"""`Tuner`: searches for hyper-parameters, that survive whatever stops them."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from fastnet.lab.search.plan import Plan, Result
from fastnet.lab.search.trial import Trial


class Tuner:
    """A search for the parameters with the best value of an objective.

        def objective(trial):
            model = fn.build("mlp3-bn", seed=0)
            run = trial.fit(model, data(), fn.SGD(momentum=0.9), schedule, epochs=12, penalty=fn.L2(trial["l2"]))
            return run.result["validation_accuracy"]

        tuner = fn.Tuner(objective, {"l2": fn.lab.Log(1e-5, 1e-1)}, journal="runs/l2.jsonl", workers=2)
        print(tuner.coarse(8).fine_window(8).best)

    objective   called with a `Trial`; returns the number to maximise, from validation images: a test set that chose
                something is none any more
    space       {name: Log, Uniform, Choice or a list of values}
    journal     the file that all results go to. Who names it again goes on where it was; several processes may at the
                same time. Trial k's folder is the journal's path without its suffix, then trial-000k. None: nothing
                is written
    workers     trials at a time: 1 runs them in this process, more in fresh processes of their own, to which the
                objective and what it returns must be able to go (a function at the top of a module)
    executor    any concurrent.futures executor instead, such as `distributed.Client(...).get_executor()`, that has
                `workers` trials at a time
    minimize    the least value is the best
    seed        of all draws
    settings    plain JSON that says what else the results depend on; a journal of other settings is refused
    lease       seconds without a sign of life after which a trial is taken over from a process that died
    report      called with a `Result` whenever one is new

    Which trials there are, and so the table, depends on the space, the seed and the searches only, not on workers,
    interruptions or order. Raises ValueError or TypeError for bad arguments, ValueError for a journal that is not this
    search's; the searches raise OSError where the journal cannot be written, and KeyboardInterrupt after Ctrl-C, when
    trials that can (`trial.fit`) have saved their state.
    """

    def __init__(self, objective: Callable[[Trial], float], space: Mapping[str, Any], *,
                 journal: str | Path | None = None, workers: int = 1, executor: Executor | None = None,
                 minimize: bool = False, seed: int = 0, settings: Mapping[str, Any] | None = None,
                 lease: float = 30.0, report: Callable[[Result], None] | None = None) -> None:
        raise NotImplementedError

    def coarse(self, trials: int) -> "Tuner":
        """Draw from the whole space."""
        raise NotImplementedError

    def fine_window(self, trials: int, margin: float = 0.25) -> "Tuner":
        """Draw between the two best trials so far and `margin` decades beyond them each way."""
        raise NotImplementedError

    def fine_factor(self, trials: int, low: float = 0.8, high: float = 1.2) -> "Tuner":
        """Draw U(low, high) times the best so far."""
        raise NotImplementedError

    def grid(self, points: int = 5) -> "Tuner":
        """Try all combinations; of Log and Uniform so many values at even distances, bounds included."""
        raise NotImplementedError

    def tpe(self, trials: int, wave: int = 4) -> "Tuner":
        """Learn from the results where to look (optuna's TPE), in waves whose trials go on at the same time."""
        raise NotImplementedError

    def run(self, plan: Plan) -> "Tuner":
        """Run a plan: [(kind, options), ...], of `fastnet.lab.search.plan`, after what was run before."""
        raise NotImplementedError

    @property
    def results(self) -> list[Result]:
        """All trials that have ended, in order: .trial .stage .parameters .value .seconds .state .error"""
        raise NotImplementedError

    @property
    def best(self) -> Result:
        """The trial with the best value; of equals the first. Raises ValueError where no trial has one."""
        raise NotImplementedError

    def table(self, seconds: bool = True) -> str:
        """The results as lines of text."""
        raise NotImplementedError
