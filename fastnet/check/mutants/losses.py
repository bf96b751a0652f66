"""Mistakes in losses."""

import numpy as np

from fastnet.check.mutants.call import Call
from fastnet.check.mutants.mistake import Changed, Mistake

INDEPENDENT = ("mean_squared_error", "huber", "soft_margin", "sigmoid_cross_entropy")
LOSSES = ("softmax_cross_entropy", *INDEPENDENT)
SOFTMAX = ("softmax_cross_entropy",)


def _labels(change):
    def backward(call: Call) -> Changed:
        name = "labels" if "labels" in call.arrays else "targets"
        if call.arrays[name].dtype.kind == "f":
            return {}
        return call.again(**{name: change(call.arrays[name], call.arrays["x"].shape[1])})
    return backward


def _other_reduction(call: Call) -> Changed:
    mean = call.options.get("reduction", "mean") == "mean"
    return call.again(options={"reduction": "sample_mean" if mean else "mean"})


def _p(call: Call) -> np.ndarray:
    shifted = np.exp(call.arrays["x"] - call.arrays["x"].max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _without_max(call: Call) -> np.ndarray:
    """log sum exp as it stands in the formula; large logits overflow."""
    x, labels, s = call.arrays["x"], call.arrays["labels"], call.options.get("label_smoothing", 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
        return (-(1 - s) * log_p[np.arange(len(x)), labels] - s * log_p.mean(axis=1)).mean()


def _smoothing_shared(call: Call) -> Changed:
    """s/(K-1) on the other classes."""
    s, (n, k) = call.options.get("label_smoothing", 0.0), call.arrays["x"].shape
    hot = np.eye(k)[call.arrays["labels"]]
    return {"x": call.dy * (_p(call) - (1 - s) * hot - s * (1 - hot) / (k - 1)) / n}


def _over_samples(call: Call) -> Changed:
    p = np.exp(call.arrays["x"] - call.arrays["x"].max(axis=0))
    hot = np.eye(p.shape[1])[call.arrays["labels"]]
    return {"x": call.dy * (p / p.sum(axis=0) - hot) / len(p)}


def _per_samples(call: Call) -> Changed:
    """dx of the sum over samples: without 1/N."""
    return {name: g * len(call.arrays["x"]) for name, g in call.gradients.items() if g is not None}


LOSS_MISTAKES = (
    Mistake("no 1/N", "the gradient of the summed loss", LOSSES, _per_samples, cause="N"),
    Mistake("mean over N K", "the mean over classes too", SOFTMAX, lambda call: {
        "x": call.gradients["x"] / call.arrays["x"].shape[1]}, cause="times"),
    Mistake("the other reduction", "backward divides by N K for N, or the other way round", INDEPENDENT,
            _other_reduction, cause="times"),
    Mistake("summed loss", "y is the sum, not the mean", LOSSES, forward=lambda call: (
        call.y * len(call.arrays["x"])), cause="times"),
    Mistake("shifted label", "labels count from 1", LOSSES, _labels(lambda labels, k: (labels + 1) % k)),
    Mistake("first label for all", "every sample gets the first one's label", LOSSES, _labels(
        lambda labels, k: np.full_like(labels, labels[0]))),
    Mistake("no one-hot", "dx = p / N", SOFTMAX, lambda call: {"x": call.dy * _p(call) / len(call.arrays["x"])}),
    Mistake("smoothing forgotten", "backward takes the labels as they are", SOFTMAX, lambda call: call.again(
        options={"label_smoothing": 0.0})),
    Mistake("smoothing over the others", "s/(K-1) for s/K", SOFTMAX, _smoothing_shared),
    Mistake("softmax over the samples", "the wrong axis", SOFTMAX, _over_samples),
    Mistake("softmax without the max", "exp overflows for large logits", SOFTMAX, forward=_without_max,
            names=("y is wrong",)),
    Mistake("half of a square", "dx = (x - t) / M, the derivative of half the square", ("mean_squared_error",),
            lambda call: {"x": call.gradients["x"] / 2}, cause="0.5 times"),
    Mistake("Huber not clipped", "dx = (x - t) / M everywhere", ("huber",), lambda call: call.again(
        options={"delta": 1e9})),
    Mistake("Huber clipped at 1", "backward takes delta for 1", ("huber",), lambda call: call.again(
        options={"delta": 1.0})),
    Mistake("margin's labels 0 and 1", "the other classes' targets are 0, not -1", ("soft_margin",), lambda call: (
        {} if call.arrays["targets"].dtype.kind == "f" else call.again(
            targets=np.eye(call.arrays["x"].shape[1])[call.arrays["targets"]]))),
    Mistake("logits for probabilities", "dx = (x - t) / M", ("sigmoid_cross_entropy",), lambda call: {
        "x": call.gradients["x"] + call.dy * _excess(call)}),
    Mistake("sign of dt", "the targets' gradient has the logits' sign", INDEPENDENT, lambda call: {
        "targets": -call.gradients["targets"]} if call.gradients["targets"] is not None else {}, cause="-1 times"),
)


def _excess(call: Call) -> np.ndarray:
    x = call.arrays["x"]
    divisor = x.size if call.options.get("reduction", "mean") == "mean" else len(x)
    return (x - 1 / (1 + np.exp(-x))) / divisor
