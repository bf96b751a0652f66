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

    Every map goes from dark blue, its least value, to yellow, its largest; one that is the same everywhere is blue.
    `kinds` says what layer each is. Raises ValueError where no layer has maps.
    """
    rows = {name: values for name, values in maps.items() if values.ndim == 3}
    if not rows:
        raise ValueError("feature_maps: none of the layers has maps (H, W, C)")
    columns = max(min(channels, values.shape[2]) for values in rows.values())
    aspect = image.shape[0] / image.shape[1]
    height = TILE * aspect
    sizes = [2.2 * height] + [height + 0.06] * len(rows)
    margin = 0.6 + 0.075 * max(9, *map(len, rows))  # for the names; 9 letters has BatchNorm
    with written(path, max(margin + columns * TILE, 4.0), 0.35 + sum(sizes), title) as figure:
        from matplotlib import colormaps

        colours = colormaps["cividis"]
        first, *others = figure.subplots(len(sizes), 1, height_ratios=sizes)
        _show(first, _visible(image))
        for axis, (name, values) in zip(others, rows.items(), strict=True):
            tiles = [colours(_stretched(values[..., channel]))[..., :3]
                     for channel in range(min(columns, values.shape[2]))]
            _show(axis, _strip(tiles, columns))
            kind = f"{kinds[name]}\n" if kinds else ""
            _name(axis, f"{name}\n{kind}{'x'.join(map(str, values.shape))}", 7)


def image_grid(images: np.ndarray, labels: Sequence[int], classes: Sequence[str], path: Path, *, title: str,
               per_class: int = 8) -> None:
    """A row for each class with its first `per_class` images, of images uint8 (N, H, W, C)."""
    marks = np.asarray(labels)
    with written(path, 1.1 + per_class * TILE, 0.4 + len(classes) * TILE, title) as figure:
        axes = figure.subplots(len(classes), 1, squeeze=False)[:, 0]
        for index, (axis, name) in enumerate(zip(axes, classes, strict=True)):
            tiles = [_visible(image) / 255 for image in images[marks == index][:per_class]]
            _show(axis, _strip(tiles or [np.ones((*images.shape[1:3], 3))], per_class))
            _name(axis, name, 8)


def _visible(image: np.ndarray) -> np.ndarray:
    """Three channels uint8; a floating image is stretched from the least to the largest."""
    if image.dtype != np.uint8:
        image = np.round(255 * _stretched(image)).astype(np.uint8)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _stretched(values: np.ndarray) -> np.ndarray:
    """float64 from 0, for the least, to 1."""
    wide = values.astype(np.float64)
    return (wide - wide.min()) / ((wide.max() - wide.min()) or 1.0)


def _strip(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Tiles of one size side by side as one picture, white between them and where fewer than `columns` are there.

    One picture, since a figure of some hundred axes would take a minute.
    """
    grain = -(-16 // tiles[0].shape[1])  # pixels of the picture for one of a small tile, so that gaps can be narrow
    height, width = (grain * size for size in tiles[0].shape[:2])
    gap = round(width / 16)
    strip = np.ones((height, columns * width + (columns - 1) * gap, 3))
    for place, tile in enumerate(tiles):
        start = place * (width + gap)
        strip[:, start : start + width] = tile.repeat(grain, axis=0).repeat(grain, axis=1)
    return strip


def _show(axis: Any, picture: np.ndarray) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for side in axis.spines.values():
        side.set_visible(False)


def _name(axis: Any, text: str, size: int) -> None:
    """What a row is, at its left."""
    axis.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=size)
