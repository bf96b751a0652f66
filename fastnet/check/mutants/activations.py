"""Mistakes in activations, in fused ReLUs, and in dropout."""

import numpy as np

from fastnet.check.mutants.call import Call
from fastnet.check.mutants.mistake import Changed, Mistake
from fastnet.ops import _logistic

RELU = ("relu",)
SMOOTH = ("gelu", "swish", "sigmoid", "tanh", "elu")
SHORTCUTS = ("batch_norm_add_relu", "batch_norm_fixed_add_relu")


def _masked(mask):
    return lambda call: {"x": np.where(mask(call), call.dy, 0)}


def _flipped_rows(call: Call) -> Changed:
    mask = call.arrays["x"][::-1] > 0
    return {"x": np.where(mask, call.dy, 0)}


def _slope(change):
    """dx = dy times a slope from (x, y, right slope)."""
    def backward(call: Call) -> Changed:
        x = call.arrays["x"]
        return {"x": call.dy * change(x, call.y, call.again(np.ones_like(call.dy))["x"])}
    return backward


def _gelu_terms(probability: float, density: float):
    """P + x P' with wrong weights; P = y / x."""
    return _slope(lambda x, y, slope: probability * y / x + density * (slope - y / x))


def _option(**changed):
    return lambda call: call.again(options={name: change(call.options.get(name)) for name, change in changed.items()})


def _other_gelu(given):
    return "tanh" if given in (None, "none") else "none"


def _new_mask(call: Call) -> Changed:
    seed, stream, epoch = call.options["key"]
    return call.again(options={"key": (seed, stream, epoch + 1)})


def _by_place(call: Call) -> Changed:
    return call.again(samples=np.arange(len(call.dy)))


def _complement(call: Call) -> Changed:
    keep = 1 - call.options["p"]
    return {"x": call.dy / keep - call.gradients["x"]}


ACTIVATIONS = (
    Mistake("mask of dy", "dx = dy where dy > 0", RELU, _masked(lambda call: call.dy > 0)),
    Mistake("mask inverted", "dx = dy where x <= 0", RELU, _masked(lambda call: call.arrays["x"] <= 0),
            cause="mask is inverted"),
    Mistake("mask missing", "dx = dy", RELU, lambda call: {"x": call.dy}, cause="mask is missing"),
    Mistake("mask of another sample", "the mask's rows are in the other order", RELU, _flipped_rows),
    Mistake("mask one entry late", "the mask is read one column further", RELU, _masked(
        lambda call: np.roll(call.arrays["x"], 1, axis=-1) > 0)),
    Mistake("mask times x", "dx = dy max(x, 0)", RELU, lambda call: {"x": call.dy * call.y}),
    Mistake("shortcut past the mask", "dshortcut = dy", SHORTCUTS, lambda call: {"shortcut": call.dy},
            cause="mask is missing"),
    Mistake("shortcut lost", "dshortcut is never written", SHORTCUTS, lambda call: {
        "shortcut": 0 * call.dy}, cause="is zero everywhere"),
    Mistake("shortcut from dx", "dshortcut = dx: the branches' gradients are mixed up", SHORTCUTS, lambda call: {
        "shortcut": call.gradients["x"]}),
    Mistake("no mask in a fused op", "the normalisation gets dy, not dz", (
        "batch_norm_relu", "batch_norm_fixed_relu", "linear_relu"), lambda call: _unmasked(call)),
    Mistake("slope at y", "the slope is taken at y instead of x", SMOOTH, lambda call: call.again(x=call.y)),
    Mistake("slope squared", "the slope is applied twice", SMOOTH, _slope(lambda x, y, s: s * s)),
    Mistake("slope for value", "dx = dy y", SMOOTH, _slope(lambda x, y, s: y)),
    Mistake("slope on the other side", "the slope of negative x is used for positive ones", ("leaky_relu", "elu"),
            lambda call: call.again(x=-call.arrays["x"])),
    Mistake("slope's default", "backward takes the default for the option", ("leaky_relu", "elu"), lambda call: (
        call.again(options={"negative_slope": 0.01} if "negative_slope" in call.options else {"alpha": 1.0})
        if call.options else {})),
    Mistake("exponential twice", "dy (y + 2 alpha) below zero", ("elu",), lambda call: {"x": np.where(
        call.y > 0, call.dy, call.gradients["x"] + call.dy * call.options.get("alpha", 1.0))}),
    Mistake("the other gelu", "the derivative of the other form", ("gelu",), _option(approximate=_other_gelu)),
    Mistake("gelu without its density", "dx = dy P", ("gelu",), _gelu_terms(1, 0)),
    Mistake("gelu without its probability", "dx = dy x P'", ("gelu",), _gelu_terms(0, 1)),
    Mistake("swish without its second term", "dx = dy s", ("swish",), _slope(
        lambda x, y, s: _logistic.sigmoid(x))),
    Mistake("swish, sign of the second term", "dx = dy s (1 - x (1 - s))", ("swish",), _slope(
        lambda x, y, s: 2 * _logistic.sigmoid(x) - s)),
    Mistake("1 + y", "dx = dy y (1 + y)", ("sigmoid",), _slope(lambda x, y, s: y * (1 + y))),
    Mistake("y for 1 - y", "dx = dy y^2", ("sigmoid",), _slope(lambda x, y, s: y * y)),
    Mistake("y not squared", "dx = dy (1 - y)", ("tanh",), _slope(lambda x, y, s: 1 - y)),
    Mistake("1 + y^2", "dx = dy (1 + y^2)", ("tanh",), _slope(lambda x, y, s: 1 + y * y)),
    Mistake("no rescaling in dx", "dx lacks 1/(1-p)", ("dropout",), lambda call: {
        "x": call.gradients["x"] * (1 - call.options["p"])}, cause="times"),
    Mistake("rescaled twice", "dx has 1/(1-p)^2", ("dropout",), lambda call: {
        "x": call.gradients["x"] / (1 - call.options["p"])}, cause="times"),
    Mistake("no rescaling in y", "y lacks 1/(1-p)", ("dropout",), forward=lambda call: (
        call.y * (1 - call.options["p"])), cause="times"),
    Mistake("new mask", "backward draws a mask of its own", ("dropout",), _new_mask),
    Mistake("mask by place", "the mask is keyed by the place in the batch, not by the sample", ("dropout",), _by_place),
    Mistake("dropped for kept", "the mask is inverted", ("dropout",), _complement, cause="mask is inverted"),
    Mistake("dropout forgotten", "dx = dy", ("dropout",), lambda call: {"x": call.dy}),
)


def _unmasked(call: Call) -> Changed:
    """Gradients of the op without its ReLU: where z <= 0 a shift of the last bias lets everything through."""
    last = "beta" if "beta" in call.arrays else "b"
    if call.arrays[last] is None:
        return {}
    wrong = call.again(**{last: call.arrays[last] + 1e3})
    return {last: wrong[last], "x": wrong["x"]}
