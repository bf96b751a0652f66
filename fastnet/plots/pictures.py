"""Figures made of images: feature maps of a network, examples of a data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.plots.style import written

TILE = 0.72  # inches


def feature_maps(image: np.ndarray, maps: Mapping[str, np.ndarray], path: Path, *, title: str,
                 kinds: Mapping[str, str] | None = None, channels: int = 8) -> None:
    """The image, and below it a row for each layer with the first `channels` of its maps (H, W, C).

    Every map goes from black, its least value, to white, its largest; one that is the same everywhere is black. `kinds`
    says what layer each is. Raises ValueError where no layer has maps.
    """
    rows = {name: values for name, values in maps.items() if values.ndim == 3}
    if not rows:
        raise ValueError("feature_maps: none of the layers has maps (H, W, C)")
    columns = max(min(channels, values.shape[2]) for values in rows.values())
    aspect = image.shape[0] / image.shape[1]
    heights = TILE * aspect * 2.2, len(rows) * (TILE * aspect + 0.06)
    with written(path, max(1.25 + columns * TILE, 4.0), 0.35 + sum(heights), title) as figure:
        top, below = figure.subfigures(2, 1, height_ratios=heights)
        axis = top.subplots()
        _show(axis, _visible(image))
        grid = below.subplots(len(rows), columns, squeeze=False)
        for line, (name, values) in zip(grid, rows.items(), strict=True):
            for channel, axis in enumerate(line):
                if channel < values.shape[2]:
                    _show(axis, values[..., channel].astype(np.float64), cmap="gray")
                else:
                    axis.set_axis_off()
            kind = f"{kinds[name]}\n" if kinds else ""
            line[0].set_ylabel(f"{name}\n{kind}{'x'.join(map(str, values.shape))}", rotation=0, ha="right", va="center",
                               fontsize=7)


def image_grid(images: np.ndarray, labels: Sequence[int], classes: Sequence[str], path: Path, *, title: str,
               per_class: int = 8) -> None:
    """A row for each class with its first `per_class` images, of images uint8 (N, H, W, C)."""
    marks = np.asarray(labels)
    with written(path, 1.1 + per_class * TILE, 0.4 + len(classes) * TILE, title) as figure:
        grid = figure.subplots(len(classes), per_class, squeeze=False)
        for index, (line, name) in enumerate(zip(grid, classes, strict=True)):
            found = np.flatnonzero(marks == index)[:per_class]
            for position, axis in enumerate(line):
                if position < len(found):
                    _show(axis, _visible(images[found[position]]))
                elif position:
                    axis.set_axis_off()
                else:
                    _show(axis, np.ones((1, 1, 3)))
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)


def _visible(image: np.ndarray) -> np.ndarray:
    """As matplotlib shows it: three channels from 0 to 255 or, floating, stretched from the least to the largest."""
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = (image.astype(np.float64) - low) / ((high - low) or 1.0)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _show(axis: Any, picture: np.ndarray, **how: Any) -> None:
    axis.imshow(picture, interpolation="nearest", **how)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for side in axis.spines.values():
        side.set_visible(False)
