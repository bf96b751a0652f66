"""The loss ops a model can be trained with, and the one pass that training and checking share."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.arrays import Array, single_threaded_blas
from fastnet.nn.layer import Context
from fastnet.nn.sequential import Sequential

LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error", "huber", "soft_margin")


def check_loss(loss: str) -> None:
    """Raise ValueError unless `loss` names a loss op."""
    if loss not in LOSSES:
        raise ValueError(f"loss {loss!r} is not known; choose from {', '.join(LOSSES)}")


def forward_backward(model: Sequential, x: Array, labels: Array, context: Context, loss: str,
                     loss_options: Mapping[str, Any]) -> tuple[Array, Array]:
    """Run the model and the loss forward, then backward into the model's gradients. Return (loss, logits)."""
    store = model.store
    with single_threaded_blas():
        logits, back = model(x, context)
        value, loss_back = backend.run(loss, logits, labels, **loss_options)
        store.start_gradients()
        back(loss_back(1.0, (True, False))[0], False)
        store.finish_gradients()
    return value, logits


def loss_and_gradients(model: Sequential, x: Array, labels: Array, *, loss: str = "softmax_cross_entropy",
                       loss_options: Mapping[str, Any] | None = None) -> tuple[Array, dict[str, Array]]:
    """The mean loss of a batch in training mode (no penalty) and {name: gradient}, as copies. Changes nothing.

    x is floating, (N, H, W, C) or (N, D); labels are (N,) integers. Raises TypeError or ValueError otherwise.
    """
    check_loss(loss)
    x = model.prepare(x)
    store = model.store
    kept = store.gradient.copy()
    context = Context(training=True, seed=model.seed, samples=np.arange(len(x)), update_statistics=False)
    value, _ = forward_backward(model, x, labels, context, loss, loss_options or {})
    gradients = {name: gradient.copy() for name, gradient in model.gradients().items()}
    store.gradient[...] = kept
    return value, gradients
