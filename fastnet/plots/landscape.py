"""Figures of the loss: bands over learning rates along training, lines and contours around a model.

What they draw is what `fastnet.lab.plain` makes of the laboratory's results, or the same read from a JSON file.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.plots.style import COLOURS, written


def bands(panels: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path, *, title: str,
          log: Collection[str] = ()) -> None:
    """{label of the vertical axis: {name: band}}: a panel each, bands being the area from `low` to `high` over `steps`.

    A band of one curve is a line. Panels in `log` have a logarithmic axis.
    """
    with written(path, 7.2 if len(panels) > 1 else 4.8, 3.1, title) as figure:
        from matplotlib.ticker import FuncFormatter, LogLocator

        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (label, curves) in zip(axes, panels.items(), strict=True):
            for (name, band), colour in zip(curves.items(), COLOURS, strict=False):
                steps, low, high = (np.array(band[key], float) for key in ("steps", "low", "high"))
                axis.fill_between(steps, low, high, color=colour, alpha=0.35, linewidth=0, label=name)
                axis.plot(steps, low, color=colour, linewidth=0.6)
                axis.plot(steps, high, color=colour, linewidth=0.6)
            axis.set(xlabel="Update step", ylabel=label, yscale="log" if label in log else "linear")
            if label in log:
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.yaxis.set_minor_locator(LogLocator(subs=()))
        if any(len(curves) > 1 for curves in panels.values()):  # outside: a legend does not see the areas it covers
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


def loss_lines(surfaces: Mapping[str, Mapping[str, Any]], path: Path, *, title: str) -> None:
    """{name: surface along one direction}: the loss over the offset from the model, logarithmic over wide ranges."""
    with written(path, 4.8, 3.2, title) as figure:
        axis = figure.subplots()
        spans = []
        for (name, surface), colour in zip(surfaces.items(), COLOURS, strict=False):
            losses = np.array(surface["losses"], float)
            axis.plot(surface["a"], losses, color=colour, label=name)
            spans += [losses[np.isfinite(losses) & (losses > 0)]]
        values = np.concatenate(spans)
        axis.set(xlabel="Offset along a filter-normalised direction", ylabel="Loss (nats)",
                 yscale="log" if values.size and values.max() > 100 * values.min() else "linear")
        axis.axvline(0, color="0.4", linestyle="--", linewidth=1)
        _legend(axis)


def loss_contours(surfaces: Mapping[str, Mapping[str, Any]], path: Path, *, title: str) -> None:
    """{name: surface along two directions}: a panel each, contours at the same losses, a geometric row of them, in all.

    Points whose loss is not finite are left white. The model is the cross in the middle.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter

    grids = {name: np.ma.masked_invalid(np.array(surface["losses"], float)) for name, surface in surfaces.items()}
    known = np.concatenate([grid.compressed() for grid in grids.values()])
    least = max(known.min(initial=np.inf), 1e-3)
    most = max(known.max(initial=0.0), 1.01 * least)
    levels = np.geomspace(least, most, 18)
    levels[-1] *= 1 + 1e-6  # so that the largest value is inside
    count = len(grids)
    with written(path, 3.0 * count + 1.4, 3.2, title) as figure:
        axes = figure.subplots(1, count, squeeze=False)[0]
        for axis, (name, grid) in zip(axes, grids.items(), strict=True):
            a, b = (np.array(surfaces[name][key], float) for key in ("a", "b"))
            clipped = np.ma.maximum(grid.T, least)
            filled = axis.contourf(a, b, clipped, levels, cmap="cividis", norm=LogNorm(least, levels[-1]))
            axis.contour(a, b, clipped, levels, colors="white", linewidths=0.4, norm=LogNorm(least, levels[-1]))
            axis.plot(0, 0, "+", color="#D55E00", markersize=9, markeredgewidth=1.8)
            axis.set(xlabel="Offset along direction 1", aspect="equal")
            axis.grid(False)
            if count > 1:
                axis.set_title(name, fontsize=9)
        axes[0].set_ylabel("Offset along direction 2")
        ticks = levels[::3]
        bar = figure.colorbar(filled, ax=list(axes), label="Loss (nats)", ticks=ticks,
                              format=FuncFormatter(lambda value, _: f"{value:.3g}"))
        bar.ax.minorticks_off()


def _legend(axis: Any) -> None:
    if len(axis.get_legend_handles_labels()[1]) > 1:
        axis.legend()
