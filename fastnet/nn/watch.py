"""Telling which layer is at work, in either direction, without the layers' knowing."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from fastnet.arrays import Array
from fastnet.nn.fuse import fuse, joined
from fastnet.nn.layer import Backward, Context, Layer
from fastnet.nn.sequential import named_layers

At = Callable[[str], AbstractContextManager[Any]]


@contextlib.contextmanager
def watched(model: Layer, at: At) -> Iterator[None]:
    """In the block, `at("layer1.0.conv1 forward")` or `"... backward"` is entered around each pass of each layer.

    Inner layers are entered inside the containers that hold them. The model is fused (`fastnet.nn.fuse`), and layers
    that run as one have their names joined; where one of these takes a whole step at once, `"... both ways"`
    is entered.
    """
    layers = list(named_layers(model))
    names = {id(layer): name for name, layer in layers}
    layers = [(joined([names[id(part)] for part in run.children()]), run) for run in fuse(model)] + layers
    kinds = [type(layer) for _, layer in layers]
    for name, layer in layers:
        layer.__class__ = _watched(type(layer), name, at)
    try:
        yield
    finally:
        for (_, layer), kind in zip(layers, kinds, strict=True):
            layer.__class__ = kind


def _watched(kind: Any, name: str, at: At) -> type[Layer]:
    class Watched(kind):
        def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
            with at(f"{name} forward"):
                y, back = super().__call__(x, context)

            def watched_back(dy: Array, needs_dx: bool = True) -> Array | None:
                with at(f"{name} backward"):
                    return back(dy, needs_dx)

            return y, watched_back

    def step(self: Any, *arguments: Any) -> Any:
        with at(f"{name} both ways"):
            return kind.step(self, *arguments)

    if hasattr(kind, "step"):
        Watched.step = step
    return Watched
