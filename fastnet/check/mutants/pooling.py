"""Mistakes in pooling."""

import itertools

import numpy as np

from fastnet.check.mutants.call import Call, Host
from fastnet.check.mutants.mistake import Changed, Mistake

MAX = ("max_pool2d", "relu_max_pool2d")
WINDOWED = (*MAX, "avg_pool2d")


def _moved(axis: int):
    return lambda call: {"x": np.roll(call.gradients["x"], 1, axis=axis)}


def _option(name: str):
    """Backward takes the option for its default, or, a stride, for 1."""
    def backward(call: Call) -> Changed:
        value = {"stride": 1, "pad": 0, "ceil_mode": False}[name]
        options = {"stride": call.options["window"], **call.options}
        return {} if options.get(name, value) in (value, (value, value)) else call.as_if(**{name: value})
    return backward


def _overwritten(call: Call) -> Changed:
    """`=` for `+=` where windows overlap: of windows that share no pixel with each other, one set after the other."""
    wrong = np.zeros_like(call.arrays["x"])
    for p, q in itertools.product(range(3), repeat=2):
        only = np.zeros_like(call.dy)
        only[:, p::3, q::3] = 1
        reached = call.again(only)["x"] != 0
        wrong = np.where(reached, call.again(only * call.dy)["x"], wrong)
    return {"x": wrong}


def _inside(call: Call) -> Host:
    """The share of each window's counted entries that lie in the image."""
    return call.value(x=np.ones_like(call.arrays["x"]))


def _entries(call: Call) -> int:
    return int(np.prod(call.options["window"])) if np.ndim(call.options["window"]) else call.options["window"] ** 2


def _to_first_tap(call: Call) -> Changed:
    """The gradient goes to the first entry of a window, whoever won."""
    falling = -np.arange(call.arrays["x"].size, dtype=float).reshape(call.arrays["x"].shape) / call.arrays["x"].size
    return {"x": call.again(x=falling - falling.min() + 1)["x"]}


def _to_smallest(call: Call) -> Changed:
    return {"x": call.again(x=call.arrays["x"].max() + 1 - call.arrays["x"])["x"]}


def _spread(call: Call) -> Changed:
    """As an average pool would: equal shares for all of a window."""
    if call.options.get("pad") or call.options.get("stride"):
        return {}
    size = call.options["window"]
    rows, columns = size if np.ndim(size) else (size, size)
    y = np.where(call.y > 0, call.dy, 0) if call.module.__name__.endswith("relu_max_pool2d") else call.dy
    wide = np.repeat(np.repeat(y, rows, 1), columns, 2) / (rows * columns)
    wrong = np.zeros_like(call.arrays["x"])
    wrong[:, : wide.shape[1], : wide.shape[2]] = wide[:, : wrong.shape[1], : wrong.shape[2]]
    return {"x": wrong}


POOLING = (
    Mistake("winner one column late", "the index of the winner is one too large", MAX, _moved(2),
            cause="shifted by 1 along axis 2"),
    Mistake("winner one row late", "the row of the winner is one too large", MAX, _moved(1),
            cause="shifted by 1 along axis 1"),
    Mistake("winner's index never set", "the gradient goes to the first entry of each window", MAX, _to_first_tap),
    Mistake("smallest for largest", "the gradient goes to the smallest entry", MAX, _to_smallest),
    Mistake("spread over the window", "the gradient of an average pool", MAX, _spread),
    Mistake("overlap overwritten", "= for += where windows overlap", WINDOWED, _overwritten),
    Mistake("stride forgotten in pooling", "backward computes as with a stride of 1", WINDOWED, _option("stride")),
    Mistake("pad forgotten in pooling", "backward computes as without padding", WINDOWED, _option("pad")),
    Mistake("ceil mode forgotten", "backward leaves out the windows that reach beyond", WINDOWED,
            _option("ceil_mode")),
    Mistake("padding not counted in dx", "dx is shared by the entries inside only", ("avg_pool2d",),
            lambda call: call.again(call.dy / _inside(call))),
    Mistake("padding not counted in y", "the mean of the entries inside only", ("avg_pool2d",),
            forward=lambda call: call.y / _inside(call)),
    Mistake("average not divided", "dx = dy", ("avg_pool2d",), lambda call: {
        "x": call.gradients["x"] * _entries(call)}, cause="times"),
    Mistake("global average not divided", "dx = dy at every place", ("global_avg_pool",), lambda call: {
        "x": call.gradients["x"] * np.prod(call.arrays["x"].shape[1:3])}, cause="times"),
    Mistake("global average over the batch", "dx = dy / (N H W)", ("global_avg_pool",), lambda call: {
        "x": call.gradients["x"] / len(call.dy)}, cause="1/N"),
    Mistake("one place only", "dx is written at the first pixel", ("global_avg_pool",), lambda call: {
        "x": _first_place(call.gradients["x"])}, cause="zero"),
)


def _first_place(g: Host) -> Host:
    wrong = np.zeros_like(g)
    wrong[:, 0, 0] = g[:, 0, 0]
    return wrong
