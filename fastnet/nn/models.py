"""The table of models: networks as data, each with the settings its report trained it with (REPORT, experiment).

`build(name, **options)` makes one; its options are keyword arguments.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastnet.nn import layers
from fastnet.nn.compact import mobilenet, squeezenet
from fastnet.nn.convnets import alexnet, lenet, vgg
from fastnet.nn.initializers import Initializer
from fastnet.nn.layer import Layer, Shape
from fastnet.nn.layers import BatchNorm, Linear
from fastnet.nn.resnets import resnet
from fastnet.nn.sequential import Sequential

IMAGE = (32, 32, 3)


@dataclass(frozen=True)
class Settings:
    """How a report trained a model: the defaults of `fastnet train`. Lengths are in epochs."""

    source: str
    epochs: int = 20
    batch_size: int = 100
    split: str = "45000/5000"
    optimizer: str = "sgd"
    momentum: float = 0.0
    schedule: str = "triangular"
    lr: float = 0.1  # the largest rate of a triangular schedule
    lr_min: float = 1e-5
    half_cycle_epochs: float = 5
    decay: float = 0.995  # per epoch, of an exponential schedule
    every: str = "25"  # of a step decay, as --every takes it
    patience: int = 5  # epochs, of a schedule that waits for a plateau
    l2: float = 0.005
    normalization: str = "pixel"
    crop: int = 0  # border of a random crop
    flip: bool = False


@dataclass(frozen=True)
class Entry:
    """A row of the table."""

    make: Callable[..., Sequence[Layer | tuple[str, Layer]]]
    options: Mapping[str, Any]
    settings: Settings
    about: str
    input_shape: tuple[int, ...] = field(default=IMAGE)


def mlp(*, hidden: tuple[int, ...], inputs: int = math.prod(IMAGE), classes: int = 10, batch_norm: bool = False,
        norm_after: bool = False, activation: str = "relu", init: str | Initializer = "lecun_normal") -> list[Layer]:
    """A multi-layer perceptron: a Linear layer for each entry of `hidden`, and a last one for the classes.

    Batch normalisation stands before the activation, or after it with `norm_after`; never behind the classifier.
    Raises ValueError for an unknown activation or initialiser.
    """
    layers.activation(activation)  # looks at the name, which a model without hidden layers does not use
    body: list[Layer] = []
    width = inputs
    for size in hidden:
        body.append(Linear(width, size, init=init))
        inner: list[Layer] = [layers.activation(activation)]
        if batch_norm:
            inner.insert(1 if norm_after else 0, BatchNorm(size))
        body += inner
        width = size
    return [*body, Linear(width, classes, init=init)]


_R1 = Settings("R1, E05", epochs=24, split="49000/1000", half_cycle_epochs=4, l2=0.0027)
_R2 = Settings("R2, E06-E09")
_R3 = Settings("R3, E15 and E16", epochs=30, batch_size=450, optimizer="adam", schedule="exponential", lr=2e-3)
# R4 names no rate. Without batch norm .005 turns the validation loss up when the report's does; with it .02 is best.
_R4 = Settings("R4, E29", epochs=50, batch_size=128, momentum=0.9, schedule="constant", lr=0.005, l2=1e-4,
               normalization="channel")
_R4_BN = replace(_R4, source="R4, E31 and E33", lr=0.02, crop=4, flip=True)
_R4_LAB4 = Settings("R4, E37", epochs=105, batch_size=128, momentum=0.9, schedule="step_decay", lr=0.2, every="25,",
                    l2=1e-5, normalization="channel", crop=4, flip=True)
_R5 = Settings("R5, E24", epochs=200, batch_size=128, momentum=0.9, schedule="reduce_on_plateau", lr=0.01, lr_min=1e-6,
               patience=5, l2=2.5e-4, normalization="channel", crop=4, flip=True)  # its weight decay, 5e-4, is 2 l2
_LIKE_R5 = replace(_R5, source="like R5, E24")  # no report trained these
_R5_VGG = Settings("R5, E25", epochs=30, batch_size=128, schedule="constant", lr=0.1, l2=0.0, normalization="channel")
_NINE = (50, 30, 20, 20, 10, 10, 10, 10)
# Both reports started from their framework's initialisers: R4 says so, and the code that R5 follows has Xavier normal.
_LENET = {"init": "torch_default"}
_VGG_A = {"plan": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"), "init": "glorot_normal"}
_RESNET18, _RESNET34, _RESNET20 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 3, 3)

MODELS: dict[str, Entry] = {
    "mlp2": Entry(mlp, {"hidden": (50,)}, _R1, "2 layers"),
    "mlp3": Entry(mlp, {"hidden": (50, 50)}, _R2, "3 layers"),
    "mlp3-bn": Entry(mlp, {"hidden": (50, 50), "batch_norm": True}, _R2, "3 layers, batch norm"),
    "mlp9": Entry(mlp, {"hidden": _NINE}, _R2, "9 layers"),
    "mlp9-bn": Entry(mlp, {"hidden": _NINE, "batch_norm": True}, _R2, "9 layers, batch norm"),
    "mlp7": Entry(mlp, {"hidden": (50, 30, 20, 20, 10, 10)}, _R3, "7 layers, narrow"),
    "mlp7-wide": Entry(mlp, {"hidden": (100, 100, 50, 50, 30, 20)}, _R3, "7 layers, wide"),
    "lenet5": Entry(lenet, _LENET, _R4, "LeNet-5"),
    "lenet5-bn": Entry(lenet, {**_LENET, "batch_norm": True}, _R4_BN, "LeNet-5, batch norm"),
    "lenet5-bn-swish": Entry(lenet, {**_LENET, "batch_norm": True, "activation": "swish"}, _R4_BN,
                             "LeNet-5, batch norm, Swish"),
    "vgg-a": Entry(vgg, _VGG_A, _R5_VGG, "VGG-A, 11 layers"),
    "vgg-a-bn": Entry(vgg, {**_VGG_A, "batch_norm": True}, _R5_VGG, "VGG-A, batch norm"),
    "resnet18": Entry(resnet, {"blocks": _RESNET18}, _R5, "ResNet-18"),
    "resnet18-dropout": Entry(resnet, {"blocks": _RESNET18, "dropout": 0.5}, _R5,
                              "ResNet-18, dropout before the last layer"),
    "resnet18-x2": Entry(resnet, {"blocks": _RESNET18, "filter_multiplier": 2.0, "stem_multiplier": 1.0}, _R5,
                         "ResNet-18, twice the filters but in the stem"),
    "resnet34": Entry(resnet, {"blocks": _RESNET34}, _R5, "ResNet-34"),
    "resnet20": Entry(resnet, {"blocks": _RESNET20, "widths": (16, 32, 64), "shortcut": "zero_pad"}, _R4_LAB4,
                      "ResNet-20, 16-32-64 filters"),
    "resnet18-dw": Entry(resnet, {"blocks": _RESNET18, "separable": True}, _LIKE_R5,
                         "ResNet-18, depthwise separable convolutions"),
    "mobilenet": Entry(mobilenet, {}, _LIKE_R5, "MobileNet for 32x32"),
    "squeezenet": Entry(squeezenet, {}, _LIKE_R5, "SqueezeNet 1.1 for 32x32"),
    "alexnet": Entry(alexnet, {}, _LIKE_R5, "AlexNet, for tables", (227, 227, 3)),
}


def entry(name: str) -> Entry:
    """The table's row. Raises ValueError, naming the choices, for an unknown model."""
    if name not in MODELS:
        raise ValueError(f"model {name!r} is not known; choose from {', '.join(MODELS)}")
    return MODELS[name]


def fitting(name: str, shape: Shape, classes: int | None = None) -> dict[str, Any]:
    """The options that make the model of that name take images of this shape and tell so many classes apart.

    Empty where its own do. Raises ValueError for an unknown model.
    """
    row = entry(name)
    takes = inspect.signature(row.make).parameters
    options: dict[str, Any] = {}
    if tuple(shape) != row.input_shape:
        options = {"inputs": math.prod(shape)} if "inputs" in takes else {"input_shape": tuple(shape)}
    if classes not in (None, row.options.get("classes", takes["classes"].default)):
        options["classes"] = classes
    return options


def input_shape(model: Sequential) -> Shape | None:
    """The shape of the images that a model made by `build` takes.

    None for a model made otherwise, and for an MLP of so many `inputs` that they are not the table's images.
    """
    if model.model_name not in MODELS or "options" not in model.settings:
        return None
    row, options = MODELS[model.model_name], model.settings["options"]
    size = math.prod(row.input_shape)
    return tuple(options.get("input_shape", row.input_shape)) if options.get("inputs", size) == size else None


def build(name: str, *, seed: int = 0, dtype: str = "float32", device: str = "cpu", **options: Any) -> Sequential:
    """The model of that name, its parameters drawn from `seed`. `options` override those of the table.

    `dtype` and `device` are as `Sequential` takes them. Raises ValueError for an unknown name, TypeError for an unknown
    option, and what `devices.library` raises for a device that is not there.
    """
    row = entry(name)
    merged = {**row.options, **options}
    try:
        made = row.make(**merged)
    except TypeError as error:
        raise TypeError(f"build: {name} {str(error).partition('() ')[2] or error}") from None
    model = Sequential(made, seed=seed, dtype=dtype, device=device, name=name)
    model.settings = {"options": {k: str(v) if isinstance(v, Initializer) else v for k, v in merged.items()}}
    return model
