"""The loss of a network that has not been trained: E38 of report R4.

Where the logits z do not know the label, a uniformly drawn label costs on average log sum exp z - mean z, which is ln K
for equal logits and more for any others: about ln K + s^2/2 for logits of variance s^2 over the classes.
"""

import math
from pathlib import Path

import numpy as np

from fastnet import backend
from fastnet.arrays import array_module, single_threaded_blas, to_numpy
from fastnet.data import Standardization
from fastnet.nn.layer import Context
from fastnet.nn.models import build, fitting
from fastnet.reports import verdicts
from fastnet.reports.experiment import Results, Row, claim_row, not_run
from fastnet.reports.task import Task
from fastnet.reports.training import Place, Training

IMAGES = 1000
TOLERANCE = 0.05  # "about 2.30"


def losses(folder: Path, place: Place, *, model: str, init: str, seeds: list[int], split: str, data: str,
           classes: int = 10) -> dict[str, list[float]]:
    """Cross-entropy of validation images in training mode and its expectation for random labels, for every seed."""
    found: dict[str, list[float]] = {"loss": [], "expected": []}
    for seed in seeds:
        images = Training(model, data=data, split=split, seed=seed).dataset(place)
        chosen = slice(None, min(IMAGES, len(images.validation)))
        shape = images.train.images.shape[1:]
        net = build(model, seed=seed, device=place.device, **{"init": init, **fitting(model, shape, classes)})
        standardization = Standardization.fit(images.train.images, "channel")
        x = net.prepare(standardization.apply(images.validation.images[chosen], net.dtype))
        labels = net.accept("labels", images.validation.labels[chosen])
        context = Context(training=True, seed=seed, samples=array_module(x).arange(len(x)), update_statistics=False)
        with single_threaded_blas():
            logits, _ = net(x, context)
            value, _ = backend.run("softmax_cross_entropy", logits, labels)
        z = to_numpy(logits).astype(np.float64)
        top = z.max(1, keepdims=True)
        expected = top[:, 0] + np.log(np.exp(z - top).sum(1)) - z.mean(1)
        found["loss"].append(float(value))
        found["expected"].append(float(expected.mean()))
    return found


def row(results: Results, task: Task, published: bool, model: str, init: str) -> Row:
    """A line of the table."""
    label, measured, said = f"{model}, {init}", "loss (nats)", "2.30" if published else ""
    found = results.answer(task)
    if found is None:
        return not_run(label, measured, said, results.failure(task))
    mean = float(np.mean(found["loss"]))
    near = abs(mean - math.log(10)) <= TOLERANCE
    verdict = verdicts.NO_CLAIM if not published else verdicts.AGREES if near else verdicts.DIFFERS
    return claim_row(label, measured, said, f"{mean:.3f}", verdict, results,
                     f"expected of such logits {np.mean(found['expected']):.3f}; ln 10 = {math.log(10):.3f}",
                     f"about: within {TOLERANCE:g}" if published else "")
