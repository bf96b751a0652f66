"""`check_model`: proves every parameter gradient of a whole model, from the loss back to the first layer.

The complex step is the proof: it is exact, and its branches follow the real part, so that no kink is crossed.
Centered differences confirm it with the model's own forward pass. There a coordinate counts only if every ReLU mask
and every winner of a max pool is the same on both sides of the point, at h or, failing that, at h/8; those that crossed
are counted, and more than 2 % of them fail the check.

    dL/dw_j ~ (L(w + h e_j) - L(w - h e_j)) / 2h         h = eps^(1/3) max(1, |w_j|) = 6e-6 in float64

Two points with a small step, where ops are checked with four and a larger one: each crosses a kink in proportion to
its step. The loss is taken in extended precision from the float64 logits, or its rounding alone (2.3 +- 2e-16, over
h) would hide the small gradients of a deep network.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.arrays import Array, array_module, move, single_threaded_blas, to_numpy
from fastnet.check import autopsy
from fastnet.check.complex_step import H
from fastnet.check.errors import GradientError
from fastnet.check.evidence import Evidence, signed
from fastnet.check.op import LEAST_BATCH, OpReport, compare, corrupt
from fastnet.nn.layer import Context, Layer, run
from fastnet.nn.layers import ELU, BatchNorm, LeakyReLU, ReLU
from fastnet.nn.losses import forward_backward
from fastnet.nn.pooling import MaxPool2d
from fastnet.nn.sequential import Sequential, named_layers

ENTRIES = 2000
NEARER = 8  # how much nearer two points are tried where a kink lies between the first two
MOST_CROSSED = 0.02
SCALE = 10.0  # what 'zero but for rounding' is measured by: rounding grows on its way through the layers


def _positive(layer: Layer, x: Array) -> Array:
    return x > 0


def _winners(layer: Layer, x: Array) -> Array:
    """Which tap of each window has the largest entry, by the reference, whatever ran the layer."""
    pool = backend.module("reference", "max_pool2d")
    return pool.forward(x, **layer.options())[1][0]  # type: ignore[union-attr]


KINKED: dict[type[Layer], Callable[[Layer, Array], Array]] = {
    # What says on which side of its kinks a layer's input lies.
    ReLU: _positive, LeakyReLU: _positive, ELU: _positive, MaxPool2d: _winners}


class _Tail:
    """The model from each of its stages on, and the loss: a parameter moves nothing that comes before its stage."""

    def __init__(self, model: Sequential, x: Array, labels: Array, loss: str, options: Mapping[str, Any],
                 seed: int) -> None:
        self.model, self.labels, self.loss, self.options = model, labels, loss, options
        self.exact = x.dtype.kind == "c"
        self.stages = list(_stages(model))
        self.sides: list[Array] = []
        self.context = Context(training=True, seed=seed, samples=array_module(x).arange(len(x)),
                               update_statistics=False,
                               tap=None if self.exact else self._tap)  # the complex step crosses no kinks
        self.inputs = [x]
        for stage in self.stages[:-1]:
            self.inputs.append(run(stage, self.inputs[-1], self.context)[0])

    def _tap(self, layer: Layer, x: Array, y: Array) -> None:
        for kind, side in KINKED.items():
            if isinstance(layer, kind):
                self.sides.append(side(layer, x))

    def __call__(self, start: int) -> tuple[Any, list[Array]]:
        """(loss, sides of the kinks) from stage number `start` on."""
        self.sides = []
        x = self.inputs[start]
        for stage in self.stages[start:]:
            x, _ = run(stage, x, self.context)
        if self.exact:
            return backend.run(self.loss, x, self.labels, **self.options)[0], self.sides
        wide = to_numpy(x).astype(np.longdouble)  # which no GPU has
        return backend.run(self.loss, wide, to_numpy(self.labels), **self.options)[0], self.sides


def check_model(model: Sequential, x: Array, labels: Array, *, loss: str = "softmax_cross_entropy",
                loss_options: Mapping[str, Any] | None = None, entries: int = ENTRIES, seed: int = 0,
                raises: bool = True, allow_small_batch: bool = False) -> OpReport:
    """Check all parameter gradients of `model` on a batch, in training mode and float64.

    x is (N, H, W, C) or (N, D), labels (N,) integers. Up to `entries` coordinates of each parameter are differentiated
    one by one; the adjoint test covers the others. The model is not changed.
    Raises GradientError with all that is wrong, or puts it into the report with `raises=False`; ValueError for fewer
    than 5 samples under batch normalisation, where gradients vanish, unless `allow_small_batch`.
    """
    normed = any(isinstance(layer, BatchNorm) for layer in model.walk())
    if len(x) < LEAST_BATCH and not allow_small_batch and normed:
        raise ValueError(f"check_model: a check under batch normalisation needs at least {LEAST_BATCH} samples, but x "
                         f"has {len(x)}: with so few the gradient below it is nearly zero whatever it should be "
                         "(allow_small_batch=True checks all the same)")
    options = loss_options or {}
    rng = np.random.default_rng(seed)
    precise = model.copy("float64")
    x, labels = precise.prepare(x), precise.accept("labels", labels)
    samples = array_module(x).arange(len(x))
    report = OpReport(model.model_name or "model", "default", f"batch {len(x)}", batch=len(x) if normed else None)
    with single_threaded_blas():
        real = _Tail(precise, x, labels, loss, options, seed)
        forward_backward(precise, x, labels, Context(training=True, seed=seed, samples=samples,
                                                     update_statistics=False), loss, options)
        found = {name: to_numpy(gradient.copy()) for name, gradient in precise.gradients().items()}
        twin = model.copy("complex128")
        exact = _Tail(twin, x.astype(np.complex128), labels, loss, options, seed)
        places = _places(precise)
        evidence, crossed = {}, 0
        for name in found:
            evidence[name], skipped = _gather(name, places[name], real, exact, entries, rng)
            crossed += skipped
        report.rows = [compare(report, name, found[name], e) for name, e in evidence.items()]
        report.autopsy = [autopsy.of_evidence(name, found[name], e, len(x)) for name, e in evidence.items()
                          if e.wrong(found[name])]
        total = sum(row.size for row in report.rows)
        report.notes.append(f"above the noise: {sum(row.seen for row in report.rows):,} of {total:,} parameters")
        looked = crossed + sum(len(e.coordinates) for e in evidence.values())
        report.notes.append(f"crossed a kink: {crossed} of {looked}")
        if crossed > MOST_CROSSED * looked:
            report.failures.append(f"{report.op}: {crossed} of {looked} coordinates crossed a kink, more than "
                                   f"{MOST_CROSSED:.0%}: too few were compared")
        if all(row.zero for row in report.rows):
            report.failures.append(f"{report.op}: every gradient is zero, so the check saw nothing")
        if zero := [row.name for row in report.rows if row.zero]:
            report.notes.append(f"zero by algebra: {', '.join(zero)}")

        def without_sample(n: int) -> dict[str, np.ndarray]:
            return _gradients_without(precise, x, labels, loss, options, seed, n)

        corrupt(report, found, evidence, len(x), without_sample, SCALE, seed)
    if raises and report.failures:
        raise GradientError(report.text)
    return report


def _stages(model: Sequential) -> Iterator[Layer]:
    """The layers that x goes through one after the other, those of nested containers that are mere chains too."""
    for layer in model.layers:
        if isinstance(layer, Sequential) and type(layer).__call__ is Sequential.__call__:
            yield from _stages(layer)
        else:
            yield layer


def _places(model: Sequential) -> dict[str, int]:
    """{parameter name: number of the stage that it is in}."""
    stage = {id(inner): i for i, layer in enumerate(_stages(model)) for inner in layer.walk()}
    return {f"{path}.{key}": stage[id(layer)] for path, layer in named_layers(model) for key in layer.parameters_here}


def _gather(name: str, place: int, real: _Tail, exact: _Tail, entries: int,
            rng: np.random.Generator) -> tuple[Evidence, int]:
    w, z = real.model.parameters()[name], exact.model.parameters()[name]
    coordinates: list[int] = []
    slopes, steps, crossed = [], [], 0
    for j in rng.permutation(w.size):
        if len(coordinates) == entries:
            break
        slope = _difference(w.reshape(-1), int(j), place, real)
        if slope is None:
            crossed += 1
            continue
        z.reshape(-1)[j] += 1j * H
        steps.append(float(exact(place)[0].imag) / H)
        z.reshape(-1)[j] = w.reshape(-1)[j]
        coordinates.append(int(j))
        slopes.append(slope)
    direction = signed(rng, w.shape)
    z += 1j * H * move(direction, array_module(z))
    derivative = float(exact(place)[0].imag) / H
    z[...] = w
    return Evidence(np.array(coordinates, dtype=int), np.array(slopes), np.array(steps), direction, derivative, 8,
                    SCALE), crossed


def _difference(w: Array, j: int, place: int, real: _Tail) -> float | None:
    """The centered difference in entry j of the flat view w, or None where a kink lies between its two points."""
    at = float(w[j])
    h = float(np.finfo(w.dtype).eps) ** (1 / 3) * max(1.0, abs(at))
    for step in (h, h / NEARER):
        try:
            w[j] = at + step
            above, right = real(place)
            width = float(w[j])  # where an entry is a view, the next line would change it
            w[j] = at - step
            below, left = real(place)
            width -= float(w[j])
        finally:
            w[j] = at
        if all(bool((a == b).all()) for a, b in zip(right, left, strict=True)):
            return float((above - below) / width)
    return None


def _gradients_without(model: Sequential, x: Array, labels: Array, loss: str, options: Mapping[str, Any], seed: int,
                       n: int) -> dict[str, np.ndarray]:
    """The parameter gradients when sample n's row of dlogits is lost."""
    samples = array_module(x).arange(len(x))
    logits, back = model(x, Context(training=True, seed=seed, samples=samples, update_statistics=False))
    _, loss_back = backend.run(loss, logits, labels, **options)
    dlogits = loss_back(1.0)[0].copy()
    dlogits[n] = 0
    model.store.start_gradients()
    back(dlogits, False)
    model.store.finish_gradients()
    return {name: to_numpy(gradient.copy()) for name, gradient in model.gradients().items()}
