"""The reports' searches for a hyper-parameter, as further trainings of an experiment: T01-T04.

What is drawn is `fastnet.lab`'s business (a function of space, seed and earlier results); what is drawn is run like
every other training. A point's value is its mean accuracy on the validation images over all seeds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastnet.lab.search.plan import Plan, Result, best_first, check_plan, propose, rounds
from fastnet.lab.search.space import Log, Space
from fastnet.reports import verdicts
from fastnet.reports.experiment import Results, Row, figure_row, not_run, percent
from fastnet.reports.training import Training

METRIC = "validation_accuracy"


@dataclass(frozen=True)
class Search:
    """`plan` as `fastnet.lab.search.plan` has it, over one number between low and high; `make` gives its training."""

    make: Callable[[float], Training]
    low: float
    high: float
    plan: Plan

    def trainings(self, results: Results) -> Iterator[Training]:
        """Those of all rounds that can be drawn so far."""
        for result in self._walk(results):
            yield self.make(result[0])

    def points(self, results: Results) -> list[Result]:
        """The points that have been tried, in order; the stage is that of the plan."""
        done = []
        for number, (value, stage, runs) in enumerate(self._walk(results)):
            if runs is not None:
                mean = sum(run.value(METRIC) for run in runs) / len(runs)
                done.append(Result(number, stage, {"value": value}, mean, 0.0, None))
        return done

    def best(self, results: Results) -> Result | None:
        """The best point when all are there; None before."""
        points = self.points(results)
        whole = sum(one.trials for one in rounds(check_plan(self.plan), self._space()))
        return best_first(points, minimize=False)[0] if len(points) == whole else None

    def row(self, results: Results, label: str, reported: float | None, note: str = "") -> Row:
        """A line of the table: the best of all points, chosen on the validation images and measured there too."""
        best = self.best(results)
        if best is None:
            failed = [why for t in self.trainings(results) if (why := results.failure(t))]
            return not_run(label, "validation %", percent(reported), failed[0] if failed else "")
        at = float(best.parameters["value"])
        runs = results.runs(self.make(at)) or []
        found = verdicts.figure([run.value(METRIC) for run in runs], runs[0].images(METRIC), reported)
        return figure_row(label, "validation %", found, results, f"at {at:.3g}", *filter(None, [note]),
                          "the best of many is an optimistic figure")

    def _space(self) -> Space:
        return {"value": Log(self.low, self.high)}

    def _walk(self, results: Results) -> Iterator[tuple[float, str, list | None]]:
        """(value, stage, finished runs or None) of every point; ends with the first round that is not finished."""
        done: list[Result] = []
        space = self._space()
        for one in rounds(check_plan(self.plan), space):
            whole = True
            drawn = propose(one, space, 0, len(done), done, minimize=False)
            for parameters in drawn:
                value = float(parameters["value"])
                runs = results.runs(self.make(value))
                yield value, one.kind, runs
                whole = whole and runs is not None
                mean = None if runs is None else sum(run.value(METRIC) for run in runs) / len(runs)
                done.append(Result(len(done), one.kind, dict(parameters), mean, 0.0, None))
            if not whole:
                return
