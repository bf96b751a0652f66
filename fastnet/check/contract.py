"""The parts of an op's contract that are not numbers: what it leaves alone, what it returns, and that it repeats.

DESIGN: pure passes, one gradient per array in the same order and of its shape and type, None for integer or absent
arrays and for gradients that nobody needs.
"""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastnet.arrays import Array, array_module, to_numpy


class Passes(NamedTuple):
    """One forward and one backward pass, and what was wrong with them."""

    y: Array
    dy: Array
    gradients: tuple[Array, ...]
    failures: list[str]


def argument_names(module: Any, count: int) -> list[str]:
    """The names of forward's array parameters, at least `count` of them; "array 0", ... where it names none."""
    names = _positional(module.forward)
    return names + [f"array {i}" for i in range(len(names), count)]


def watched(op: str, module: Any, arrays: Sequence[Array], options: dict[str, Any], names: list[str],
            draw_dy: Any) -> Passes:
    """Run both passes, watching that inputs, dy and cache stay as they are; `draw_dy(y)` gives dy.

    A forward pass on other numbers comes first, so that what a module keeps of its first call does no good.
    Raises TypeError for results that are not an array and a sequence of gradients.
    """
    module.forward(*_others(arrays), **options)
    failures = []
    before = [_frozen(a) for a in arrays]
    y, cache = module.forward(*arrays, **options)
    failures += _changed(f"{op}: forward", names, before, arrays)
    if not hasattr(y, "dtype"):
        raise TypeError(f"{op}: y is a {type(y).__name__}, but an array is needed (0-d for a loss)")
    dy = draw_dy(y)
    dy_before, cache_before = _frozen(dy), _frozen(cache)
    gradients = module.backward(dy, cache)
    if not isinstance(gradients, (tuple, list)):
        raise TypeError(f"{op}: backward returns a {type(gradients).__name__}, but a tuple of gradients is needed, "
                        f"one for each of {', '.join(names)}")
    failures += _changed(f"{op}: backward", [*names, "dy", "its cache"], [*before, dy_before, cache_before],
                         [*arrays, dy, cache])
    return Passes(y, dy, tuple(gradients), failures)


def returned(op: str, arrays: Sequence[Array], names: list[str], y: Array,
             gradients: Sequence[Array]) -> dict[int, str]:
    """What is wrong with the form of y and of each gradient: index of the argument (-1: y) -> message."""
    wrong = {}
    x = next(a for a in arrays if is_floating(a))
    if y.dtype != x.dtype:
        wrong[-1] = f"{op}: y is {y.dtype}, but x is {x.dtype}"
    for i, (a, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        d = f"{op}: d{names[i]}"
        if not is_floating(a):
            if gradient is not None:
                what = "absent" if a is None else f"{a.dtype}"
                wrong[i] = f"{d} must be None, because {names[i]} is {what}"
        elif gradient is None:
            wrong[i] = f"{d} is None, but {names[i]} is {a.dtype}"
        elif tuple(gradient.shape) != tuple(a.shape):
            wrong[i] = f"{d} is {tuple(gradient.shape)}, but {names[i]} is {tuple(a.shape)}"
        elif gradient.dtype != a.dtype:
            wrong[i] = f"{d} is {gradient.dtype}, but {names[i]} is {a.dtype}"
        elif array_module(gradient) is not array_module(a):
            wrong[i] = f"{d} is a {type(gradient).__name__}, but {names[i]} is a {type(a).__name__}"
    return wrong


def repeats(op: str, module: Any, arrays: Sequence[Array], options: dict[str, Any], names: list[str],
            passes: Passes) -> list[str]:
    """Whether a second run gives the same bits, also when only some gradients are asked for by `needs`."""
    y, cache = module.forward(*arrays, **options)
    failures = []
    if not same_bits(y, passes.y):
        failures.append(f"{op}: a second forward pass gives other bits")
    if not all(map(same_bits, module.backward(passes.dy, cache), passes.gradients)):
        failures.append(f"{op}: a second backward pass gives other bits")
    _, cache = module.forward(*arrays, **options)
    module.forward(*_others(arrays), **options)
    if not failures and not all(map(same_bits, module.backward(passes.dy, cache), passes.gradients)):
        failures.append(f"{op}: backward gives other bits after a forward pass on other numbers: it must depend on dy "
                        "and its cache alone")
    if not takes_needs(module):
        return failures
    floating = [i for i, a in enumerate(arrays) if is_floating(a)]
    wanted = [{i} for i in floating] + [set(floating) - {i} for i in floating] * (len(floating) > 2) + [set()]
    for some in wanted:
        _, cache = module.forward(*arrays, **options)
        gradients = module.backward(passes.dy, cache, tuple(i in some for i in range(len(arrays))))
        for i in floating:
            if i not in some and gradients[i] is not None:
                failures.append(f"{op}: d{names[i]} is not needed, but is not None")
            if i in some and not same_bits(gradients[i], passes.gradients[i]):
                failures.append(f"{op}: d{names[i]} has other bits when other gradients are not needed")
    return list(dict.fromkeys(failures))


def takes_needs(module: Any) -> bool:
    """Whether backward takes a third argument, `needs`."""
    return len(_positional(module.backward)) > 2


def is_floating(a: Array) -> bool:
    return a is not None and a.dtype.kind == "f"


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays are the same in type, shape and every bit (or both absent)."""
    return bool(_frozen(a) == _frozen(b))


def _positional(function):
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds]


def _frozen(x):
    """A comparable copy of arrays nested in tuples, lists and dicts; other objects stand for themselves."""
    if isinstance(x, (tuple, list)):
        return [_frozen(e) for e in x]
    if isinstance(x, dict):
        return {k: _frozen(e) for k, e in x.items()}
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        host = np.asarray(to_numpy(x))
        return host.dtype.str, host.shape, host.tobytes()
    return x


def _others(arrays):
    """Other numbers of the same shapes, the samples in reverse order: else masks and winners would be the same."""
    reverse = [a if a is None or not a.ndim else a[::-1] for a in arrays]
    return [a * 0.75 if is_floating(a) else a for a in reverse]


def _changed(who, names, before, now):
    return [f"{who} changes {name}" for name, b, n in zip(names, before, now, strict=False) if [_frozen(n)] != [b]]
