"""Mistakes that are no matter of one call's numbers: what a module keeps, changes, returns and leaves out."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from fastnet.arrays import array_module, to_numpy
from fastnet.check import contract
from fastnet.check.cases import ops
from fastnet.check.mutants.mistake import Mistake, pair

BATCH_NORMS = ("batch_norm", "batch_norm_relu", "batch_norm_add_relu")
# In pooling by averages nothing that is kept depends on the numbers.
KEEPING = tuple(op for op in ops() if op not in ("avg_pool2d", "global_avg_pool"))
SEVERAL = (*BATCH_NORMS, "batch_norm_fixed", "batch_norm_fixed_relu", "batch_norm_fixed_add_relu", "conv2d",
           "conv2d_relu_max_pool2d", "linear", "linear_relu", "perceptron")


def _first_cache(module: Any) -> SimpleNamespace:
    kept: list[Any] = []

    def forward(*arrays, **options):
        y, cache = module.forward(*arrays, **options)
        kept.append(cache)
        return y, cache

    return pair(forward, lambda dy, cache, needs=None: module.backward(dy, kept[0], needs))


def _last_cache(module: Any) -> SimpleNamespace:
    kept: dict[str, Any] = {}

    def forward(*arrays, **options):
        y, kept["cache"] = module.forward(*arrays, **options)
        return y, None

    return pair(forward, lambda dy, cache, needs=None: module.backward(dy, kept["cache"], needs))


def _floating(arrays):
    return next(a for a in arrays if contract.is_floating(a))


def _changing_x(module: Any) -> SimpleNamespace:
    def forward(*arrays, **options):
        y, cache = module.forward(*arrays, **options)
        x = _floating(arrays)
        x[...] = x * 0.5
        return y, cache

    return pair(forward, module.backward)


def _changing_x_later(module: Any) -> SimpleNamespace:
    def forward(*arrays, **options):
        y, cache = module.forward(*arrays, **options)
        return y, (cache, _floating(arrays))

    def backward(dy, cache, needs=None):
        gradients = module.backward(dy, cache[0], needs)
        cache[1][...] = cache[1] * 0.5
        return gradients

    return pair(forward, backward)


def _changing_dy(module: Any) -> SimpleNamespace:
    def backward(dy, cache, needs=None):
        gradients = module.backward(dy, cache, needs)
        dy[...] = dy * 0.5
        return gradients

    return pair(module.forward, backward)


def _changing_cache(module: Any) -> SimpleNamespace:
    def forward(*arrays, **options):
        y, cache = module.forward(*arrays, **options)
        return y, {"inner": cache, "scratch": y * 1.0}

    def backward(dy, cache, needs=None):
        scratch = cache["scratch"]
        if scratch.ndim:
            scratch[...] = scratch * dy
        else:
            cache["scratch"] = scratch * dy
        return module.backward(dy, cache["inner"], needs)

    return pair(forward, backward)


def _needs(change):
    return lambda module: pair(module.forward, lambda dy, cache, needs=None: module.backward(dy, cache, change(needs)))


def _not_cleared(module: Any) -> SimpleNamespace:
    """Gradients are added to a buffer that the next call finds as this one left it."""
    kept: list[Any] = []

    def backward(dy, cache, needs=None):
        gradients = module.backward(dy, cache)
        kept.append([None if g is None else to_numpy(g) for g in gradients])
        put = array_module(next(g for g in gradients if g is not None)).asarray
        return tuple(None if g is None or (needs is not None and not needs[i])
                     else put(np.asarray(sum(old[i] for old in kept), kept[-1][i].dtype))
                     for i, g in enumerate(gradients))

    return pair(module.forward, backward)


def _drifting(module: Any) -> SimpleNamespace:
    """The forward pass depends on how often it has run, as one does that draws from a global generator."""
    calls: list[int] = []

    def forward(*arrays, **options):
        y, cache = module.forward(*arrays, **options)
        calls.append(len(calls))
        return (y * (1 + 2e-16 * (calls[-1] % 3))).astype(y.dtype, copy=False), cache

    return pair(forward, module.backward)


def _returned(change):
    return lambda module: pair(module.forward, lambda dy, cache, needs=None: change(module.backward(dy, cache, needs)))


def _each(change):
    return _returned(lambda gradients: tuple(None if g is None else change(g) for g in gradients))


def _without_first(gradients):
    first = next((i for i, g in enumerate(gradients) if g is not None), 0)
    return tuple(None if i == first else g for i, g in enumerate(gradients))


CONTRACTS = (
    Mistake("cache of the first call", "backward uses what the module kept of its first call", KEEPING,
            pair=_first_cache, names=(" is wrong", "after a forward pass on other numbers")),
    Mistake("cache of the last call", "backward uses what the module kept of its last call", KEEPING,
            pair=_last_cache, names=("after a forward pass on other numbers",)),
    Mistake("x changed in place", "forward works in the memory of its input", pair=_changing_x,
            names=("forward changes x", "forward changes mean")),
    Mistake("x changed later", "backward works in the memory of the input that the cache holds",
            pair=_changing_x_later, names=("backward changes x", "backward changes mean")),
    Mistake("dy changed in place", "backward works in the memory of dy", (
        *SEVERAL, "relu", "leaky_relu", "elu", "gelu", "swish", "sigmoid", "tanh", "max_pool2d", "relu_max_pool2d",
        "avg_pool2d", "global_avg_pool", "dropout"), pair=_changing_dy, names=("backward changes dy",)),
    Mistake("cache changed in place", "backward works in the memory of its cache", pair=_changing_cache,
            names=("backward changes its cache",)),
    Mistake("buffer not cleared", "gradients are added to what the call before left", pair=_not_cleared,
            names=("second backward pass gives other bits",)),
    Mistake("forward with a state", "the forward pass of the same arrays differs from call to call", pair=_drifting,
            names=("second forward pass gives other bits",)),
    Mistake("needs ignored", "gradients that nobody needs are computed", pair=_needs(lambda needs: None),
            names=("is not needed, but is not None",)),
    Mistake("needs reversed", "needs are read from the other end", SEVERAL, pair=_needs(
        lambda needs: needs and tuple(needs)[::-1]), names=("is not needed", "other bits when other gradients")),
    Mistake("another type returned", "gradients have another type than their arrays", pair=_each(
        lambda g: g.astype(np.float32)), names=(" is float32, but ",)),
    Mistake("axis kept", "a gradient has an axis more than its array", pair=_each(lambda g: g[None]),
            names=("), but ",)),
    Mistake("gradient forgotten", "the last gradient is not returned", pair=_returned(
        lambda gradients: gradients[:-1]), names=("backward returns",)),
    Mistake("None for a gradient", "None is returned for the first array that has one", pair=_returned(
        _without_first), names=(" is None, but ",)),
)
