"""`Tuner`: searches for hyper-parameters, that survive whatever stops them."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from fastnet.lab.search.journal import Journal, header
from fastnet.lab.search.plan import Plan, Result, best_first, check_plan, propose, rounds
from fastnet.lab.search.processes import Here, Processes
from fastnet.lab.search.runner import Runner
from fastnet.lab.search.space import Parameters, Space, check_space
from fastnet.lab.search.sweep import Sweep
from fastnet.lab.search.trial import Trial
from fastnet.nn.summary import align


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
                objective must be able to go (a function at the top of a module)
    executor    any concurrent.futures executor instead, such as `distributed.Client(...).get_executor()`, that has
                `workers` trials at a time
    minimize    the least value is the best
    seed        of all draws
    settings    plain JSON that says what else the results depend on; a journal of other settings is refused
    lease       seconds without a sign of life after which a trial is taken over from a process that died
    report      called with a `Result` whenever one is new
    threads     of the kernels in each process (default: its share of the cores); results do not depend on it

    Which trials there are, and so the table, depends on the space, the seed and the searches only, not on workers,
    interruptions or order. Raises ValueError or TypeError for bad arguments, ValueError for a journal that is not this
    search's; the searches raise OSError where the journal cannot be written, and KeyboardInterrupt after Ctrl-C, when
    trials that can (`trial.fit`) have saved their state.
    """

    def __init__(self, objective: Callable[[Trial], float], space: Mapping[str, Any], *,
                 journal: str | Path | None = None, workers: int = 1, executor: Executor | None = None,
                 minimize: bool = False, seed: int = 0, settings: Mapping[str, Any] | None = None,
                 lease: float = 30.0, report: Callable[[Result], None] | None = None,
                 threads: int | None = None) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(f"Tuner: workers must be at least 1 but is {workers}")
        if not 0 < lease < math.inf:
            raise ValueError(f"Tuner: lease must be a positive number of seconds but is {lease}")
        if not 0 <= seed < 2**64:
            raise ValueError(f"Tuner: seed must be in 0..2^64-1 but is {seed}")
        self.objective, self.workers, self.executor = objective, workers, executor
        self.report, self.threads = report or (lambda result: None), threads
        path = None if journal is None else Path(journal).absolute()  # for workers that stand elsewhere
        if path is not None and not path.suffix:
            raise ValueError(f"Tuner: the journal {journal} needs a suffix, such as {journal}.jsonl: the name without "
                             "it is the folder of the trials")
        first = header(check_space(space), seed=seed, minimize=minimize, lease=lease, settings=settings or {})
        self._journal = Journal(path, first)
        self._plan: Plan = []
        self._told = {result.trial for result in self.results}

    @property
    def space(self) -> Space:
        return self._journal.sweep.space

    def coarse(self, trials: int) -> "Tuner":
        """Draw from the whole space."""
        return self.run([("coarse", {"trials": trials})])

    def fine_window(self, trials: int, margin: float = 0.25) -> "Tuner":
        """Draw between the two best trials so far and `margin` decades beyond them each way."""
        return self.run([("window", {"trials": trials, "margin": margin})])

    def fine_factor(self, trials: int, low: float = 0.8, high: float = 1.2) -> "Tuner":
        """Draw U(low, high) times the best so far."""
        return self.run([("factor", {"trials": trials, "low": low, "high": high})])

    def grid(self, points: int = 5) -> "Tuner":
        """Try all combinations; of Log and Uniform so many values at even distances, bounds included."""
        return self.run([("grid", {"points": points})])

    def tpe(self, trials: int, wave: int = 4) -> "Tuner":
        """Learn from the results where to look (optuna's TPE), in waves whose trials go on at the same time.

        A wave is settled when all of the one before has ended, so that the results do not depend on timing; workers
        beyond its size wait. Raises ImportError where optuna is missing.
        """
        return self.run([("tpe", {"trials": trials, "wave": wave})])

    def run(self, plan: Plan) -> "Tuner":
        """Run a plan, [(kind, options), ...] as `fastnet.lab.search.plan` lists them, after what was run before."""
        plan = [*self._plan, *check_plan(plan)]

        def lengthen(sweep: Sweep) -> list[dict[str, Any]]:
            both = min(len(sweep.plan), len(plan))
            if sweep.plan[:both] != plan[:both]:
                raise ValueError(f"{self._journal.path} is of the searches {sweep.plan}, but {plan} is asked for")
            return [{"event": "plan", "plan": plan}] if len(plan) > both else []

        self._journal.update(lengthen)
        self._plan = plan
        executor = self.executor or (Here() if self.workers == 1 else Processes(self.workers, self.threads))
        runner = Runner(self._journal, self.objective, executor, self.workers, self.report, self._told)
        try:
            for number in range(len(rounds(plan, self.space))):
                self._journal.update(lambda sweep, number=number: self._opened(sweep, number))  # type: ignore[misc]
                runner.run(number + 1)
        except BaseException:
            if executor is not self.executor:
                executor.shutdown(cancel_futures=True)
            raise
        if executor is not self.executor:
            executor.shutdown()
        return self

    def _opened(self, sweep: Sweep, number: int) -> list[dict[str, Any]]:
        """Open a round, or see that one which is open is ours. Raises ValueError where it is not."""
        one = sweep.rounds[number]
        first = sum(earlier.trials for earlier in sweep.rounds[:number])
        before = [result for result in sweep.results if result.trial < first]
        there = [trial.parameters for trial in sweep.trials[first : first + one.trials]]
        if there and one.kind == "tpe":  # another version of optuna may propose others
            same = all(d.holds(parameters[name]) for parameters in there for name, d in sweep.space.items())
        else:
            found = propose(one, sweep.space, sweep.seed, first, before, sweep.minimize)
            if not there:
                return [{"event": "round", "first": first, "trials": found}]
            same = all(_alike(a, b) for a, b in zip(found, there, strict=True))
        if not same:
            raise ValueError(f"{self._journal.path}: its trials from {first} on are not those of its seed and space")
        return []

    @property
    def results(self) -> list[Result]:
        """All trials that have ended, in order: .trial .stage .parameters .value .seconds .state .error"""
        return self._journal.sweep.results

    @property
    def best(self) -> Result:
        """The trial with the best value; of equals the first. Raises ValueError where no trial has one."""
        results = self.results
        if best := best_first(results, self._journal.sweep.minimize):
            return best[0]
        raise ValueError(f"all {len(results)} trials failed, the first with {results[0].error}" if results
                         else "no trial has ended yet")

    def table(self, seconds: bool = True) -> str:
        """The results as lines of text; the best one has a star. Without seconds it is the same whenever it is run."""
        rows: list[tuple[str, ...]] = [("trial", "stage", *self.space, "value", "seconds", "state")]
        best = best_first(self.results, self._journal.sweep.minimize)[:1]
        for one in self.results:
            value = "" if one.value is None else f"{_short(one.value)}{'*' if [one] == best else ' '}"
            rows.append((str(one.trial), one.stage, *(_short(v) for v in one.parameters.values()), value,
                         f"{one.seconds:.1f}", one.state if one.error is None else f"failed: {one.error}"))
        if not seconds:
            rows = [(*row[:-2], row[-1]) for row in rows]
        return align(rows, right=tuple(k for k in range(len(rows[0]) - 1) if k != 1))


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" if 0.1 <= abs(value) < 1e4 else f"{value:.4g}"


def _alike(one: Parameters, other: Parameters) -> bool:
    """Equal but for the last bits of a power, which are not the same on every machine."""
    return list(one) == list(other) and all(
        math.isclose(a, b, rel_tol=1e-9) if isinstance(a, float) and isinstance(b, float) else a == b
        for a, b in zip(one.values(), other.values(), strict=True))
