"""The figures of the reports' pages. Each maker returns a function (experiment, results, folder) -> figures drawn."""

import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastnet.plots.style import COLOURS, written
from fastnet.reports.experiment import Drawn, Experiment, Results
from fastnet.train import record

if TYPE_CHECKING:
    from fastnet.reports.search import Search

Draw = Callable[[Experiment, Results, Path], list[Drawn]]
DASHES = ("-", "--", ":", "-.")  # once the colours are used up


def curves(*labels: str) -> Draw:
    """Loss, cost, accuracy and rate (F02) of the first seed's run of these cells, all of them if none is named."""
    def draw(experiment: Experiment, results: Results, folder: Path) -> list[Drawn]:
        drawn = []
        for cell in experiment.cells:
            runs = results.runs(cell.training) if cell.label in labels or not labels else None
            if runs and (runs[0].folder / record.CURVES).exists():
                file = f"{experiment.id}-{_slug(cell.label)}.png"
                shutil.copyfile(runs[0].folder / record.CURVES, folder / file)
                drawn.append(Drawn(file, f"{experiment.id}, {cell.label}: one run{_reduced(results)}"))
        return drawn

    return draw


def overlay(name: str, *labels: str, metric: str = "validation_accuracy", colours: int = len(COLOURS)) -> Draw:
    """A figure of the history over the epochs for several cells: mean of the seeds, and their range as a band.

    After so many `colours` the same ones come again, dashed: cells of two groups have each its colour in both.
    """
    def draw(experiment: Experiment, results: Results, folder: Path) -> list[Drawn]:
        lines = []
        for cell in experiment.cells:
            runs = results.runs(cell.training) if cell.label in labels or not labels else None
            if runs and all(run.history for run in runs):
                epochs = min(len(run.history) for run in runs)
                values = np.array([[line[metric] for line in run.history[:epochs]] for run in runs])
                lines.append((cell.label, values * (100 if metric.endswith("accuracy") else 1)))
                watched = cell.training.watch
        if not lines:
            return []
        file = f"{experiment.id}-{name}.png"
        with written(folder / file, 5.2, 3.4 + 0.12 * len(lines), _title(results)) as figure:
            axis = figure.subplots()
            for k, (label, values) in enumerate(lines):
                colour, x = COLOURS[k % colours], np.arange(1, values.shape[1] + 1)
                axis.plot(x, values.mean(0), color=colour, linestyle=DASHES[k // colours % len(DASHES)], label=label)
                axis.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
            measured = metric if watched == "validation" else metric.replace("validation", "test")
            what = measured.replace("_", " ").capitalize() + (" (%)" if metric.endswith("accuracy") else "")
            axis.set(xlabel="Epoch", ylabel=what, xlim=(1, None))
            axis.xaxis.get_major_locator().set_params(integer=True)
            figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
        return [Drawn(file, f"{experiment.id}: mean of {len(results.seeds)} seeds and their range{_reduced(results)}")]

    return draw


def scatter(search: "Search", what: str, published: Sequence[tuple[float, float]] = ()) -> Draw:
    """Validation accuracy over a searched number (F03): each stage's points, with the published (value, accuracy)."""
    def draw(experiment: Experiment, results: Results, folder: Path) -> list[Drawn]:
        points = search.points(results)
        if not points:
            return []
        file = f"{experiment.id}-search.png"
        with written(folder / file, 5.2, 3.4, _title(results)) as figure:
            axis = figure.subplots()
            for k, stage in enumerate(dict.fromkeys(point.stage for point in points)):
                here = [(float(p.parameters["value"]), 100 * (p.value or 0.0)) for p in points if p.stage == stage]
                axis.plot(*zip(*here, strict=True), linestyle="", marker="os"[k], color=COLOURS[k], markersize=5,
                          label="coarse" if stage == "coarse" else "fine")
            if published and not results.scale.notice():
                axis.plot([value for value, _ in published], [100 * accuracy for _, accuracy in published],
                          linestyle="", marker="D", markerfacecolor="none", color="0.3", label="published")
            axis.set(xscale="log", xlabel=what, ylabel="Validation accuracy (%)")
            axis.legend()
        return [Drawn(file, f"{experiment.id}: what the search found, each point the mean of {len(results.seeds)} "
                            f"seeds{_reduced(results)}")]

    return draw


def cost_graph(experiment: Experiment, results: Results, folder: Path) -> list[Drawn]:
    """The computational graph of the two-layer network's cost (F01): arrays as boxes, operations as discs."""
    arrays = {"x": (0, 0), "W_1": (1, 1), "b_1": (2, 1), "W_2": (4, 1), "b_2": (5, 1), "y": (7.5, 1)}
    operations = {"·1": (1, 0, "$W_1x$"), "+1": (2, 0, "$+$"), "relu": (3, 0, "relu"), "·2": (4, 0, "$W_2h$"),
                  "+2": (5, 0, "$+$"), "softmax": (6, 0, "softmax"), "loss": (7.5, 0, r"$-y^T\log p$"),
                  "square": (2.5, 2, r"$\sum W_1^2+\sum W_2^2$"), "scale": (8.2, 2, r"$\lambda\,\cdot$"),
                  "sum": (9, 0, "$+$")}
    named = {"relu": "$z_1$", "·2": "$h$", "softmax": "$z_2$", "loss": "$p$", "sum": "$l$"}
    edges = [("x", "·1"), ("W_1", "·1"), ("·1", "+1"), ("b_1", "+1"), ("+1", "relu"), ("relu", "·2"), ("W_2", "·2"),
             ("·2", "+2"), ("b_2", "+2"), ("+2", "softmax"), ("softmax", "loss"), ("y", "loss"), ("loss", "sum"),
             ("W_1", "square"), ("W_2", "square"), ("square", "scale"), ("scale", "sum")]
    places = arrays | {key: (x, y) for key, (x, y, _) in operations.items()}
    file = f"{experiment.id}-graph.png"
    with written(folder / file, 7.2, 2.6) as figure:
        axis = figure.subplots()
        axis.axis("off")
        axis.set(xlim=(-0.4, 10.4), ylim=(-0.5, 2.4))
        boxes = {key: axis.text(*at, f"${key}$", ha="center", va="center",
                                bbox={"boxstyle": "square,pad=0.35", "facecolor": "#E8F1F8", "edgecolor": COLOURS[0]})
                 for key, at in arrays.items()}
        boxes |= {key: axis.text(x, y, text, ha="center", va="center", fontsize=8,
                                 bbox={"boxstyle": "round,pad=0.4,rounding_size=0.8", "facecolor": "white",
                                       "edgecolor": COLOURS[1]}) for key, (x, y, text) in operations.items()}
        boxes["J"] = axis.text(10, 0, "$J$", ha="center", va="center",
                               bbox={"boxstyle": "square,pad=0.35", "facecolor": "#FBEBDD", "edgecolor": COLOURS[1]})
        places["J"] = (10, 0)
        for start, end in [*edges, ("sum", "J")]:
            axis.annotate("", places[end], places[start], arrowprops={
                "arrowstyle": "-|>", "color": "0.35", "shrinkA": 1, "shrinkB": 1,
                "patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch()})
        for key, text in named.items():
            x = places[key][0] - {"loss": 0.82, "sum": 0.6, "softmax": 0.62}.get(key, 0.5)
            axis.text(x, 0.1, text, ha="center", va="bottom", fontsize=8, color="0.35")
    return [Drawn(file, "The cost of the two-layer network as a graph: arrays in boxes, operations rounded")]


def _title(results: Results) -> str | None:
    """What a reader of the picture alone has to know, in lines as long as it is wide."""
    return textwrap.fill(results.scale.notice(), 72) or None


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.")


def _reduced(results: Results) -> str:
    return f" ({results.scale.notice()})" if results.scale.notice() else ""
