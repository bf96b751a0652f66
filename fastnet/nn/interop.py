"""Between our arrays and PyTorch's: what each is called there, and how it lies. PyTorch itself is not needed.

    ours                                  PyTorch's
    Conv2d     w  (KH, KW, C/groups, O)   weight  (O, C/groups, KH, KW)
    Linear     w  (D_in, D_out)           weight  (D_out, D_in)
    all        b                          bias
    BatchNorm  gamma, beta                weight, bias
               running_mean, running_var  the same, and num_batches_tracked (), which we have no use for

Images lie (H, W, C) here and (C, H, W) there, so the features of a flattened map come in another order: the weights
that meet them are reordered too. The map's shape follows from the model and the shape of its images.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from fastnet.arrays import from_elsewhere, to_numpy
from fastnet.nn.blocks import Concatenate, Residual
from fastnet.nn.convolution import Conv2d
from fastnet.nn.layer import Layer, Shape
from fastnet.nn.layers import BatchNorm, Flatten, Linear
from fastnet.nn.models import input_shape as images_of
from fastnet.nn.pooling import GlobalAvgPool
from fastnet.nn.sequential import Sequential, named_layers

KEYS = {"w": "weight", "b": "bias", "gamma": "weight", "beta": "bias", "running_mean": "running_mean",
        "running_var": "running_var"}
COUNTER = "num_batches_tracked"

# What others call it -> what we (and torchvision) do: as in kuangliu/pytorch-cifar and the many that started from it.
ALIASES = {"shortcut": "downsample", "linear": "fc"}
PREFIX = "module."  # from nn.DataParallel

Order = np.ndarray | None  # of flattened features: PyTorch's feature j is our feature order[j]; None: the same order


class Place(NamedTuple):
    """One array: its two names, its shapes, and the way from ours to PyTorch's: `order` along axis 0, then `axes`."""

    ours: str
    theirs: str
    shape: Shape
    axes: tuple[int, ...]
    order: Order

    @property
    def shape_there(self) -> Shape:
        return tuple(self.shape[axis] for axis in self.axes)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        return (array if self.order is None else array[self.order]).transpose(self.axes)

    def from_torch(self, array: np.ndarray) -> np.ndarray:
        array = array.transpose(np.argsort(self.axes))
        return array if self.order is None else array[np.argsort(self.order)]


def places(model: Sequential, input_shape: Shape | None = None) -> list[Place]:
    """Where every parameter and running statistic of the model has its place in a PyTorch state dict.

    `input_shape` is that of a sample, (H, W, C) or (D,); without it a model of the table takes its own images, which
    PyTorch would flatten as (C, H, W). Raises ValueError where it is needed or does not fit, and for layers of which
    it is not known how PyTorch keeps them.
    """
    shape = input_shape or images_of(model)
    if shape is None:
        raise ValueError("the shape of the model's input is not known; give input_shape, (H, W, C) or (D,)")
    model.output_shape(shape)  # says where inside the model something does not fit
    orders: dict[int, Order] = {}
    _walk(model, shape, None, orders)
    found = []
    for path, layer in named_layers(model):
        arrays = {key: p.shape for key, p in layer.parameters_here.items()}
        arrays |= {key: s.shape for key, s in layer.statistics_here.items()}
        if arrays and not isinstance(layer, (Conv2d, Linear, BatchNorm)):
            raise ValueError(f"{path} is a {layer.kind}: it is not known how PyTorch keeps its weights")
        for key, own in arrays.items():
            axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[len(own)]
            ordered = isinstance(layer, BatchNorm) or key == "w"  # a bias belongs to what comes out
            found.append(Place(f"{path}.{key}", f"{path}.{KEYS[key]}", own, axes,
                               orders[id(layer)] if ordered else None))
    return found


def _walk(layer: Layer, shape: Shape, order: Order, orders: dict[int, Order]) -> Order:
    """Note the order of the features that each leaf below `layer` works on; return that of what comes out."""
    if isinstance(layer, Sequential):
        for child in layer.layers:
            order = _walk(child, shape, order, orders)
            shape = child.output_shape(shape)
        return order
    if isinstance(layer, Residual):
        main = _walk(layer.main, shape, order, orders)
        beside = order if layer.shortcut is None else _walk(layer.shortcut, shape, order, orders)
        if not _same(main, beside):
            raise ValueError(f"{layer.name}: in PyTorch's order of features its two branches do not fit together")
        return main
    if isinstance(layer, Concatenate):
        parts = [_walk(branch, shape, order, orders) for branch in layer.branches]
        if all(part is None for part in parts):
            return None
        widths = [branch.output_shape(shape)[0] for branch in layer.branches]
        starts = np.cumsum([0, *widths[:-1]])
        return np.concatenate([start + (np.arange(width) if part is None else part)
                               for start, width, part in zip(starts, widths, parts, strict=True)])
    after = layer.output_shape(shape)
    if isinstance(layer, (Flatten, Linear)):
        if len(shape) == 3:
            order = np.arange(math.prod(shape)).reshape(shape).transpose(2, 0, 1).ravel()
    elif layer.children() or (len(after) != len(shape) and not isinstance(layer, GlobalAvgPool)) or (
            order is not None and after != shape):
        raise ValueError(f"{layer.name} is a {layer.kind}: it is not known in which order its features come in PyTorch")
    orders[id(layer)] = order
    return None if isinstance(layer, Linear) else order


def _same(a: Order, b: Order) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))


def to_torch(model: Sequential, input_shape: Shape | None = None) -> dict[str, np.ndarray]:
    """{name: array} as the model's PyTorch twin has them, each a new C-contiguous array of the model's type.

    Names and nesting are ours: the twin must have its layers under the same paths (torchvision's, where it has the
    network). Each batch norm's `num_batches_tracked` is 0. Raises ValueError as `places` does, and for a complex model.
    """
    if model.dtype.kind == "c":
        raise ValueError(f"the model is {model.dtype}; PyTorch's weights are real: model.copy('float64') is")
    state, found = model.state(), {}
    for place in places(model, input_shape):
        found[place.theirs] = np.array(place.to_torch(to_numpy(state[place.ours])), order="C")
        if place.theirs.endswith(".running_var"):
            found[f"{place.theirs.removesuffix('running_var')}{COUNTER}"] = np.array(0, np.int64)
    return found


def from_torch(model: Sequential, arrays: Mapping[str, object], input_shape: Shape | None = None) -> None:
    """Take over {name: array}, a PyTorch state dict: NumPy arrays, or anything with `__dlpack__` on the CPU.

    Entries of float16, float32 and float64 are converted to the model's type, `num_batches_tracked` is ignored, a
    prefix `module.` and the names `shortcut` and `linear` of other CIFAR networks (for `downsample` and `fc`) are
    understood. Raises ValueError, before anything is changed, naming every entry that is missing, extra, misshapen,
    not floating or not finite; and as `places` does.
    """
    wanted = {place.theirs: place for place in places(model, input_shape)}
    names, problems = _matched(sorted(name for name in arrays if name.rpartition(".")[2] != COUNTER), wanted)
    taken: dict[str, np.ndarray] = {}
    own = {**model.parameters(), **model.statistics()}
    for theirs, name in names.items():
        place = wanted[theirs]
        try:
            array = from_elsewhere(name, arrays[name])
        except TypeError as error:
            problems.append(str(error))
            continue
        if not isinstance(array, np.ndarray):
            problems.append(f"{name} must be an array but is a {type(array).__name__}")
        elif array.dtype.kind != "f":
            problems.append(f"{name} is {array.dtype}, but floating-point numbers are needed")
        elif array.shape != place.shape_there:
            problems.append(f"{name} is {array.shape} but the model has {place.shape_there}")
        else:
            with np.errstate(over="ignore"):  # is found below
                converted = place.from_torch(array).astype(own[place.ours].dtype, copy=False)
            if not (finite := np.isfinite(converted)).all():
                bad = finite.size - int(finite.sum())
                problems.append(f"{name} holds {bad} entries that are not finite in {converted.dtype}")
            taken[place.ours] = converted
    if problems:
        raise ValueError(f"the weights do not fit the model: {'; '.join(problems)}")
    model.load_state(taken)


def _matched(names: Iterable[str], wanted: Mapping[str, Place]) -> tuple[dict[str, str], list[str]]:
    """({PyTorch name we want: name in the file}, what is missing, extra or there twice)."""
    found: dict[str, str] = {}
    extra, twice = [], []
    for name in names:
        # An alias is one only where the model has no layer of that very name.
        target = next((spelled for spelled in _spellings(name) if spelled in wanted), None)
        if target is None:
            extra.append(f"{name} is not in the model")
        elif target in found:
            twice.append(f"{found[target]} and {name} are both {target}")
        else:
            found[target] = name
    return found, [f"{name} is missing" for name in wanted if name not in found] + extra + twice


def _spellings(name: str) -> list[str]:
    bare = name.removeprefix(PREFIX)
    return [name, bare, ".".join(ALIASES.get(part, part) for part in bare.split("."))]
