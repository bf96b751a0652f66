"""The sizes at which ops are timed: those of the networks' layers, a few for each op."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastnet import backend
from fastnet.check.cases import ops
from fastnet.functions.philox import DROPOUT
from fastnet.shapes import ABSENT, Hidden

CLASSES = 10


class Size(NamedTuple):
    """One call of an op: the shape of x, of w where the op has one, and its options."""

    x: tuple[int, ...]
    options: Mapping[str, Any] = {}
    w: tuple[int, ...] | None = None

    @property
    def label(self) -> str:
        shapes = ["x".join(map(str, shape)) for shape in (self.x, self.w) if shape]
        hidden = ("key", "layers", "seed", "augmentation")
        options = (f"{key}={value}" for key, value in self.options.items() if key not in hidden)
        return " ".join([*shapes, *options])


LENET, RESNET, DEEP, ROWS = (128, 28, 28, 6), (128, 32, 32, 64), (128, 8, 8, 256), (100, 50)
_MAPS = (Size(RESNET), Size(DEEP), Size(ROWS))
_ELEMENTWISE = (Size(LENET), Size(RESNET), Size(ROWS))
_POOL = (Size(LENET, {"window": 2}), Size(RESNET, {"window": 2}))
_LOSS = (Size((100, CLASSES)), Size((512, CLASSES)))
_SAME = {"pad": 1}
_PRODUCTS = (Size((100, 3072), w=(3072, 50)), Size(ROWS, w=(50, 50)), Size((128, 400), w=(400, 120)),
             Size((128, 512), w=(512, 512)))

_AUGMENTED = {"seed": 0, "augmentation": {"pad": 4, "horizontal_flip": True}}

SIZES: dict[str, tuple[Size, ...]] = {
    "augment_conv2d": (Size((128, 32, 32, 3), _SAME | _AUGMENTED, (3, 3, 3, 64)),
                       Size((128, 32, 32, 3), _AUGMENTED, (5, 5, 3, 6))),
    "avg_pool2d": _POOL,
    "basic_block": (Size((32, 32, 32, 64), w=(3, 3, 64, 64)), Size((32, 8, 8, 256), w=(3, 3, 256, 256))),
    "batch_norm": _MAPS,
    "batch_norm_add_relu": _MAPS[:2],
    "batch_norm_fixed": _MAPS,
    "batch_norm_fixed_add_relu": _MAPS[:2],
    "batch_norm_fixed_relu": _MAPS,
    "batch_norm_relu": _MAPS,
    "conv2d": (
        Size((32, 32, 32, 64), _SAME | {"conv_algorithm": "winograd"}, (3, 3, 64, 64)),
        Size((32, 32, 32, 64), _SAME | {"conv_algorithm": "direct"}, (3, 3, 64, 64)),
        Size((32, 8, 8, 256), _SAME, (3, 3, 256, 256)),
        Size((32, 4, 4, 512), _SAME, (3, 3, 512, 512)),
        Size((32, 32, 32, 64), {"pad": 1, "stride": 2}, (3, 3, 64, 128)),
        Size((32, 32, 32, 64), {"stride": 2}, (1, 1, 64, 128)),
        Size((32, 32, 32, 3), _SAME, (3, 3, 3, 64)),
        Size((128, 32, 32, 3), {}, (5, 5, 3, 6)),
        Size((128, 14, 14, 6), {}, (5, 5, 6, 16)),
        Size((32, 32, 32, 64), _SAME | {"groups": 64}, (3, 3, 1, 64))),
    "conv2d_relu_max_pool2d": (
        Size((128, 32, 32, 3), {"window": 2}, (5, 5, 3, 6)),
        Size((128, 14, 14, 6), {"window": 2}, (5, 5, 6, 16)),
        Size((32, 32, 32, 64), _SAME | {"window": 2}, (3, 3, 64, 64))),
    "dropout": tuple(Size(shape, {"p": 0.5, "key": (0, DROPOUT, 0)}) for shape in (RESNET, (128, 512))),
    "elu": _ELEMENTWISE,
    "gelu": _ELEMENTWISE,
    "global_avg_pool": (Size((128, 4, 4, 512)),),
    "huber": _LOSS,
    "leaky_relu": _ELEMENTWISE,
    "linear": _PRODUCTS,
    "linear_relu": _PRODUCTS,
    "perceptron": (
        Size(ROWS, {"layers": (Hidden(50, 50, 0), Hidden(50, CLASSES, 2500))}, (3000,)),
        Size(ROWS, {"layers": (Hidden(50, 50, 0, ABSENT, 3000, 3050), Hidden(50, CLASSES, 2500))}, (3100,)),
    ),
    "max_pool2d": _POOL,
    "mean_squared_error": _LOSS,
    "pooled_softmax_cross_entropy": (Size((128, 4, 4, 512), w=(512, CLASSES)),),
    "relu": _ELEMENTWISE,
    "relu_max_pool2d": _POOL,
    "sigmoid": _ELEMENTWISE,
    "sigmoid_cross_entropy": _LOSS,
    "soft_margin": _LOSS,
    "softmax_cross_entropy": _LOSS,
    "swish": _ELEMENTWISE,
    "tanh": _ELEMENTWISE,
}


class Call(NamedTuple):
    """An op at one size, with its arrays by name, in the order of its arguments."""

    op: str
    size: Size
    arrays: dict[str, np.ndarray]

    @property
    def label(self) -> str:
        return f"{self.op} {self.size.label}"

    def few(self, samples: int) -> "Call":
        """The same op on so many samples."""
        return _call(self.op, self.size._replace(x=(samples, *self.size.x[1:])))

    def astype(self, dtype: Any) -> "Call":
        return self._replace(arrays={key: a.astype(dtype) if a.dtype.kind == "f" else a
                                     for key, a in self.arrays.items()})


def calls(names: list[str] | None = None) -> list[Call]:
    """Every size of these ops, of all without names. Raises ValueError for an op that is not there or has no sizes."""
    return [_call(op, size) for op in names or ops() for size in sizes(op)]


def sizes(op: str) -> tuple[Size, ...]:
    """The sizes of an op. Raises ValueError for one that is not there, or has none."""
    if op not in ops():
        raise ValueError(f"bench: there is no op {op!r}; ops are {', '.join(ops())}")
    if op not in SIZES:
        raise ValueError(f"bench: op {op!r} has no sizes; add them to bench/sizes.py")
    return SIZES[op]


def _call(op: str, size: Size) -> Call:
    """Random float32 arrays; what each is follows from its name. Raises ValueError for an unknown one."""
    rng = np.random.default_rng(0)
    x, w = size.x, size.w or ()
    draw = {
        "x": lambda: rng.standard_normal(x), "w": lambda: rng.standard_normal(w) / math.sqrt(math.prod(w[:-1])),
        "b": lambda: rng.standard_normal(w[-1]),
        "gamma": lambda: rng.uniform(0.5, 1.5, (w or x)[-1]), "beta": lambda: rng.standard_normal((w or x)[-1]),
        "images": lambda: rng.integers(0, 256, x, dtype=np.uint8), "indices": lambda: rng.permutation(x[0]),
        "epoch": lambda: np.zeros(1, int), "scale": lambda: rng.uniform(0.01, 0.02, x[1:]),
        "mean": lambda: rng.standard_normal(x[1:] if "images" in backend.arguments(op) else x[-1]),
        "var": lambda: rng.uniform(0.5, 1.5, x[-1]),
        "vector": lambda: rng.standard_normal(w) / 8,
        "shortcut": lambda: rng.standard_normal(x), "targets": lambda: rng.uniform(0, 1, x),
        "labels": lambda: rng.integers(0, CLASSES, x[0]), "samples": lambda: np.arange(x[0]),
    }
    draw |= {f"{name}{i}": draw[name] for name in ("w", "gamma", "beta") for i in (1, 2)}
    if unknown := [name for name in backend.arguments(op) if name not in draw]:
        raise ValueError(f"bench: it is not known what {', '.join(unknown)} of {op} is; add it to bench/sizes.py")
    return Call(op, size, {name: draw[name]() for name in backend.arguments(op)}).astype(np.float32)
