"""What a mistake is, as data: the ops it is put into, how it changes the true pair, and what has to be named."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastnet.arrays import Array, to_numpy
from fastnet.check import contract
from fastnet.check.mutants.call import Call, Host

Changed = Mapping[str, Host]  # argument -> its wrong gradient; empty where the case gives the mistake no occasion


@dataclass(frozen=True)
class Mistake:
    """A mistake in `ops` (empty: in every op).

    `backward(call)` gives the wrong gradients, `forward(call)` the wrong y, each from one call of the true pair;
    `pair(module)` replaces both passes, for what is no matter of one call: what a module keeps, changes or returns.
    A failure of the check has to contain one of `names`; without any it names a gradient that was changed, or y.
    `cause` is what the autopsy has to say, where the error alone can tell.
    """

    name: str
    about: str
    ops: tuple[str, ...] = ()
    backward: Callable[[Call], Changed] | None = None
    forward: Callable[[Call], Host] | None = None
    pair: Callable[[Any], Any] | None = None
    names: tuple[str, ...] = ()
    cause: str = ""


class Mutant:
    """An op with one mistake: a `module` for `check_op`. `changed` collects what it changed: "x" (of dx), ..., "y"."""

    def __init__(self, mistake: Mistake, module: Any) -> None:
        self.changed: set[str] = set()
        self.__name__ = getattr(module, "__name__", "op")  # an implementation is known by it
        if not contract.takes_needs(module):
            module = _with_needs(module)
        self.forward = functools.wraps(module.forward)(functools.partial(self._forward, mistake, module))
        if mistake.pair is not None:
            broken = mistake.pair(module)
            self.forward = functools.wraps(module.forward)(functools.partial(broken.forward))
            self.backward = broken.backward
            return

        def backward(dy: Array, cache: Any, needs: tuple[bool, ...] | None = None) -> tuple[Array, ...]:
            return self._backward(mistake, module, dy, cache, needs)

        self.backward = backward

    def _forward(self, mistake, module, *arrays, **options):
        y, cache = module.forward(*arrays, **options)
        if mistake.forward is not None:
            call = Call(module, arrays, options, y)
            wrong = mistake.forward(call)
            if wrong is not None and not _same(wrong, call.y):
                self.changed.add("y")
                y = call.put(np.asarray(wrong, call.y.dtype))
        return y, (cache, arrays, options, y)

    def _backward(self, mistake, module, dy, cache, needs):
        inner, arrays, options, y = cache
        if mistake.backward is None:
            return module.backward(dy, inner, needs)
        gradients = module.backward(dy, inner)
        call = Call(module, arrays, options, y, dy, gradients)
        wrong = {}
        for name, gradient in mistake.backward(call).items():
            right = call.gradients[name]
            if right is not None and gradient is not None and not _same(gradient, right):
                self.changed.add(name)
                wrong[name] = call.put(np.ascontiguousarray(gradient, right.dtype).reshape(right.shape))
        gradients = [wrong.get(name, g) for name, g in zip(call.arrays, gradients, strict=True)]
        return tuple(g if needs is None or needed else None
                     for g, needed in zip(gradients, needs or gradients, strict=True))


def of_each(change: Callable[[Host, Call], Host]) -> Callable[[Call], Changed]:
    """A backward mistake that is made in every gradient: `change(right gradient, call)`."""
    return lambda call: {name: change(g, call) for name, g in call.gradients.items() if g is not None}


def pair(forward: Callable, backward: Callable) -> SimpleNamespace:
    return SimpleNamespace(forward=forward, backward=backward)


def _with_needs(module):
    def backward(dy, cache, needs=None):
        gradients = module.backward(dy, cache)
        needs = needs or (True,) * len(gradients)
        return tuple(g if needed else None for g, needed in zip(gradients, needs, strict=True))

    return pair(module.forward, backward)


def _same(a, b):
    return np.array_equal(np.asarray(a, to_numpy(b).dtype), b, equal_nan=True)
