"""The figure of a search: values over parameters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastnet.lab.search.plan import Result
from fastnet.lab.search.space import Choice, Distribution, Log, Space
from fastnet.plots.style import COLOURS, written

# Shapes tell the searches apart in print too.
MARKS = {"coarse": (COLOURS[0], "o"), "window": (COLOURS[1], "s"), "factor": (COLOURS[2], "^"),
         "grid": (COLOURS[5], "v"), "tpe": (COLOURS[3], "D")}


def draw_search(results: Sequence[Result], space: Space, path: Path, *, value: str, best: Result, title: str) -> None:
    """Write a figure with a panel for each parameter: the value of each trial over it, on a logarithmic axis where it
    was drawn so, one mark for each kind of search, a ring around the best, a tick on the axis for each that failed.

    `value` is the name of the value; a name that ends in accuracy is drawn in per cent.
    """
    with written(path, max(4.8, 2.9 * len(space)), 3.2, title) as figure:
        panels = figure.subplots(1, len(space), sharey=True, squeeze=False)[0]
        scale, unit = (100, " (%)") if value.endswith("accuracy") else (1, "")
        for axis, (name, one) in zip(panels, space.items(), strict=True):
            _panel(axis, results, name, one, best, scale)
            axis.set_xlabel(name.replace("_", " "))
            axis.margins(y=0.12)  # leaves the bottom to those that failed
            if isinstance(one, Log):
                axis.set_xscale("log")
            if isinstance(one, Choice):
                axis.set_xticks(range(len(one.values)), [str(value) for value in one.values])
                axis.set_xlim(-0.5, len(one.values) - 0.5)
        panels[0].set_ylabel(value.replace("_", " ").capitalize() + unit)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _panel(axis: Any, results: Sequence[Result], name: str, one: Distribution, best: Result, scale: int) -> None:
    def place(result: Result) -> Any:
        value = result.parameters[name]
        return one.values.index(value) if isinstance(one, Choice) else value

    for stage, (colour, marker) in MARKS.items():
        shown = [result for result in results if result.stage == stage and result.value is not None]
        if shown:
            axis.plot([place(r) for r in shown], [scale * r.value for r in shown if r.value is not None],
                      color=colour, marker=marker, markersize=5, linestyle="none", label=stage)
    axis.plot([place(best)], [scale * (best.value or 0.0)], color="0.2", marker="o", markersize=11, fillstyle="none",
              linestyle="none", label=f"best: trial {best.trial}")
    if failed := [place(result) for result in results if result.value is None]:
        axis.plot(failed, [0.02] * len(failed), transform=axis.get_xaxis_transform(), color="0.2", marker="x",
                  markersize=6, linestyle="none", label="failed")
