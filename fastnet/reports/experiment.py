"""What an experiment of a report is: cells with published figures, effects that it claims, and the runs it needs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fastnet.reports import verdicts
from fastnet.reports.scale import Scale
from fastnet.reports.task import Task, answer
from fastnet.reports.training import Place, Trained, Training

Job = Training | Task


@dataclass(frozen=True)
class Cell:
    """A line of the table: one figure of one training, beside the published one (a fraction; None: no number)."""

    label: str
    training: Training
    reported: float | None = None
    metric: str = "test_accuracy"
    note: str = ""


@dataclass(frozen=True)
class Effect:
    """A claim that one cell (by its label) beats another, and by how much.

    None: what was published of the two cells differs by, if it does; else there is no number.
    """

    claim: str
    better: str
    worse: str
    reported: float | None = None


class Row(NamedTuple):
    """A line of the table as text: what was measured, reported, ours, its error, the difference, verdict, notes."""

    label: str
    measured: str
    reported: str
    ours: str
    error: str
    difference: str
    verdict: str
    note: str = ""


class Drawn(NamedTuple):
    """A figure in the folder of the page."""

    file: str
    caption: str


@dataclass
class Results:
    """What is done so far: where each job's directory is, and why some could not run.

    Trainings are asked for as the report states them; `scale` is applied here, in one place.
    """

    place: Place
    scale: Scale
    seeds: tuple[int, ...]
    folders: dict[str, Path]
    failures: dict[str, str]

    def runs(self, training: Training) -> list[Trained] | None:
        """The finished runs of all seeds; None where any is missing."""
        keys = [job.key(self.place) for job in self.seeded(training)]
        return [Trained(self.folders[key]) for key in keys] if all(key in self.folders for key in keys) else None

    def answer(self, task: Task) -> Any:
        """What a task answered; None where it has not run."""
        key = self.scaled(task).key(self.place)
        return answer(self.folders[key]) if key in self.folders else None

    def folder(self, task: Task) -> Path | None:
        """Where a task has written its files; None where it has not run."""
        return self.folders.get(self.scaled(task).key(self.place))

    def failure(self, job: Job) -> str:
        """Why it could not run."""
        jobs: Sequence[Job] = self.seeded(job) if isinstance(job, Training) else [self.scaled(job)]
        return next((self.failures[key] for j in jobs if (key := j.key(self.place)) in self.failures), "")

    def seeded(self, training: Training) -> list[Training]:
        """The runs that a training stands for, at this scale."""
        scaled = self.scale.apply(training)
        return [replace(scaled, seed=seed) for seed in self.seeds]

    def scaled(self, task: Task) -> Task:
        """The task at this scale. It is not seeded: what a seed means to it is one of its arguments."""
        return replace(task, after=tuple(self.scale.apply(t) for t in task.after),
                       data=task.data and self.scale.data)


@dataclass(frozen=True)
class Experiment:
    """An experiment of a report: data, and at most four functions of the results.

    claim      what the report says, in a sentence
    cells      lines of the table; their trainings are run
    effects    which cell is claimed to beat which
    decisions  ids of `fastnet.reports.decisions`: what the report leaves open, and what is done here
    tasks      what is run besides trainings
    more       results -> trainings and tasks that depend on results; asked until nothing new comes
    rows       results -> further lines of the table
    figures    functions (experiment, results, folder) -> figures drawn into the folder
    text       a paragraph for the page
    quick      instead of the usual reductions of --scale quick
    """

    id: str
    claim: str
    cells: tuple[Cell, ...] = ()
    effects: tuple[Effect, ...] = ()
    decisions: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()
    more: Callable[[Results], Iterable[Job]] | None = None
    rows: Callable[[Results], list[Row]] | None = None
    figures: tuple[Callable[["Experiment", Results, Path], list[Drawn]], ...] = ()
    text: str = ""
    quick: Scale | None = None

    def jobs(self, results: Results) -> Iterator[Job]:
        """Everything it needs as far as the results so far tell, at their scale; inputs before what needs them."""
        later = list(self.more(results)) if self.more else []
        for job in (*(cell.training for cell in self.cells), *self.tasks, *later):
            if isinstance(job, Training):
                yield from results.seeded(job)
            else:
                scaled = results.scaled(job)
                yield from scaled.after
                yield scaled

    def table(self, results: Results) -> list[Row]:
        """All lines, those of effects last."""
        rows = [cell_row(cell, results) for cell in self.cells]
        rows += self.rows(results) if self.rows else []
        return rows + [_effect(effect, self, results) for effect in self.effects]

    def cell(self, label: str) -> Cell:
        return next(cell for cell in self.cells if cell.label == label)


def percent(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{100 * value:{sign}.2f}"


def not_run(label: str, measured: str, reported: str, why: str) -> Row:
    """The line of something that could not run, with the reason."""
    return Row(label, measured, reported, "-", "-", "-", verdicts.NOT_RUN, why)


def cell_row(cell: Cell, results: Results) -> Row:
    """The line of a cell."""
    runs = results.runs(cell.training)
    measured = cell.metric.replace("_", " ").removesuffix(" accuracy") + (" %" if "accuracy" in cell.metric else "")
    if runs is None:
        return not_run(cell.label, measured, percent(cell.reported), results.failure(cell.training))
    found = verdicts.figure([run.value(cell.metric) for run in runs], runs[0].images(cell.metric), cell.reported)
    lost = [f"seed {seed} diverged at step {run.diverged['step']}"
            for seed, run in zip(results.seeds, runs, strict=True) if run.diverged]
    return figure_row(cell.label, measured, found, results, *filter(None, [cell.note]), *lost)


def figure_row(label: str, measured: str, found: verdicts.Figure, results: Results, *notes: str) -> Row:
    """The line of an accuracy beside the published one."""
    difference = None if found.reported is None else found.mean - found.reported
    verdict = verdicts.REDUCED if found.reported is not None and results.scale.notice() else found.verdict
    alone = () if found.seeds > 1 else ("one seed: its spread is not known",)
    return Row(label, measured, percent(found.reported), spread(found), percent(found.standard_error),
               percent(difference, "+"), verdict, "; ".join((*notes, *alone)))


def effect_row(label: str, split: str, results: Results, found: verdicts.Comparison) -> Row:
    """The line of a difference between two networks on the same images."""
    p = ", ".join(f"{value:.2g}" for value in found.p)
    return Row(label, f"{split}, points", percent(found.reported, "+"), percent(found.difference, "+"),
               percent(found.error), "", verdicts.REDUCED if results.scale.notice() else found.verdict,
               f"McNemar p {p}")


def claim_row(label: str, measured: str, said: str, ours: str, verdict: str, results: Results, *notes: str) -> Row:
    """The line of a claim that is no accuracy; only at full scale can it have another verdict than `reduced`."""
    reduced = verdict != verdicts.NO_CLAIM and bool(results.scale.notice())
    return Row(label, measured, said or "-", ours, "-", "-", verdicts.REDUCED if reduced else verdict,
               "; ".join(filter(None, notes)))


def spread(found: verdicts.Figure) -> str:
    """Mean and standard deviation over seeds."""
    return percent(found.mean) + (f" ± {percent(found.spread)}" if found.spread is not None else "")


def _effect(effect: Effect, experiment: Experiment, results: Results) -> Row:
    cells = [experiment.cell(effect.better), experiment.cell(effect.worse)]
    label, split = f"{effect.better} > {effect.worse}: {effect.claim}", cells[0].metric.split("_")[-2]
    better, worse = (results.runs(cell.training) for cell in cells)
    first, second = (cell.reported for cell in cells)
    reported = effect.reported
    if reported is None and first is not None and second is not None and first != second:
        reported = first - second
    if better is None or worse is None:
        return not_run(label, f"{split}, points", percent(reported, "+"), "a run that it compares is missing")
    found = verdicts.comparison([run.correct(split) for run in better], [run.correct(split) for run in worse], reported)
    return effect_row(label, split, results, found)
