"""Mistakes that any backward pass can have, whatever it computes."""

import numpy as np

from fastnet.check.mutants.call import Call, Host
from fastnet.check.mutants.mistake import Changed, Mistake, of_each


def _single(g: Host, call: Call) -> Host:
    return g.astype(np.float32)


def _nudged(g: Host, call: Call) -> Host:
    wrong = g.copy()
    wrong.flat[np.argmax(np.abs(g))] *= 1 + 1e-6
    return wrong


def _without_last_entry(g: Host, call: Call) -> Host:
    wrong = g.copy()
    wrong.flat[np.flatnonzero(g)[-1:]] = 0
    return wrong


def _not_a_number(g: Host, call: Call) -> Host:
    wrong = g.copy()
    wrong.reshape(-1)[-max(1, g.size // 4):] = np.nan
    return wrong


def _last_sample(weight: float):
    def change(call: Call) -> Changed:
        if call.dy.ndim:
            dy = call.dy.copy()
            dy[-1] *= weight
            return call.again(dy)
        rows = {name: g.copy() for name, g in call.gradients.items() if g is not None}  # of a loss
        for g in rows.values():
            g[-1] *= weight
        return rows
    return change


def _last_chunk(call: Call) -> Changed:
    """Chunks of two samples, and the last, a smaller one, is left out with one sample of the chunk before."""
    if not call.dy.ndim:
        return {}
    dy = call.dy.copy()
    dy[-2:] = 0
    return call.again(dy)


def _other_sample(call: Call) -> Changed:
    return {name: np.roll(g, 1, axis=0) for name, g in call.gradients.items() if name in ("x", "shortcut", "targets")
            and g is not None}


def _transposed(g: Host, call: Call) -> Host:
    """Read in the order of the transpose: a reshape where a transpose was meant."""
    return g.swapaxes(-1, -2).reshape(g.shape) if g.ndim > 1 and min(g.shape[-2:]) > 1 else g


def _exchanged(call: Call) -> Changed:
    first, *others = [name for name in call.floating if call.gradients[name] is not None]
    for other in others:
        if call.gradients[first].shape == call.gradients[other].shape:
            return {first: call.gradients[other], other: call.gradients[first]}
    if len(others) > 1 and call.gradients[others[0]].shape == call.gradients[others[1]].shape:
        return {others[0]: call.gradients[others[1]], others[1]: call.gradients[others[0]]}
    return {}


GENERAL = (
    Mistake("sign", "every gradient has the other sign", backward=of_each(lambda g, call: -g), cause="-1 times"),
    Mistake("twice", "every gradient is twice what it is", backward=of_each(lambda g, call: 2 * g), cause="2 times"),
    Mistake("thousandth", "a constant is wrong in the fourth digit", backward=of_each(lambda g, call: 1.001 * g),
            cause="1.001 times"),
    Mistake("always zero", "the gradient is never computed", backward=of_each(lambda g, call: 0 * g),
            cause="is zero everywhere"),
    Mistake("one entry", "the largest entry is off by a millionth", backward=of_each(_nudged), cause="only entry"),
    Mistake("float32 inside", "float64 is summed, or kept, in float32", backward=of_each(_single), cause="float32"),
    Mistake("float32 y", "the forward pass computes in float32", forward=lambda call: call.y.astype(np.float32),
            cause="float32"),
    Mistake("not a number", "the last quarter is not a number", backward=of_each(_not_a_number),
            cause="not a number from"),
    Mistake("dy left out", "dy is taken for ones", backward=lambda call: call.again(np.ones_like(call.dy)),
            cause="dy is left out"),
    Mistake("size of dy", "the sign of dy is lost", backward=lambda call: call.again(np.abs(call.dy)),
            cause="|dy|"),
    Mistake("last sample dropped", "the loop over samples ends one too early", backward=_last_sample(0),
            cause="sample"),
    Mistake("last sample twice", "the last sample is counted twice", backward=_last_sample(2), cause="sample"),
    Mistake("last chunk dropped", "the loop over chunks of two samples leaves out the last", backward=_last_chunk,
            cause="sample"),
    Mistake("rows shifted", "each sample gets the gradient of the one before", backward=_other_sample,
            cause="shifted by 1 along axis 0"),
    Mistake("last entry missing", "the loop over entries ends one too early", backward=of_each(_without_last_entry),
            cause="only entry"),
    Mistake("reshape for transpose", "the last two axes are read in the other order",
            ("linear", "linear_relu", "conv2d", "softmax_cross_entropy", "mean_squared_error", "global_avg_pool",
             "sigmoid", "tanh"), backward=of_each(_transposed), cause="transpos"),
    Mistake("gradients exchanged", "two gradients of one shape are returned in the other order", ops=(
        "batch_norm", "batch_norm_relu", "batch_norm_add_relu", "batch_norm_fixed", "batch_norm_fixed_relu",
        "batch_norm_fixed_add_relu", "mean_squared_error", "huber", "soft_margin", "sigmoid_cross_entropy"),
        backward=_exchanged),
)
