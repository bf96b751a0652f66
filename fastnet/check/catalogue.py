"""Whole models that are checked, each in a size at which that takes seconds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.check.models import ENTRIES, check_model
from fastnet.check.op import OpReport
from fastnet.nn.layer import Shape
from fastnet.nn.models import IMAGE, build, entry, fitting


@dataclass(frozen=True)
class WholeModel:
    """A model's name and options, the batch it is checked on, how many entries of each parameter are differentiated."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    image: Shape = IMAGE
    batch_size: int = 10
    entries: int = ENTRIES

    @property
    def label(self) -> str:
        """What is not as in the table of models."""
        size = [] if self.image == entry(self.name).input_shape else ["x".join(map(str, self.image))]
        return ", ".join([*(f"{key} {value}" for key, value in self.options.items()), *size,
                          f"batch {self.batch_size}"])

    def check(self, seed: int = 0, device: str = "cpu") -> OpReport:
        """Check it on random images and labels. Nothing is raised for a wrong gradient: the report says it."""
        model = build(self.name, seed=seed, **{**fitting(self.name, self.image), **self.options})
        rng = np.random.default_rng(seed)
        for value in model.parameters().values():
            if np.ptp(value) == 0:
                # Biases of 0 hide mistakes, and a beta of 0 makes gradients vanish: what batch norm, ReLU and a
                # depthwise convolution do to a channel is then the same whatever its gamma is.
                value += 0.2 * rng.normal(size=value.shape)
        classes = model.output_shape(self.image)[-1]
        x = rng.normal(size=(self.batch_size, *self.image))
        report = check_model(model.copy(device=device), x, rng.integers(0, classes, self.batch_size),
                             entries=self.entries, seed=seed, raises=False)
        report.case = self.label
        return report


SMALL, MIDDLE = (8, 8, 3), (16, 16, 3)
NARROW = {"filter_multiplier": 1 / 16}
SMOOTH = {"activation": "swish", "pooling": "avg"}  # no kinks

CATALOGUE = (
    *(WholeModel(name) for name in ("mlp2", "mlp3", "mlp3-bn", "mlp9", "mlp9-bn")),
    WholeModel("mlp2", {"batch_norm": True}),
    # Fewer images than under batch norm, because each has 28,000 units that may lie at a kink.
    WholeModel("lenet5", batch_size=3, entries=60),
    WholeModel("lenet5", SMOOTH, batch_size=3, entries=60),
    WholeModel("lenet5-bn-swish", batch_size=5, entries=20),
    WholeModel("vgg-a-bn", NARROW, batch_size=5, entries=12),
    WholeModel("vgg-a-bn", {**NARROW, **SMOOTH}, batch_size=5, entries=12),
    WholeModel("resnet18", NARROW, SMALL, batch_size=6, entries=8),
    WholeModel("resnet18", {**NARROW, "activation": "swish"}, SMALL, batch_size=6, entries=8),
    WholeModel("resnet20", {"filter_multiplier": 1 / 4}, SMALL, batch_size=6, entries=8),
    # Narrow depthwise channels behind a ReLU are nearly constant, and batch norm is then too curved for differences.
    WholeModel("resnet18-dw", {**NARROW, "activation": "swish"}, MIDDLE, batch_size=12, entries=2),
    WholeModel("mobilenet", {"filter_multiplier": 1 / 8, "activation": "swish"}, MIDDLE, batch_size=16, entries=2),
    WholeModel("squeezenet", {"filter_multiplier": 1 / 4}, MIDDLE, batch_size=3, entries=12),
)

# Checked when they are named: no layer in them is missing above.
NAMED_ONLY = (
    *(WholeModel(name) for name in ("mlp7", "mlp7-wide")),
    WholeModel("lenet5-bn", batch_size=5, entries=20),
    WholeModel("vgg-a", NARROW, batch_size=3, entries=20),
    WholeModel("resnet18-dropout", NARROW, SMALL, batch_size=6, entries=8),
    WholeModel("resnet18-x2", {"filter_multiplier": 1 / 8, "stem_multiplier": 1 / 16}, SMALL, batch_size=6, entries=4),
    WholeModel("resnet34", NARROW, MIDDLE, batch_size=6, entries=4),
    WholeModel("resnet20", {"filter_multiplier": 1 / 4, "shortcut": "projection"}, SMALL, batch_size=6, entries=8),
    WholeModel("alexnet", {"filter_multiplier": 1 / 16, "hidden": (16, 16), "classes": 10}, (67, 67, 3), batch_size=2,
               entries=20),
)


def check_models(names: Iterable[str] | None = None, seed: int = 0, device: str = "cpu") -> list[OpReport]:
    """Check the models of the catalogue, or all entries of those that are named. Raises ValueError for unknown ones."""
    if names is None:
        return [whole.check(seed, device) for whole in CATALOGUE]
    names = list(names)
    for name in names:
        entry(name)
    there = (*CATALOGUE, *NAMED_ONLY)
    return [whole.check(seed, device) for name in names for whole in there if whole.name == name]
