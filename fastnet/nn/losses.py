"""The loss ops a model can be trained with, and the one pass that training and checking share."""

import inspect
import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.arrays import Array, array_module, single_threaded_blas
from fastnet.nn.layer import Context
from fastnet.nn.sequential import Sequential

LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error", "huber", "soft_margin")


def check_loss(loss: str, options: Mapping[str, Any] | None = None) -> None:
    """Raise ValueError unless `loss` names a loss op, and TypeError or ValueError for options that it does not take."""
    if loss not in LOSSES:
        raise ValueError(f"loss {loss!r} is not known; choose from {', '.join(LOSSES)}")
    if not options:
        return
    forward = backend.module("reference", loss).forward  # type: ignore[union-attr]
    known = [p.name for p in inspect.signature(forward).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise TypeError(f"{loss}: option {name!r} is not known; choose from {', '.join(known)}")
    forward(np.zeros((1, 2)), np.zeros(1, int), **options)  # which looks at their values


def forward_backward(model: Sequential, x: Array, labels: Array, context: Context, loss: str,
                     loss_options: Mapping[str, Any], parts: int = 1, scale: float | Array = 1.0
                     ) -> tuple[Array, Array]:
    """Run the model and the loss forward, then backward into the model's gradients. Return (loss, logits).

    The loss takes logits in the type of the parameters: 16 bits would leave three digits of it. The gradients, not the
    loss that is returned, are `scale` times those of the loss; an array () of that type is read where the model is.

    With `parts` > 1 the batch goes through in that many pieces, whose gradients add up to the batch's (but for batch
    normalisation, which then sees the pieces): less memory for the same step. Raises ValueError for more parts than
    samples.
    """
    store = model.store
    if not 1 <= parts <= max(1, len(x)):
        raise ValueError(f"a batch of {len(x)} cannot be divided into {parts} parts")
    with single_threaded_blas():
        if loss == "softmax_cross_entropy" and parts == 1 and isinstance(scale, float) and scale == 1 and (
                done := model.whole_step(x, labels, context, loss_options)):
            return done
        ends = [len(x) * i // parts for i in range(parts + 1)]
        total, logits = 0.0, []
        store.start_gradients()
        for start, stop in itertools.pairwise(ends):
            here = context if parts == 1 else replace(context, samples=_part(context.samples, start, stop))
            share = (stop - start) / len(x) if parts > 1 else 1.0
            value, wide = _there_and_back(model, x[start:stop], labels[start:stop], here, loss, loss_options,
                                          scale if parts == 1 else scale * share)
            total = value if parts == 1 else total + share * value
            logits.append(wide)
    store.finish_gradients()
    return total, logits[0] if parts == 1 else array_module(wide).concatenate(logits)


def _there_and_back(model: Sequential, x: Array, labels: Array, context: Context, loss: str,
                    options: Mapping[str, Any], dy: float | Array) -> tuple[Array, Array]:
    """(loss, logits) of one pass forward and back, where the gradients that are added up are dy times the loss's."""
    head = None
    if loss == "softmax_cross_entropy":
        y, back, head = model.before_loss(x, context)
    else:
        y, back = model(x, context)
    if head is not None:
        if done := head.with_loss(y, labels, dy, options):
            value, logits, slope = done
            back(slope, False)
            return value, logits
        y, back = head.behind(y, back, context)
    wide = y if y.dtype == model.store.dtype else backend.keep_books("cast", y, dtype=model.store.dtype)
    value, loss_back = backend.run(loss, wide, labels, **options)
    slope = loss_back(dy, (True, False))[0]
    back(slope if slope.dtype == y.dtype else backend.keep_books("cast", slope, dtype=y.dtype), False)
    return value, wide


def _part(samples: Array | None, start: int, stop: int) -> Array | None:
    return None if samples is None else samples[start:stop]


def loss_and_gradients(model: Sequential, x: Array, labels: Array, *, loss: str = "softmax_cross_entropy",
                       loss_options: Mapping[str, Any] | None = None) -> tuple[Array, dict[str, Array]]:
    """The mean loss of a batch in training mode (no penalty) and {name: gradient}, as copies. Changes nothing.

    x is floating, (N, H, W, C) or (N, D); labels are (N,) integers; both may be any library's that has `__dlpack__`.
    The results are NumPy's, or CuPy's where x is. Raises TypeError or ValueError otherwise.
    """
    check_loss(loss, loss_options)
    given = x
    x, labels = model.prepare(x), model.accept("labels", labels)
    model.require_fit(x)
    store = model.store
    kept = store.gradient.copy()
    context = Context(training=True, seed=model.seed, samples=array_module(x).arange(len(x)), update_statistics=False)
    value, _ = forward_backward(model, x, labels, context, loss, loss_options or {})
    gradients = {name: model.answer(gradient.copy(), given) for name, gradient in model.gradients().items()}
    store.gradient[...] = kept
    return model.answer(value, given), gradients
