"""Whole training steps and inference, beside PyTorch: first they agree, then they are timed in turn.

    fastnet bench [NAME ...] [--batch-size N ...] [--inference] [--threads N] [--seconds S] [--json FILE]

Every workload is a model of the table in float32 with SGD and momentum on random images. Before it is timed, its loss
and all gradients are compared with PyTorch's on a small batch in float64. PyTorch's columns are its best float32 time
(contiguous or channels last) and bf16 autocast, which computes with less precision.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

import fastnet as fn
from fastnet.bench import peer
from fastnet.bench.timer import Timing, alternate
from fastnet.nn.models import entry
from fastnet.nn.summary import align, summarize

WORKLOADS = {"mlp3": 100, "mlp3-bn": 100, "mlp9-bn": 100, "lenet5": 128, "vgg-a-bn": 128, "resnet18": 128,
             "resnet34": 128, "resnet18-dw": 128}  # name: batch size
AGREEMENT = 1e-8  # of the largest entry of each gradient, in float64
AGREEMENT_BATCH = 8


class Result(NamedTuple):
    """One workload: seconds by rival, floating-point operations of ours, and how far the gradients are apart."""

    name: str
    batch_size: int
    timings: dict[str, Timing]
    operations: int
    disagreement: float | None

    @property
    def ours(self) -> float:
        return self.timings["fastnet"].median

    def ratio(self, *variants: str) -> float:
        """PyTorch's best time among these variants over ours; NaN where none was timed."""
        return min((self.timings[v].median for v in variants if v in self.timings), default=math.nan) / self.ours


def disagreement(name: str, seed: int = 0, **options: Any) -> float:
    """The largest relative difference of the loss and of any gradient from PyTorch's, in float64."""
    import torch

    model = fn.build(name, dtype="float64", **options)
    x, labels = batch(name, AGREEMENT_BATCH, np.float64, seed, options)
    twin = peer.twin(model, x.shape[1:])
    inputs = torch.from_numpy(x)
    loss = torch.nn.functional.cross_entropy(twin(inputs.permute(0, 3, 1, 2) if x.ndim == 4 else inputs),
                                             torch.from_numpy(labels))
    loss.backward()
    value, ours = fn.loss_and_gradients(model, x, labels)
    theirs = peer.gradients(model, twin, x.shape[1:])
    worst = abs(float(value) / loss.item() - 1)
    for key, gradient in ours.items():
        size = float(np.abs(gradient).max())
        if size > 1e-10:  # a bias before batch normalisation has a gradient of rounding errors alone
            worst = max(worst, float(np.abs(gradient - theirs[key]).max()) / size)
    return worst


def measure(name: str, batch_size: int, *, inference: bool = False, torch: bool = True, seconds: float = 2.0,
            **options: Any) -> Result:
    """Time one workload. Raises AssertionError where the two libraries do not compute the same."""
    apart = None
    if torch:
        apart = disagreement(name, **options)
        if not apart <= AGREEMENT:
            raise AssertionError(f"{name}: the gradients differ from PyTorch's by {apart:.1e} of the largest entry")
    model = fn.build(name, **options)
    x, labels = batch(name, batch_size, np.float32, 0, options)
    rivals: dict[str, Callable[[], object]] = {}
    if inference:
        rivals["fastnet"] = lambda: model.predict(x)
    else:
        ours = fn.TrainStep(model, fn.SGD(lr=1e-3, momentum=0.9))
        rivals["fastnet"] = lambda: ours(x, labels)
    if torch:
        for variant in peer.VARIANTS if x.ndim == 4 else ("eager", "bf16"):
            twin = peer.twin(model, x.shape[1:])
            rivals[variant] = peer.inference(twin, variant, x) if inference else peer.step(twin, variant, x, labels)
    rows = summarize(model, x.shape[1:])
    products = sum(row.macs_forward + (0 if inference else row.macs_backward) for row in rows)
    return Result(name + " inference" * inference, batch_size, alternate(rivals, seconds), 2 * batch_size * products,
                  apart)


def table(results: Iterable[Result], ceiling: float) -> str:
    """The results as text; `ceiling` is the machine's measured rate of a matrix product, in operations a second."""
    rows = [("workload", "batch", "ours, ms", "spread", "PyTorch float32, ms", "ratio", "bf16, ms", "ratio",
             "GFLOP/s", "of GEMM")]
    for r in results:
        ours, best = r.timings["fastnet"], r.ratio("eager", "channels_last")
        spread = (ours.high - ours.low) / ours.median
        rows.append((r.name, str(r.batch_size), f"{1e3 * ours.median:.2f}", f"{spread:.0%}",
                     _number(1e3 * best * r.ours), _number(best), _number(1e3 * r.ratio("bf16") * r.ours),
                     _number(r.ratio("bf16")), f"{r.operations / r.ours / 1e9:.0f}",
                     f"{r.operations / r.ours / ceiling:.0%}"))
    return align(rows, right=tuple(range(1, 10)))


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def batch(name: str, size: int, dtype: Any, seed: int, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = options.get("input_shape", entry(name).input_shape)
    x = rng.standard_normal((size, math.prod(shape)) if name.startswith("mlp") else (size, *shape)).astype(dtype)
    return x, rng.integers(0, 10, size)
