"""Parameters as named views into one flat vector, their gradients into another."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.arrays import Array, assign, zeros_aligned
from fastnet.backend import Gradients
from fastnet.nn.initializers import Initializer, fans

ALIGNMENT = 64  # bytes: every parameter starts on a cache line


class Parameter:
    """A trained array of a layer: its shape, how it starts, whether the penalty applies.

    `value` and `grad` are views into the flat vectors of the model's `ParameterStore`, None before that is made.
    """

    def __init__(self, shape: tuple[int, ...], initializer: Initializer, *, penalised: bool,
                 fan_shape: tuple[int, ...] | None = None) -> None:
        self.shape = shape
        self.initializer = initializer
        self.penalised = penalised
        self.fan_shape = fan_shape or shape  # a bias takes its fans from its weight
        self.value: Array = None
        self.grad: Array = None
        self.pending = True  # no gradient has arrived since the last reset
        self.store: ParameterStore | None = None
        self.place = -1  # where it starts in the store's vectors

    @property
    def free_gradient(self) -> Array | None:
        """`grad` while what it holds is of no use: the next gradient may be computed in place there."""
        return self.grad if self.pending else None

    def accumulate(self, gradient: Array) -> None:
        """Add to the gradient; the first one since the reset is written over the old, which saves zeroing it."""
        if self.pending:
            if gradient is not self.grad:
                backend.keep_books("write", self.grad, gradient)
            self.pending = False
        else:
            self.grad += gradient

    def __deepcopy__(self, memo: dict) -> "Parameter":
        return Parameter(self.shape, self.initializer, penalised=self.penalised, fan_shape=self.fan_shape)


def collect(gradients: Gradients, dy: Array, needs_dx: bool, parameters: Sequence[Parameter | None]) -> Array | None:
    """dx by an op's callback, while the gradients of the parameters behind x (None: not there) go to them."""
    dx, *rest = gradients(dy, (needs_dx, *(p is not None for p in parameters)),
                          (None, *(None if p is None else p.free_gradient for p in parameters)))
    for parameter, gradient in zip(parameters, rest, strict=True):
        if parameter is not None:
            parameter.accumulate(gradient)
    return dx


class ParameterStore:
    """All parameters of a model in one vector, the penalised ones first, so that the penalty is a slice.

    Between parameters there may be padding up to the next 64 bytes; its values and gradients stay zero. The vectors are
    `library`'s; the numbers are drawn in main memory, so that they are the same everywhere.
    """

    def __init__(self, named: Sequence[tuple[str, Parameter]], dtype: str | np.dtype, seed: int,
                 library: Any = np) -> None:
        self.dtype = np.dtype(dtype)
        self.named = dict(named)
        step = max(1, ALIGNMENT // self.dtype.itemsize)
        offset = 0
        places = {}
        for penalised in (True, False):
            for name, parameter in self.named.items():
                if parameter.penalised == penalised:
                    places[name] = offset
                    offset += -(-math.prod(parameter.shape) // step) * step
            if penalised:
                self.penalised = offset
        self.places = places  # {name: where it starts}
        self.vector = zeros_aligned(offset, self.dtype, library)
        self.gradient = zeros_aligned(offset, self.dtype, library)
        for name, parameter in self.named.items():
            parameter.store, parameter.place = self, places[name]
        gradients = self.views(self.gradient)
        for index, (name, value) in enumerate(self.views(self.vector).items()):
            parameter = self.named[name]
            parameter.value, parameter.grad = value, gradients[name]
            assign(value, parameter.initializer.draw(parameter.shape, *fans(parameter.fan_shape), seed=seed,
                                                     index=index))

    def views(self, vector: Array) -> dict[str, Array]:
        """{name: view} of a vector laid out as the parameters are (a gradient, an optimizer's state)."""
        return {name: self.part(vector, parameter) for name, parameter in self.named.items()}

    def part(self, vector: Array, parameter: Parameter) -> Array:
        """The view of one parameter of the store in such a vector."""
        end = parameter.place + math.prod(parameter.shape)
        return vector[parameter.place : end].reshape(parameter.shape)

    def start_gradients(self) -> None:
        """Forget the gradients: the next ones to arrive start the sums."""
        for parameter in self.named.values():
            parameter.pending = True

    def finish_gradients(self) -> None:
        """Zero the gradients of parameters that took no part in the pass."""
        for parameter in self.named.values():
            if parameter.pending:
                parameter.grad[...] = 0

    def __iter__(self) -> Iterator[tuple[str, Parameter]]:
        return iter(self.named.items())
