"""Checks the running averages of batch normalisation, which no gradient shows."""

from dataclasses import replace

import numpy as np

from fastnet.arrays import Array, array_module, to_numpy
from fastnet.check.errors import GradientError, relative_error
from fastnet.check.op import ArgumentRow, OpReport
from fastnet.nn.layer import Context, Layer
from fastnet.nn.layers import BatchNorm
from fastnet.nn.sequential import Sequential, named_layers

BOUND = 1e-5  # of the largest entry: statistics are kept in float32


def check_statistics(model: Sequential, x: Array, *, seed: int = 0, raises: bool = True) -> OpReport:
    """Check what every BatchNorm of `model` normalises by and keeps, on a batch, in float64.

    In training y = gamma (x - mean) / sqrt(var + eps) + beta with the batch's statistics, and running = stat_decay
    running + (1 - stat_decay) batch, the variance times M/(M-1) where the layer says so. In inference the running ones
    are used, and nothing changes them. The model is not changed. Raises GradientError, or puts it into the report;
    ValueError for a model without batch normalisation.
    """
    precise = model.copy("float64")
    layers = {layer: path for path, layer in named_layers(precise) if isinstance(layer, BatchNorm)}
    if not layers:
        raise ValueError("check_statistics: the model has no batch normalisation")
    x = precise.prepare(x)
    report = OpReport(model.model_name or "model", "default", f"running statistics, batch {len(x)}", batch=len(x))
    rng = np.random.default_rng(seed)
    for layer in layers:  # away from 0 and 1, which hide mistakes
        for kept in layer.statistics_here.values():
            kept[...] = array_module(kept).asarray(rng.uniform(0.5, 1.5, kept.shape).astype(np.float32))
    seen: dict[Layer, tuple[np.ndarray, np.ndarray]] = {}

    def tap(layer: Layer, x: Array, y: Array) -> None:
        if layer in layers:
            seen[layer] = to_numpy(x).reshape(-1, x.shape[-1]), to_numpy(y).reshape(-1, x.shape[-1])

    context = Context(training=True, seed=seed, samples=array_module(x).arange(len(x)), tap=tap)
    for passing in (context, replace(context, training=False, update_statistics=True),
                    replace(context, update_statistics=False)):
        before = {layer: _kept(layer) for layer in layers}
        precise(x, passing)
        for layer, path in layers.items():
            _compare(report, layer, path, *seen[layer], before[layer], passing)
    if raises and report.failures:
        raise GradientError(report.text)
    return report


def _kept(layer):
    return [to_numpy(s).astype(np.float64) for s in layer.statistics_here.values()]


def _compare(report, layer, path, x, y, before, context):
    gamma, beta = (to_numpy(layer.parameters_here[name].value) for name in ("gamma", "beta"))
    mean, var = (x.mean(axis=0), x.var(axis=0)) if context.training else before
    mode = "training" if context.training else "inference"
    _entry(report, f"{path}: y in {mode}", y, gamma * (x - mean) / np.sqrt(var + layer.eps) + beta)
    if context.training and context.update_statistics:
        batch = mean, var * (len(x) / (len(x) - 1) if layer.unbiased and len(x) > 1 else 1)
        decay = layer.stat_decay
        expected = [decay * old + (1 - decay) * new for old, new in zip(before, batch, strict=True)]
    else:
        expected, mode = before, mode + " without updates"
    for name, found, right in zip(layer.statistics_here, _kept(layer), expected, strict=True):
        _entry(report, f"{path}: {name} after {mode}", found, right)


def _entry(report, what, found, expected):
    error = relative_error(found, expected)
    report.rows.append(ArgumentRow(what, differences=error, entries=found.size, size=found.size, seen=found.size))
    if not error <= BOUND:
        report.failures.append(f"{report.op}: {what} is wrong (error {error:.1e} of the largest, bound {BOUND:.0e})")
