"""Loss and accuracy of a model on a split, in inference mode."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastnet import backend
from fastnet.arrays import to_numpy
from fastnet.data import Batches, Split, Standardization
from fastnet.nn.losses import check_loss
from fastnet.nn.sequential import PREDICT_BATCH, Sequential


class Evaluation(NamedTuple):
    """Mean loss, accuracy as a fraction, and the predicted class of every image in the split's order (N,)."""

    loss: float
    accuracy: float
    predictions: np.ndarray


def evaluate(model: Sequential, split: Split, standardization: Standardization, *,
             loss: str = "softmax_cross_entropy", loss_options: Mapping[str, Any] | None = None) -> Evaluation:
    """Evaluate on all images of a split. Raises ValueError for an empty split or an unknown loss."""
    check_loss(loss, loss_options)
    if len(split) == 0:
        raise ValueError("evaluate: the split holds no images")
    batches = Batches(split, standardization, min(PREDICT_BATCH, len(split)), shuffle=False, dtype=model.dtype,
                      device=model.device)
    total = 0.0
    predictions = []
    for x, labels, _ in batches.epoch(0):
        logits = model.predict(x)
        value, _ = backend.run(loss, logits, labels, **(loss_options or {}))
        total += float(value) * len(labels)
        predictions.append(to_numpy(logits.argmax(axis=1)))
    predicted = np.concatenate(predictions)
    return Evaluation(total / len(split), float((predicted == split.labels).mean()), predicted)
