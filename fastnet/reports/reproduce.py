"""`reproduce`: run the experiments of a report, compare, draw, write the page."""

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from fastnet.reports import page, verdicts
from fastnet.reports.experiment import Experiment, Results
from fastnet.reports.page import Section
from fastnet.reports.running import Runner
from fastnet.reports.scale import Scale
from fastnet.reports.training import Place
from fastnet.train.lock import exclusive


class Reproduction(NamedTuple):
    """What came of it: the experiments with their lines, the page, and the conditions of all numbers."""

    sections: list[Section]
    page: Path
    conditions: list[str]

    @property
    def complete(self) -> bool:
        """Whether everything could be run, whatever the verdicts are."""
        return all(row.verdict != verdicts.NOT_RUN for section in self.sections for row in section.rows)


# What comes after a report's own experiments: R4's questions of theory, which `fastnet reproduce theory` runs alone.
APPENDED = {"R4": ("THEORY",)}


def reports() -> dict[str, ModuleType]:
    """{'R1': its module, ...}: the folder is the list."""
    names = [*sorted(path.stem for path in Path(__file__).parent.glob("r[0-9].py")), "theory"]
    return {name.upper(): importlib.import_module(f"fastnet.reports.{name}") for name in names}


def chosen(report: str, names: Sequence[str] = ()) -> list[Experiment]:
    """The experiments of a report, or those named. Raises ValueError for a report or an experiment it does not have."""
    known = reports()
    if report.upper() not in known:
        raise ValueError(f"reproduce: there is no report {report!r}; choose from {', '.join(known)}")
    parts = (report.upper(), *APPENDED.get(report.upper(), ()))
    experiments = {e.id: e for part in parts for e in known[part].EXPERIMENTS}
    if unknown := [name for name in names if name.upper() not in experiments]:
        raise ValueError(f"reproduce: {report.upper()} has no experiment {', '.join(map(repr, unknown))}; choose from "
                         f"{', '.join(experiments)}")
    return [experiments[name.upper()] for name in names] if names else list(experiments.values())


def default_workers(device: str) -> int:
    """A process for each core we may use; on a GPU, which they would share, this process alone."""
    if device != "cpu":
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reproduce(report: str, names: Sequence[str] = (), *, scale: Scale, seeds: int = 3, place: Place | None = None,
              out: Path | str = "runs/reproduce", pages: Path | None = None, workers: int | None = None,
              note: str = "", tell: Callable[[str], None] = print) -> Reproduction:
    """Run a report, or the experiments named, and write its page (below `out` unless `pages` names a folder).

    What is done already in `out` is not run again. `note` is one more line of conditions, say on where the data come
    from. Raises ValueError for bad arguments, what `fastnet.data.load` raises for data that cannot be had,
    BlockingIOError where another process reproduces into `out`, KeyboardInterrupt after Ctrl-C, when the state has been
    saved. What fails while it runs is `not run` in the table, with the reason.
    """
    place, out = place or Place(), Path(out)
    if seeds < 1:
        raise ValueError(f"reproduce: seeds must be at least 1 but is {seeds}")
    workers = default_workers(place.device) if workers is None else workers
    if workers < 0:
        raise ValueError(f"reproduce: workers must be at least 0 but is {workers}")
    experiments = chosen(report, names)
    shared = Results(place, scale, tuple(range(seeds)), {}, {})
    results = {e.id: _at(e, shared) for e in experiments}
    conditions = page.conditions(shared, scale.data) + [note] * bool(note)
    own = [f"{e.id}: {results[e.id].scale.notice()}" for e in experiments if results[e.id] is not shared]
    for line in conditions + own:
        tell(line)
    folder = pages or out / "pages"
    for needed in (out, folder):
        needed.mkdir(parents=True, exist_ok=True)
    with exclusive(out):
        runner = Runner(shared, out, workers, tell)
        runner.run(lambda: [job for e in experiments for job in e.jobs(results[e.id])])
    about = (importlib.import_module(f"fastnet.reports.{report.lower()}").__doc__ or report).strip()
    sections = [Section(e, e.table(results[e.id]),
                        [drawn for draw in e.figures for drawn in draw(e, results[e.id], folder)],
                        "" if results[e.id] is shared else results[e.id].scale.notice()) for e in experiments]
    name = "-".join([report.upper(), *(e.id for e in experiments)] if names else [report.upper()])
    return Reproduction(sections, page.write(folder, name, about, sections, conditions), conditions)


def _at(experiment: Experiment, shared: Results) -> Results:
    """The shared results as this experiment sees them: with reductions of its own at a reduced scale, if it has any."""
    if experiment.quick is None or shared.scale.name != "quick":
        return shared
    return Results(shared.place, experiment.quick, shared.seeds, shared.folders, shared.failures)
