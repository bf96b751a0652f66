"""A question of theory: the statement, the report's answer, what is measured, and the verdict in a sentence."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastnet.data import Dataset
from fastnet.reports import verdicts
from fastnet.reports.experiment import Drawn, Experiment, Results, Row, not_run
from fastnet.reports.scale import Scale
from fastnet.reports.task import Task
from fastnet.reports.training import Place, Training


class Finding(NamedTuple):
    """What the measurements say: lines of the table, whether the report's answer holds, and why in a sentence.

    `holds` is None where the measurement cannot tell.
    """

    rows: list[Row]
    holds: bool | None
    why: str


@dataclass(frozen=True)
class Question:
    """A question and its demonstration.

    statement  what R4 asks about, and `answer`, what it says of that
    about      what is measured here, and how long that takes
    tasks      results -> tasks; those of a `--seeds` differ in their `seed`
    find       the tasks' answers -> what they say
    draw       (answers, file) draws a figure, which `caption` explains
    """

    id: str
    statement: str
    answer: bool | str
    about: str
    tasks: Callable[[Results], list[Task]]
    find: Callable[[list[Any]], Finding]
    draw: Callable[[list[Any], Path], None] | None = None
    caption: str = ""
    decisions: tuple[str, ...] = ()

    def experiment(self) -> Experiment:
        """As the frame runs it; --scale quick changes nothing of it."""
        return Experiment(self.id, f'"{self.statement}": {self._said()}', text=self.about, more=self.tasks,
                          rows=self._rows, figures=(self._figure,) if self.draw else (), decisions=self.decisions,
                          quick=Scale("quick"))

    def _said(self) -> str:
        return self.answer if isinstance(self.answer, str) else str(self.answer).lower()

    def _answers(self, results: Results) -> list[Any] | None:
        found = [results.answer(task) for task in self.tasks(results)]
        return None if any(one is None for one in found) else found

    def _rows(self, results: Results) -> list[Row]:
        answers, label = self._answers(results), f'"{self.statement}"'
        if answers is None:
            why = "; ".join(dict.fromkeys(filter(None, map(results.failure, self.tasks(results)))))
            return [not_run(label, "answer", self._said(), why)]
        rows, holds, why = self.find(answers)
        verdict = {True: verdicts.AGREES, False: verdicts.DIFFERS, None: verdicts.INDISTINGUISHABLE}[holds]
        if results.scale.notice():
            verdict = verdicts.REDUCED
        ours = "cannot be told" if holds is None else self._said() if holds else "not so"
        return [*rows, Row(label, "answer", self._said(), ours, "", "", verdict, why)]

    def _figure(self, experiment: Experiment, results: Results, folder: Path) -> list[Drawn]:
        answers = self._answers(results)
        if answers is None or self.draw is None:
            return []
        file = f"{self.id}.png"
        self.draw(answers, folder / file)
        reduced = f" ({results.scale.notice()})" if results.scale.notice() else ""
        return [Drawn(file, f"{self.id}: {self.caption}{reduced}")]


def line(label: str, measured: str, ours: str, reported: str = "", error: str = "", note: str = "") -> Row:
    """A measured line that has no verdict of its own."""
    return Row(label, measured, reported, ours, error, "", verdicts.NO_CLAIM, note)


def seeded(results: Results, function: str, **arguments: Any) -> list[Task]:
    """A task for every seed, which reads the report's data set."""
    return [Task(f"fastnet.reports.theory.{function}", {**arguments, "seed": seed}, data="cifar10")
            for seed in results.seeds]


def images(results: Results, count: int) -> int:
    """So many images at this scale; at least 60, so that batch norm and a validation have something to work with."""
    return max(60, count // results.scale.images)


def epochs(results: Results, count: int) -> int:
    return max(1, count // results.scale.epochs)


def dataset(name: str, place: Place, train: int, validation: int, seed: int) -> Dataset:
    """So many images to train on and to judge by, drawn by the seed. The test images are left alone."""
    data = Training("mlp2", data=name, split=f"{train}/{validation}", seed=seed).dataset(place)
    return replace(data, test=data.validation)


def spread(values: Sequence[float], form: str = ".2f", factor: float = 1.0) -> str:
    """Mean and standard deviation over the seeds, times a factor."""
    mean = f"{factor * float(np.mean(values)):{form}}"
    return mean + (f" ± {factor * float(np.std(values, ddof=1)):{form.lstrip('+')}}" if len(values) > 1 else "")


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's confidence interval of the mean of independent values; infinite for a single one."""
    from scipy.stats import t

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return -math.inf, math.inf
    half = float(t.ppf((1 + level) / 2, count - 1)) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return mean - half, mean + half
