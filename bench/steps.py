"""Whole training steps, inference and epochs, beside PyTorch: first they agree, then they are timed in turn.

Every workload is a model of the table in float32, with SGD and momentum, on random images. Before it is timed, its loss
and all gradients are compared with PyTorch's on a small batch in float64.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.bench import epoch
from fastnet.bench.result import Result
from fastnet.bench.workload import Workload
from fastnet.nn.sequential import Sequential
from fastnet.timer import alternate

WORKLOADS = {"mlp3": 100, "mlp3-bn": 100, "mlp9-bn": 100, "lenet5": 128, "vgg-a-bn": 128, "resnet18": 128,
             "resnet34": 128, "resnet18-dw": 128}  # name: batch size
AGREEMENT = 1e-8  # of the largest entry of each gradient, in float64
AGREEMENT_BATCH = 8


def disagreement(workload: Workload) -> float:
    """The largest relative difference of the loss and of any gradient from PyTorch's, in float64."""
    import torch

    from fastnet.bench import peer

    model = workload.build("float64")
    x, labels = workload.batch(AGREEMENT_BATCH, np.float64)
    twin, inputs = peer.prepared(peer.twin(model, x.shape[1:]), "eager", x)
    loss = torch.nn.functional.cross_entropy(twin(inputs), torch.from_numpy(labels))
    loss.backward()
    value, ours = fn.loss_and_gradients(model, x, labels)
    theirs = peer.gradients(model, twin, x.shape[1:])
    worst = abs(float(value) / loss.item() - 1)
    for key, gradient in ours.items():
        size = float(np.abs(gradient).max())
        if size > 1e-10:  # a bias before batch normalisation has a gradient of rounding errors alone
            worst = max(worst, float(np.abs(gradient - theirs[key]).max()) / size)
    return worst


def measure(workload: Workload, *, torch: bool = True, seconds: float = 2.0, least: int = 5) -> Result:
    """Time one workload. Raises AssertionError where the two libraries do not compute the same."""
    apart = None
    if torch:
        apart = disagreement(workload)
        if not apart <= AGREEMENT:
            raise AssertionError(f"{workload.label}: the gradients differ from PyTorch's by {apart:.1e} of the largest "
                                 "entry")
    timings = alternate(rivals(workload, torch), seconds, least)
    return Result(workload.label, workload.batch_size, timings, workload.operations, apart)


def rivals(workload: Workload, torch: bool) -> dict[str, Callable[[], object]]:
    """{name: what is timed}: `fastnet`, PyTorch's variants and, for an epoch, the making of our batches alone."""
    if workload.kind == "epoch":
        return epoch.rivals(workload, torch)
    x, labels = workload.batch()
    theirs: dict[str, Callable[[], object]] = {}
    if torch:
        from fastnet.bench import peer

        model = workload.build()
        for variant in peer.variants(not workload.flat):
            theirs[variant] = theirs_on(peer.twin(model, x.shape[1:]), variant, workload.kind, x, labels)
    return {"fastnet": ours_on(workload.build(), workload.kind, x, labels), **theirs}


def ours_on(model: Sequential, kind: str, x: np.ndarray, labels: np.ndarray) -> Callable[[], object]:
    """A training step of the model on one batch, or inference."""
    if kind == "inference":
        return partial(model.predict, x)
    return partial(fn.TrainStep(model, fn.SGD(lr=1e-3, momentum=0.9)), x, labels)


def theirs_on(module: Any, variant: str, kind: str, x: np.ndarray, labels: np.ndarray) -> Callable[[], object]:
    """The same of PyTorch's module."""
    import torch

    from fastnet.bench import peer

    module, inputs = peer.prepared(module, variant, x)
    if kind == "inference":
        return partial(peer.inference(module, variant), inputs)
    return partial(peer.step(module, variant), inputs, torch.from_numpy(labels))
