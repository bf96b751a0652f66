"""What penalties make of weights: E36 of report R4, as a table and as histograms layer by layer (F11)."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from fastnet.lab.histograms import weight_histograms
from fastnet.lab.plain import plain
from fastnet.plots.layers import weight_histograms as draw
from fastnet.reports import verdicts
from fastnet.reports.experiment import Cell, Drawn, Experiment, Results, Row, claim_row, not_run
from fastnet.reports.training import Trained
from fastnet.train.trained import load_run

TOLERANCE = 1e-3


def rows(cells: Sequence[Cell], results: Results) -> list[Row]:
    """A line for each cell: exact zeros, small weights and the training loss; then the matched ones beside L2."""
    found = []
    shares = {}
    for cell in cells:
        runs = finished(cell, results)
        label, measured = f"weights under {cell.label}", "% exactly 0"
        if not runs:
            found.append(not_run(label, measured, "", results.failure(cell.training) or "every run diverged"))
            continue
        zeros, small = map(mean, zip(*map(shares_of, runs), strict=True))
        shares[cell.label] = zeros
        found.append(claim_row(label, measured, "", f"{100 * zeros:.2f}", verdicts.NO_CLAIM, results,
                               f"|w| <= {TOLERANCE:g}: {100 * small:.1f} %; training loss {loss(runs):.3f}"))
    for way, said in (("subgradient", "no more than L2"), ("proximal", "")):
        chosen, base = matched(cells, results, way), cells[0].label
        if chosen is None or base not in shares:
            found.append(not_run(f"zeros, L1 by {way}", "% exactly 0", said, "a run that it compares is missing"))
            continue
        more = shares[chosen.label] > shares[base] + 1e-4
        verdict = verdicts.NO_CLAIM if not said else verdicts.DIFFERS if more else verdicts.AGREES
        found.append(claim_row(f"zeros, L1 by {way} matched to {base}", "% exactly 0", said,
                               f"{100 * shares[chosen.label]:.2f} and {100 * shares[base]:.2f}", verdict, results,
                               f"matched by training loss: {chosen.label}"))
    return found


def histograms(experiment: Experiment, results: Results, folder: Path) -> list[Drawn]:
    """Of the first seed: L2, and L1 of either way at the strength that is matched to it."""
    cells = [experiment.cells[0], *(matched(experiment.cells, results, way) for way in ("subgradient", "proximal"))]
    shown = {cell.label: runs[0] for cell in cells if cell and (runs := finished(cell, results))}
    if not shown:
        return []
    models = {name: load_run(run.folder).model for name, run in shown.items()}
    limit = max(row.largest for model in models.values() for row in weight_histograms(model))
    file = f"{experiment.id}-histograms.png"
    notice = results.scale.notice()
    title = "Weights layer by layer; shares of exact zeros in the order of the legend"
    draw({name: plain(weight_histograms(model, limit=limit, tolerance=TOLERANCE)) for name, model in models.items()},
         folder / file, title="\n".join([title, *textwrap.wrap(notice, 96)]))
    return [Drawn(file, f"{experiment.id}: weights under L2 and L1, one run each{f' ({notice})' if notice else ''}")]


def matched(cells: Sequence[Cell], results: Results, way: str) -> Cell | None:
    """Of the L1 cells of that way the one whose training loss is nearest to the first cell's (L2)."""
    base = finished(cells[0], results)
    candidates = {cell.label: (cell, loss(runs)) for cell in cells
                  if cell.label.endswith(way) and (runs := finished(cell, results))}
    if not base or not candidates:
        return None
    return min(candidates.values(), key=lambda pair: abs(pair[1] - loss(base)))[0]


def finished(cell: Cell, results: Results) -> list[Trained]:
    """The runs of a cell that did not diverge."""
    return [run for run in results.runs(cell.training) or [] if not run.diverged]


def shares_of(run: Trained) -> tuple[float, float]:
    """The parts of all weights that are exactly 0, and nearly."""
    found = weight_histograms(load_run(run.folder).model, tolerance=TOLERANCE)
    size = sum(row.size for row in found)
    return sum(row.zeros for row in found) / size, sum(row.near_zero for row in found) / size


def loss(runs: Sequence[Trained]) -> float:
    return mean([run.value("train_loss") for run in runs])


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
