"""Mistakes in linear layers, convolutions and perceptrons."""

import itertools

import numpy as np

from fastnet.check.mutants.call import Call, Host
from fastnet.check.mutants.mistake import Changed, Mistake

LINEAR = ("linear", "linear_relu")
CONVOLUTIONS = ("conv2d", "conv2d_relu_max_pool2d")
BIASED = (*LINEAR, *CONVOLUTIONS)


def _bias(change):
    """A wrong db from the right one and what comes back through the op's ReLU."""
    def backward(call: Call) -> Changed:
        return {} if call.arrays["b"] is None else {"b": change(call)}
    return backward


def _option(name):
    """The backward pass takes an option for what it is by default."""
    default = 0 if name == "pad" else 1

    def backward(call: Call) -> Changed:
        given = call.options.get(name, default)
        if given in (default, (default, default)):
            return {}
        wrong = call.as_if(**{name: default})
        return {key: wrong[key] for key in ("x", "w") if wrong}
    return backward


def _with_w(change, *names):
    """Gradients for a w that was read in another order; none where that order is the same."""
    def backward(call: Call) -> Changed:
        w = change(call.arrays["w"], call)
        return {} if w is None else {name: call.again(w=np.ascontiguousarray(w))[name] for name in names}
    return backward


def _square(w: Host, call: Call) -> Host:
    return w.swapaxes(0, 1) if w.shape[0] == w.shape[1] > 1 else None


def _channels_exchanged(w: Host, call: Call) -> Host:
    return w.swapaxes(-1, -2).reshape(w.shape) if min(w.shape[-2:]) > 1 else None


def _next_group(call: Call) -> Changed:
    groups = call.options.get("groups", 1)
    if groups == 1:
        return {}
    return {"x": np.roll(call.gradients["x"], call.gradients["x"].shape[3] // groups, axis=3),
            "w": np.roll(call.gradients["w"], call.gradients["w"].shape[3] // groups, axis=3)}


def _shifted(x: Host, axis: int) -> Host:
    """x moved by one along an axis, with zeros behind it."""
    wrong = np.zeros_like(x)
    if x.shape[axis] > 1:
        wrong[(slice(None),) * axis + (slice(1, None),)] = x[(slice(None),) * axis + (slice(-1),)]
    return wrong


def _taps_overwrite(call: Call) -> Changed:
    """`=` for `+=`: what a pixel gets from a tap replaces what it got from the tap before."""
    w = call.arrays["w"]
    wrong = np.zeros_like(call.arrays["x"])
    for at in itertools.product(*map(range, w.shape[:2])):
        one = np.zeros_like(w)
        one[at] = w[at]
        with_tap = _through_tap(call, one)
        wrong = np.where(with_tap != 0, with_tap, wrong)
    return {"x": wrong}


def _through_tap(call, w):
    """dx through some of the taps: conv2d's dx is linear in w, and depends on x no more than dy does."""
    return call.again(w=w)["x"]


def _first_place_only(call: Call) -> Changed:
    """dw from the patches of the first row of places."""
    if call.dy.shape[1] < 2:
        return {}
    dy = call.dy.copy()
    dy[:, 1:] = 0
    return {"w": call.again(dy)["w"]}


def _moved_offset(call: Call) -> Changed:
    return {"vector": np.roll(call.gradients["vector"], 1)}


def _lost_bias(call: Call) -> Changed:
    wrong = call.gradients["vector"].copy()
    last = call.options["layers"][-1]
    wrong[last.b : last.b + last.outputs] = 0
    return {"vector": wrong} if last.b >= 0 else {}


def _last_weights_averaged(call: Call) -> Changed:
    wrong = call.gradients["vector"].copy()
    layer = call.options["layers"][-1]
    wrong[layer.w : layer.w + layer.features * layer.outputs] /= len(call.dy)
    return {"vector": wrong}


PRODUCTS = (
    Mistake("bias of the first sample", "db is not summed over the samples", BIASED, _bias(
        lambda call: call.again(np.concatenate([call.dy[:1], 0 * call.dy[1:]]))["b"]), cause="sample"),
    Mistake("bias averaged", "db is the mean over the samples", BIASED, _bias(
        lambda call: call.gradients["b"] / len(call.dy)), cause="1/N"),
    Mistake("bias over the wrong axes", "db is summed over the columns, and its first entries are returned", LINEAR,
            _bias(lambda call: call.dz.sum(axis=1)[: call.dz.shape[1]])),
    Mistake("bias of the first place", "db is summed over the samples only, at the first pixel", ("conv2d",), _bias(
        lambda call: call.dy[:, 0, 0].sum(axis=0)), cause="place"),
    Mistake("bias subtracted", "y = x w - b", ("linear", "conv2d"), forward=lambda call: (
        None if call.arrays["b"] is None else call.y - 2 * call.arrays["b"])),
    Mistake("bias twice", "b is added in the product and again behind it", ("linear", "conv2d"), forward=lambda call: (
        None if call.arrays["b"] is None else call.y + call.arrays["b"])),
    Mistake("weights averaged", "dw is the mean over the samples", BIASED, lambda call: {
        "w": call.gradients["w"] / len(call.dy)}, cause="1/N"),
    Mistake("w read transposed", "dx = dy w^T with w's memory in the other order", BIASED,
            _with_w(_channels_exchanged, "x")),
    Mistake("absolute x", "dw from |x|", (*LINEAR, "conv2d"), lambda call: {
        "w": call.again(x=np.abs(call.arrays["x"]))["w"]}),
    Mistake("kernel flipped in dx", "dx is correlated with w turned around", ("conv2d",), _with_w(
        lambda w, call: w[::-1, ::-1] if w.shape[:2] != (1, 1) else None, "x")),
    Mistake("kernel flipped in dw", "dw is returned turned around", CONVOLUTIONS, lambda call: {
        "w": call.gradients["w"][::-1, ::-1]}, cause="flipped along axes 0, 1"),
    Mistake("kernel flipped in y", "a convolution where the cross-correlation is meant", ("conv2d",),
            forward=lambda call: call.value(w=np.ascontiguousarray(call.arrays["w"][::-1, ::-1]))),
    Mistake("kernel transposed in dx", "rows and columns of w exchanged", ("conv2d",), _with_w(_square, "x")),
    Mistake("kernel transposed in dw", "rows and columns of dw exchanged", CONVOLUTIONS, lambda call: {
        "w": call.gradients["w"].swapaxes(0, 1)} if _square(call.gradients["w"], call) is not None else {},
        cause="transposed"),
    Mistake("patch one row late", "dw from patches that begin one row later", ("conv2d",), lambda call: {
        "w": call.again(x=_shifted(call.arrays["x"], 1))["w"]}),
    Mistake("patch one column late", "dw from patches that begin one column later", ("conv2d",), lambda call: {
        "w": call.again(x=_shifted(call.arrays["x"], 2))["w"]}),
    Mistake("dx one row late", "the padding is taken off one row too early", CONVOLUTIONS, lambda call: {
        "x": _shifted(call.gradients["x"], 1)}, cause="shifted by 1 along axis 1"),
    Mistake("dx one column late", "the padding is taken off one column too early", CONVOLUTIONS, lambda call: {
        "x": _shifted(call.gradients["x"], 2)}, cause="shifted by 1 along axis 2"),
    Mistake("pad forgotten", "backward computes as without padding", ("conv2d",), _option("pad")),
    Mistake("stride forgotten", "backward computes as with a stride of 1", ("conv2d",), _option("stride")),
    Mistake("dilation forgotten", "backward computes as without dilation", ("conv2d",), _option("dilation")),
    Mistake("pad forgotten in y", "the image is shifted by the padding", ("conv2d",), forward=lambda call: (
        call.value(x=_shifted(call.arrays["x"], 1)) if call.options.get("pad") else None)),
    Mistake("next group", "gradients are put where the next group's belong", CONVOLUTIONS, _next_group,
            cause="shifted"),
    Mistake("taps overwrite", "= for += where a pixel lies in several patches", ("conv2d",), _taps_overwrite),
    Mistake("first row of places", "dw is summed over one row of places", ("conv2d",), _first_place_only,
            cause="place"),
    Mistake("offset by one", "parameters' gradients lie one further in the vector", ("perceptron",), _moved_offset,
            cause="shifted by 1 along axis 0"),
    Mistake("last bias lost", "the last layer's db is never written", ("perceptron",), _lost_bias, cause="zero"),
    Mistake("last weights averaged", "the last layer's dw is the mean over the samples", ("perceptron",),
            _last_weights_averaged),
)
