"""One call of an op as a mistake sees it: arrays on the host, and the true pair to be asked again.

A mistake is written once, with NumPy, and serves every implementation: what it makes goes back into the library that
the implementation's arrays come from.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnet.arrays import Array, array_module, to_numpy
from fastnet.check import contract

Host = Any  # numpy.ndarray, or None for an absent array


class Call:
    """`module.forward(*arrays, **options)`; after `backward` also dy and the right gradients, by argument's name."""

    def __init__(self, module: Any, arrays: Sequence[Array], options: dict[str, Any], y: Array, dy: Array = None,
                 gradients: Sequence[Array] = ()) -> None:
        self.module, self.options = module, options
        names = contract.argument_names(module, len(arrays))
        self.arrays = {name: host(a) for name, a in zip(names, arrays, strict=False)}
        self.floating = [name for name, a in self.arrays.items() if contract.is_floating(a)]
        self.xp = array_module(next(a for a in arrays if contract.is_floating(a)))
        self.y, self.dy = host(y), host(dy)
        self.gradients = {name: host(g) for name, g in zip(names, gradients, strict=False)}

    def again(self, dy: Host = None, options: dict[str, Any] | None = None, **arrays: Host) -> dict[str, Host]:
        """The right gradients for another dy, other options or other arrays, those that are not given as they are."""
        y, cache = self._forward(options, arrays)
        dy = self.dy if dy is None else dy
        gradients = self.module.backward(self.put(np.asarray(dy, y.dtype)) if np.ndim(dy) else dy, cache)
        return {name: host(g) for name, g in zip(self.arrays, gradients, strict=True)}

    def value(self, options: dict[str, Any] | None = None, **arrays: Host) -> np.ndarray:
        """y for other options or arrays."""
        return host(self._forward(options, arrays)[0])

    def as_if(self, **options: Any) -> dict[str, Host]:
        """The gradients of a backward pass that takes an option for another: dy is cut, or goes on with zeros.

        Empty where these options give no gradient (no window fits) or take the cut dy as it is.
        """
        try:
            shape = self.value(options).shape
        except ValueError:
            return {}
        dy = np.zeros(shape)
        both = tuple(slice(min(a, b)) for a, b in zip(shape, self.dy.shape, strict=True))
        dy[both] = self.dy[both]
        return self.again(dy, options)

    def put(self, x: np.ndarray) -> Array:
        return self.xp.asarray(x)

    def _forward(self, options, arrays):
        given = {**self.arrays, **arrays}
        return self.module.forward(*(None if a is None else self.put(a) for a in given.values()),
                                   **{**self.options, **(options or {})})

    @functools.cached_property
    def dz(self) -> np.ndarray:
        """What comes back through a ReLU at the end of the op; dy where there is none."""
        return self.dy * (self.y > 0) if self.module.__name__.endswith("_relu") else self.dy


def host(x: Array) -> Host:
    return None if x is None else np.array(to_numpy(x))
