"""Figures that go layer by layer: histograms of weights, activity along training.

What they draw is what `fastnet.lab.plain` makes of the laboratory's results, or the same read from a JSON file.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.plots.style import COLOURS, written


def weight_histograms(models: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, *, title: str) -> None:
    """{name of the model: its histograms}: a panel for each array of weights, in which every model has an outline.

    The vertical axis is the density, logarithmic: a column's area on a linear one would be its share of the weights.
    Each panel says how many of each model's weights are exactly zero.
    """
    names = list(dict.fromkeys(row["name"] for rows in models.values() for row in rows))
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    with written(path, 2.3 * columns + 0.3, 0.6 + 1.95 * lines, title) as figure:
        from matplotlib.ticker import MaxNLocator, NullFormatter

        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for axis, name in zip(axes, names, strict=False):
            zeros, heights = [], []
            for (model, rows), colour in zip(models.items(), COLOURS, strict=False):
                for row in (row for row in rows if row["name"] == name):
                    edges, counts = (np.array(row[key], float) for key in ("edges", "counts"))
                    density = counts / (row["size"] * np.diff(edges))
                    axis.stairs(density, edges, color=colour, linewidth=1.1, label=model)
                    heights += density[density > 0].tolist()
                    zeros.append(f"{100 * row['zeros'] / row['size']:.1f}")
            axis.set_title(f"{name}\n{', '.join(zeros)} % zeros", fontsize=8)
            most = 1.5 * max(heights, default=1.0)
            # Two decades at least, so that the axis has ticks.
            axis.set(yscale="log", ylim=(min([*heights, most / 100]) * 0.8, most))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
        if len(models) > 1:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(models))
        for axis in axes[len(names):]:
            axis.set_axis_off()
        for axis in axes[::columns]:
            axis.set_ylabel("Density")
        for axis in axes[max(0, len(names) - columns) : len(names)]:
            axis.set_xlabel("Weight")


def activity(epochs: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Six panels over the epochs, a line for each layer or array of weights, dark at the input and light at the output.

    Channel means (root mean square) and standard deviations of what goes into the activations: of the BatchNorm layers,
    or of the others with weights where there is none; the share of dead ReLU units; norms of gradients and weights, and
    the size of an update beside the weights.
    """
    layers = {row["name"]: row["kind"] for row in epochs[0]["layers"]}
    weighted = [name for name, kind in layers.items() if kind == "BatchNorm"] or [
        name for name, kind in layers.items() if kind in ("Conv2d", "Linear")]
    rectified = [row["name"] for row in epochs[0]["layers"] if row["dead"] is not None]
    weights = [row["name"] for row in epochs[0]["parameters"] if row["name"].endswith(".w")]
    kind = layers[weighted[0]]
    panels: list[tuple[str, str, list[str], Callable[[Mapping[str, Any]], float], bool]] = [
        (f"Channel mean, {kind}", "layers", weighted, lambda row: _rms(row["channel_means"]), False),
        (f"Channel std, {kind}", "layers", weighted, lambda row: _rms(row["channel_stds"]), False),
        ("Dead ReLU units (%)", "layers", rectified, lambda row: 100 * row["dead"] / row["units"], False),
        ("Gradient norm", "parameters", weights, lambda row: row["gradient_norm"], True),
        ("Weight norm", "parameters", weights, lambda row: row["weight_norm"], True),
        ("Update / weight", "parameters", weights, lambda row: row["update_ratio"], True),
    ]
    numbers = [line["epoch"] + 1 for line in epochs]
    with written(path, 7.2, 6.6, title) as figure:
        from matplotlib import colormaps
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

        axes = figure.subplots(3, 2, sharex=True).T.ravel()
        for axis, (label, group, names, value, log) in zip(axes, panels, strict=True):
            shades = colormaps["cividis"](np.linspace(0, 0.92, max(2, len(names))))
            shown = set(np.linspace(0, len(names) - 1, min(5, len(names))).round().astype(int))
            for index, (name, shade) in enumerate(zip(names, shades, strict=False)):
                rows = [next(row for row in line[group] if row["name"] == name) for line in epochs]
                values = [math.nan if (found := value(row)) is None else found for row in rows]
                axis.plot(numbers, values, color=shade, marker="o", markersize=2.5, linewidth=1.2,
                          label=name if index in shown else None)
            axis.set(ylabel=label, yscale="log" if log else "linear")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            if "%" in label:
                axis.set_ylim(-0.2, max(5.0, axis.get_ylim()[1]))
            if log:
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))
                axis.yaxis.set_minor_locator(LogLocator(subs=()))
            if names:
                axis.legend(fontsize=6.5, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)
        for axis in axes[2::3]:
            axis.set_xlabel("Epoch")


def _rms(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(np.array(values, float)))))
