"""Pictures on report R5's page: examples of the images, what the layers see, the plan of ResNet-18."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.lab.features import feature_maps
from fastnet.nn.models import build
from fastnet.nn.summary import summarize
from fastnet.plots import pictures
from fastnet.plots.style import COLOURS, written
from fastnet.reports.experiment import Drawn, Experiment, Results
from fastnet.train.trained import load_run

DOG = 5  # the report shows a dog
TAPS = ("conv1", "bn1", "act1", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.act1")


def examples(experiment: Experiment, results: Results, folder: Path) -> list[Drawn]:
    """The first training images of each class (F12)."""
    data = results.scale.apply(experiment.cells[0].training).dataset(results.place)
    file = f"{experiment.id}-examples.png"
    pictures.image_grid(data.train.images, data.train.labels, data.classes, folder / file, title=data.name)
    return [Drawn(file, f"{experiment.id}: training images of {data.name}")]


def maps(experiment: Experiment, results: Results, folder: Path) -> list[Drawn]:
    """A test image behind the first two convolutions, batch norms and activations of the first cell's run (F07)."""
    runs = results.runs(experiment.cells[0].training)
    if not runs or runs[0].diverged:
        return []
    run = load_run(runs[0].folder)
    test = results.scale.apply(experiment.cells[0].training).dataset(results.place).test
    image = test.images[np.flatnonzero(test.labels == DOG)[0]]
    found = feature_maps(run.model, image, run.standardization, layers=TAPS)
    file = f"{experiment.id}-maps.png"
    pictures.feature_maps(image, found.maps, folder / file, kinds=found.kinds,
                          title=f"{run.classes[DOG]}: a test image, and maps of {experiment.cells[0].label}")
    notice = results.scale.notice()
    return [Drawn(file, f"{experiment.id}: feature maps of one run{f' ({notice})' if notice else ''}; the report's "
                        "photograph is not to be had, this is the first such image of the test set")]


def resnet_plan(experiment: Experiment, results: Results, folder: Path) -> list[Drawn]:
    """ResNet-18 as boxes, read off the model as published: shapes and parameters of each stage (F06)."""
    rows = summarize(build("resnet18", init="zeros"), (32, 32, 3))
    stages: list[tuple[str, str, tuple[int, ...], int]] = [("image", "", (32, 32, 3), 0)]
    for name, what in (("conv1", "3x3 conv,\nBN, ReLU"), *((f"layer{k}", "2 blocks") for k in range(1, 5)),
                       ("avgpool", "mean"), ("fc", "linear")):
        within = [row for row in rows if row.name == name or row.name.startswith(f"{name}.") or (
            name == "conv1" and row.name in ("bn1", "act1"))]
        stages.append((name, what, within[-1].shape, sum(row.parameters for row in within)))
    file = f"{experiment.id}-resnet18.png"
    with written(folder / file, 7.2, 2.7) as figure:
        axis = figure.subplots()
        axis.axis("off")
        axis.set(xlim=(-0.5, 7.4), ylim=(-2.15, 0.65))
        _chain(axis, 0.0, [("\n".join(filter(None, (name, what, "x".join(map(str, shape)),
                                                    f"{parameters:,}" if parameters else ""))),
                            COLOURS[1] if name.startswith("layer") else COLOURS[0])
                           for name, what, shape, parameters in stages])
        _chain(axis, -1.3, [(name, COLOURS[1] if k else COLOURS[0]) for k, name in enumerate(
            ("x", "3x3 conv", "BN", "ReLU", "3x3 conv", "BN", "+", "ReLU"))])
        axis.plot([0, 0, 6], [-1.45, -1.75, -1.75], color="0.35", linewidth=1)
        axis.annotate("", (6, -1.42), (6, -1.76), arrowprops={"arrowstyle": "-|>", "color": "0.35"})
        axis.text(3, -1.97, "x, or 1x1 conv and BN where the shape changes", ha="center", va="center", fontsize=7)
    return [Drawn(file, "ResNet-18 for 32x32 images: output shapes and parameters of each part; below, one block")]


def _chain(axis: Any, y: float, boxes: Sequence[tuple[str, str]]) -> None:
    """Boxes (text, colour) from left to right, and arrows between them."""
    before = None
    for x, (text, colour) in enumerate(boxes):
        box = axis.text(x, y, text, ha="center", va="center", fontsize=7, linespacing=1.3, bbox={
            "boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": colour})
        if before:
            axis.annotate("", (x, y), (x - 1, y), arrowprops={
                "arrowstyle": "-|>", "color": "0.35", "shrinkA": 1, "shrinkB": 1, "patchA": before.get_bbox_patch(),
                "patchB": box.get_bbox_patch()})
        before = box
