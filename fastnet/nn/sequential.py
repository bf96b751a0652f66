"""Sequential: layers one after the other; as the outermost container, the model."""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fastnet import devices
from fastnet.arrays import (
    Array,
    accumulator,
    array_module,
    assign,
    floating,
    from_elsewhere,
    is_cupy,
    is_floating,
    move,
    single_threaded_blas,
    to_numpy,
)
from fastnet.nn.fuse import Head, fuse, fused
from fastnet.nn.layer import (
    INFERENCE,
    Backward,
    Chain,
    Container,
    Context,
    Layer,
    Shape,
    has_parameters,
    shape_after,
)
from fastnet.nn.layers import Dropout, Linear
from fastnet.nn.parameters import ParameterStore
from fastnet.unmade import Unmade

PREDICT_BATCH = 500  # images a pass: enough to keep the kernels busy, little enough to stay in the last-level cache


class Sequential(Container):
    """Layers in order. Layers are named by kind and number (`linear1.w`); (name, layer) pairs name them otherwise.

    The outermost Sequential is the model: at first use its parameters are laid out in one flat vector and drawn
    from `seed` on `device` (`fastnet.devices`). `dtype` is that of parameters and activations; where it is float16 or
    bfloat16, parameters, gradients and running statistics are float32 and only activations are 16 bits wide.

    Source of that: Micikevicius et al., "Mixed precision training", 2018, section 3.1.
    """

    def __init__(self, layers: Iterable[Layer | tuple[str, Layer]], *, seed: int = 0,
                 dtype: str | np.dtype = "float32", device: str = "cpu", name: str | None = None) -> None:
        super().__init__()
        devices.library(device)  # so that what is missing is said at once
        self.layers: list[Layer] = []
        self.seed, self.dtype, self.device, self.model_name = seed, floating(dtype), device, name
        self._store: ParameterStore | None = None
        self._running: Array = None  # all running statistics, one after the other
        self.settings: dict[str, Any] = {}  # how `fastnet.build` made it
        counts: dict[str, int] = {}
        for item in layers:
            given, layer = item if isinstance(item, tuple) else (None, item)
            if not isinstance(layer, Layer):
                raise TypeError(f"{self.kind}: a layer is needed, got {layer!r}")
            counts[layer.kind] = counts.get(layer.kind, 0) + 1
            layer.name = given or f"{_snake(layer.kind)}{counts[layer.kind]}"
            self.layers.append(layer)
        self.adopt(self.layers)
        self._chain = Chain(self.layers)
        self._fused: Chain | None = None  # the same layers, some of them as one
        self._headed: tuple[Chain, Head | None] | None = None  # these again, in two parts
        self._fitting: Shape | None = None  # of samples that the layers are known to take

    def children(self) -> list[Layer]:
        return self.layers

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        if self._store is None:
            bound = [p.value is not None for layer in self.walk() for p in layer.parameters_here.values()]
            if not all(bound) or not (bound or self.held):
                self.store  # noqa: B018  (makes it)
        chain = self._chain if self._fused is None or context.tap is not None else self._fused
        return chain(x, context)

    def takes(self, x: Unmade) -> bool:
        return any(layer.takes(x) for layer in (self._fused or self._chain).layers[:1])

    def whole_step(self, x: Array, labels: Array, context: Context,
                   options: Mapping[str, Any]) -> tuple[Array, Array] | None:
        """(mean softmax cross-entropy, logits) of a pass forward and back, where the model is fused into one layer that
        can do that in one go; else None, and nothing is done.
        """
        layers = self._fused.layers if self._fused is not None else []
        return layers[0].step(x, labels, context, options) if len(layers) == 1 and hasattr(layers[0], "step") else None

    def before_loss(self, x: Array, context: Context) -> tuple[Array, Backward, Head | None]:
        """y and the way back, as of a call, of the layers before the model's head; of all where that is None.

        There is one where the model is fused, is on a device and ends as `fastnet.nn.fuse.Head` wants it.
        """
        if self._fused is None or self.device == "cpu" or context.tap is not None:
            return *self(x, context), None
        layers = self._fused.layers
        if self._headed is None:
            head = Head.of(layers)
            self._headed = Chain(layers[: -len(head.parts)] if head else layers), head
        chain, head = self._headed
        return *chain(x, context), head

    def fuse(self) -> list[Layer]:
        if self._fused is None:
            self._fused = Chain(fused(self.layers))
        return self._fused.layers

    def leaves(self, shape: Shape, needs_dx: bool = False) -> Iterator[tuple[Layer, Shape, bool]]:
        for layer in self.layers:
            yield from layer.leaves(shape, needs_dx)
            shape = shape_after(layer, shape)
            needs_dx = needs_dx or has_parameters(layer)

    def output_shape(self, shape: Shape) -> Shape:
        for layer in self.layers:
            shape = shape_after(layer, shape)
        return shape

    # The model.

    @property
    def store(self) -> ParameterStore:
        """The flat vectors; made, and the parameters drawn, on first use. Raises ValueError for a part of a model."""
        if self.held:
            raise ValueError("this Sequential is a part of another one, which holds its parameters: use that one")
        if self._store is None:
            dropouts = [layer for layer in self.walk() if isinstance(layer, Dropout)]
            for index, dropout in enumerate(dropouts):
                dropout.index = index
            named = [(f"{path}.{key}", p) for path, layer in named_layers(self)
                     for key, p in layer.parameters_here.items()]
            if taken := [name for name, p in named if p.value is not None]:
                raise ValueError(f"Sequential: {taken[0]} belongs to another model already; make new layers")
            library = devices.library(self.device)
            self._store = ParameterStore(named, accumulator(self.dtype), self.seed, library)
            self._running = _in_one([layer.statistics_here for layer in self.walk()], _real(self.dtype), library)
        return self._store

    def parameters(self) -> dict[str, Array]:
        """{name: array}: views into the flat vector, so that writing to them changes the model."""
        return {name: p.value for name, p in self.store}

    def gradients(self) -> dict[str, Array]:
        """{name: array}: views into the flat gradient."""
        return {name: p.grad for name, p in self.store}

    def statistics(self) -> dict[str, Array]:
        """{name: array}: the running averages of the normalisation layers."""
        self.store  # noqa: B018  (fixes their type)
        return {f"{path}.{key}": value for path, layer in named_layers(self)
                for key, value in layer.statistics_here.items()}

    def state(self) -> dict[str, Array]:
        """{name: copy} of everything a checkpoint needs: parameters and running statistics."""
        return {name: value.copy() for name, value in {**self.parameters(), **self.statistics()}.items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Take over parameters and statistics, wherever these arrays are.

        Raises ValueError naming all that is missing, extra, misshapen or not real numbers; then nothing is taken over.
        """
        own = {**self.parameters(), **self.statistics()}
        problems = [f"{name} is missing" for name in own if name not in state]
        problems += [f"{name} is not in the model" for name in state if name not in own]
        for name, value in own.items():
            if name not in state:
                continue
            given = state[name]
            if not hasattr(given, "dtype") or given.dtype.kind not in "f" + value.dtype.kind:
                problems.append(f"{name} is {getattr(given, 'dtype', type(given).__name__)}, not floating numbers")
            elif tuple(given.shape) != value.shape:
                problems.append(f"{name} is {tuple(given.shape)} but the model has {value.shape}")
        if problems:
            raise ValueError(f"load_state: {'; '.join(problems)}")
        for name, value in own.items():
            assign(value, state[name])

    @property
    def running(self) -> Array:
        """All running statistics in one vector, of which `statistics` has the views."""
        self.store  # noqa: B018  (makes it)
        return self._running

    def num_parameters(self) -> int:
        """How many numbers are trained (padding not counted)."""
        return sum(math.prod(p.shape) for layer in self.walk() for p in layer.parameters_here.values())

    def copy(self, dtype: str | np.dtype | None = None, device: str | None = None) -> "Sequential":
        """An independent model with the same values, in another type or on another device if one is named."""
        self.store  # noqa: B018
        twin = self.undrawn()
        twin.dtype, twin.device = floating(dtype or self.dtype), device or self.device
        twin.load_state(self.state())
        return twin

    def undrawn(self) -> "Sequential":
        """An independent model of the same layers, whose parameters are made anew at first use."""
        return copy.deepcopy(self, {id(self._store): None, id(self._running): None})

    def accept(self, name: str, x: Any) -> Array:
        """The array that a caller gave as `name`; one of another library on the same memory (`arrays.from_elsewhere`).

        One in main memory is copied to the model's device. Raises TypeError for one that lives on a GPU while the model
        does not.
        """
        if self.device != "cpu":
            library = array_module(self.store.vector)
            x = from_elsewhere(name, x, library)
            return move(x, library) if isinstance(x, np.ndarray) else x
        x = from_elsewhere(name, x)
        if is_cupy(x):
            raise TypeError(f"{name} is a CuPy array, on a GPU, but the model is in main memory; copy it: {name}.get()")
        return x

    def answer(self, y: Array, x: Any) -> Array:
        """`y`, made on the model's device, for a caller who gave `x`: a NumPy array, unless x is of y's own library."""
        return y if isinstance(x, type(self.store.vector)) else to_numpy(y)

    def prepare(self, x: Array) -> Array:
        """x, from whatever library, in the model's type; not copied where it is of that type.

        A batch that is not made yet is made, unless the first layer takes it as it is.
        Raises TypeError for an x that is not floating (uint8 images must be normalised) or on another device.
        """
        if isinstance(x, Unmade):
            self.store  # noqa: B018  (makes the arrays that the first layer looks at)
            if x.dtype == self.dtype and self.takes(x):
                return x
            x = x.made()
        x = self.accept("x", x)
        if not hasattr(x, "dtype"):
            raise TypeError(f"x must be an array, got {type(x).__name__}")
        if not is_floating(x.dtype):
            raise TypeError(f"x is {x.dtype}, but floating-point numbers are needed: normalise the images first "
                            "(fastnet.data.Standardization)")
        if x.dtype.kind == "c" and self.dtype.kind != "c":
            raise TypeError(f"x is {x.dtype}, but the model is {self.dtype}: the imaginary part would be lost")
        if x.ndim < 2:
            raise ValueError(f"x is {x.shape}, but a batch is needed: (N, H, W, C) or (N, D)")
        return x.astype(self.dtype, copy=False)

    def require_fit(self, x: Array) -> None:
        """Raise ValueError, naming the layer, where the model cannot take samples of x's shape.

        A linear layer would take an image whichever way it lies, so one whose channels seem to come first is refused.
        """
        if x.shape[1:] == self._fitting:
            return
        self.output_shape(x.shape[1:])
        first = next((layer for layer in self.walk() if layer.parameters_here), None)
        if x.ndim == 4 and isinstance(first, Linear) and x.shape[1] in (1, 3) and x.shape[3] > 4:
            raise ValueError(f"x is {x.shape}: is it (N, C, H, W)? Channels come last here: x.transpose(0, 2, 3, 1); "
                             "if it is not, flatten it: x.reshape(len(x), -1)")
        self._fitting = x.shape[1:]

    def predict(self, x: Array) -> Array:
        """Logits (N, classes) in inference mode, for floating x (N, H, W, C) or (N, D), already normalised.

        x may be any library's that has `__dlpack__`; the logits, a NumPy array, have it too. Only for a CuPy x they
        stay on the GPU. Those of a model with 16-bit activations are float32. Raises TypeError or
        ValueError for an x of the wrong type, rank or width, or on another device.
        """
        given, x = x, self.prepare(x)
        self.require_fit(x)
        self.store  # noqa: B018
        if self._fused is None:
            fuse(self)
        with single_threaded_blas():
            parts = [self(x[i : i + PREDICT_BATCH], INFERENCE)[0] for i in range(0, len(x), PREDICT_BATCH)]
        if not parts:
            raise ValueError("predict: x holds no samples")
        logits = array_module(x).concatenate(parts)
        return self.answer(logits.astype(self.store.dtype, copy=False), given)


def named_layers(model: Layer, prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """(dotted name, layer) for every layer below `model`, in order."""
    for child in model.children():
        path = f"{prefix}{child.name}"
        yield path, child
        yield from named_layers(child, f"{path}.")


def _snake(kind: str) -> str:
    known = {"BatchNorm": "batch_norm"}
    return known.get(kind, kind.lower())


def _in_one(named: Iterable[dict[str, Array]], dtype: np.dtype, library: Any) -> Array:
    """One vector of `library` whose views take the place of all these arrays."""
    places = [(arrays, key, value) for arrays in named for key, value in arrays.items()]
    values = [to_numpy(value).ravel() for *_, value in places]
    vector = move(np.concatenate([np.zeros(0), *values]).astype(dtype), library)
    start = 0
    for arrays, key, value in places:
        arrays[key] = vector[start : start + value.size].reshape(value.shape)
        start += value.size
    return vector


def _real(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float64) if dtype.kind == "c" else accumulator(dtype)
