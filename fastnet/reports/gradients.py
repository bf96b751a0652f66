"""The gradient checks of R1 and R2 as those reports ran them, and ours beside them. All in float64, on the reference.

R1    (f(w + h e_j) - f(w - h e_j)) / 2h of the cost, entry by entry, on 10 images; mean absolute error of each array
R2    the same with h = 1e-5 of <u, logits>, u a random array, for a net with 10 inputs and 2 images; largest relative
      error, by the course's formula |a - n| / max(eps, |a| + |n|) and by CS231n's |a - n| / max(|a|, |n|); and
      NumPy's assert_array_almost_equal, |a - n| < 1.5e-6
ours  `fastnet.check.check_model`: 8 images, differences and the complex step, the largest error over the largest entry
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.arrays import Array, single_threaded_blas
from fastnet.check.models import check_model
from fastnet.data import Standardization, load
from fastnet.nn.layer import Backward, Context, Layer
from fastnet.nn.layers import BatchNorm, ReLU
from fastnet.nn.losses import loss_and_gradients
from fastnet.nn.models import build, mlp
from fastnet.nn.sequential import Sequential
from fastnet.reports.training import Place

H = 1e-5
COURSE_EPS = 1e-8
SIX_DECIMALS = 1.5e-6  # what numpy.testing.assert_array_almost_equal admits
TRAINING = Context(training=True, update_statistics=False)


def mean_absolute(folder: Path, place: Place, *, data: str, entries: int | None, l2: float,
                  seed: int = 0) -> dict[str, dict[str, float]]:
    """R1's check of the two-layer net: for each array entries compared, mean absolute and largest relative error.

    `entries`: so many of each array, drawn at random; None: all. The cost is the loss and l2 sum W^2.
    """
    x, labels = _images(data, place, 10)
    model = build("mlp2", seed=seed, dtype="float64", inputs=x.shape[1])
    weights = {name: w for name, w in model.parameters().items() if name.endswith(".w")}
    found: dict[str, dict[str, float]] = {}
    with backend.use("reference"), single_threaded_blas():
        _, gradients = loss_and_gradients(model, x, labels)
        cost = sum(l2 * float(np.vdot(w, w)) for w in weights.values())

        def moved(name: str, w: Array, j: int, by: float) -> float:
            at = w.flat[j]
            w.flat[j] = at + by
            logits, _ = model(x, TRAINING)
            value = float(backend.run("softmax_cross_entropy", logits, labels)[0])
            # The sum over all weights again would take longer than the network: one of them has changed.
            value += cost + (l2 * (w.flat[j] ** 2 - at**2) if name in weights else 0.0)
            w.flat[j] = at
            return value

        for name, w in model.parameters().items():
            analytic = gradients[name] + (2 * l2 * w if name in weights else 0.0)
            at = np.arange(w.size)
            if entries is not None and entries < w.size:
                at = np.sort(np.random.default_rng(seed).choice(w.size, entries, replace=False))
            numeric = np.array([(moved(name, w, j, H) - moved(name, w, j, -H)) / (2 * H) for j in at])
            error = np.abs(analytic.flat[at] - numeric)
            found[name] = {"entries": len(at), "mean": float(error.mean()),
                           "relative": float(error.max() / np.abs(analytic).max())}
    return found


def upstream(folder: Path, place: Place, *, data: str, hidden: list[int], batch_norm: bool, images: int,
             wrong: bool = False, seed: int = 0) -> dict[str, float | bool]:
    """R2's check of one net with 10 inputs; and what ours says of the same net on 8 images.

    With `wrong` the lowest batch norm hands back its gradient with the sign changed. Returns the largest errors over
    all parameters, by all measures, the largest gradient that the lowest layer's weights have, and both verdicts.
    Entries for which a ReLU is open on one side of the point only have no difference to compare with: they are counted.
    """
    x, labels = _images(data, place, max(images, 8), 10)
    model = _net(hidden, batch_norm, wrong, seed)
    upper = np.random.default_rng(seed).normal(size=(images, 10))
    opened: list[bytes] = []

    def tap(layer: Layer, x: Array, y: Array) -> None:
        if isinstance(layer, ReLU):
            opened.append((x > 0).tobytes())

    watching, crossed = replace(TRAINING, tap=tap), 0
    with backend.use("reference"), single_threaded_blas():
        model.store.start_gradients()
        _, back = model(x[:images], TRAINING)
        back(upper, False)
        model.store.finish_gradients()
        pairs = []
        for name, w in model.parameters().items():
            numeric = np.empty(w.shape)
            for j in np.ndindex(w.shape):
                at, sides = w[j], []
                for by in (H, -H):
                    w[j] = at + by
                    opened.clear()
                    sides.append((model(x[:images], watching)[0], tuple(opened)))
                w[j] = at
                (above, right), (below, left) = sides
                numeric[j] = np.vdot(upper, above - below) / (2 * H)
                if right != left:
                    numeric[j] = model.gradients()[name][j]
                    crossed += 1
            pairs.append((model.gradients()[name].copy(), numeric))
        report = check_model(model, x[:8], labels[:8], seed=seed, raises=False)
    sizes = [(np.abs(a - n), np.abs(a), np.abs(n)) for a, n in pairs]
    tiny = np.finfo(float).tiny
    absolute = max(float(d.max()) for d, _, _ in sizes)
    return {"crossed": crossed, "course": max(float((d / np.maximum(COURSE_EPS, a + n)).max()) for d, a, n in sizes),
            "cs231n": max(float((d / np.maximum(tiny, np.maximum(a, n))).max()) for d, a, n in sizes),
            "absolute": absolute, "six_decimals": absolute < SIX_DECIMALS, "lowest": float(np.abs(pairs[0][0]).max()),
            "differences": max(row.differences or 0.0 for row in report.rows),
            "complex_step": max(row.complex_step or 0.0 for row in report.rows), "passed": report.passed}


class SignError(BatchNorm):
    """Batch norm that hands back -dx: a mistake, to see what a check makes of it."""

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        y, back = super().__call__(x, context)

        def wrong(dy: Array, needs_dx: bool = True) -> Array | None:
            dx = back(dy, needs_dx)
            return None if dx is None else -dx

        return y, wrong


def _net(hidden: list[int], batch_norm: bool, wrong: bool, seed: int) -> Sequential:
    layers = mlp(hidden=tuple(hidden), inputs=10, batch_norm=batch_norm)
    if wrong:
        layers[1] = SignError(hidden[0])
    return Sequential(layers, seed=seed, dtype="float64")


def _images(name: str, place: Place, count: int, inputs: int | None = None) -> tuple[Array, Array]:
    """The first `count` training images, standardised per pixel, as (count, inputs) float64; and their labels."""
    train = load(name, place.data_dir, order="file").train
    standardization = Standardization.fit(train.images, "pixel")
    x: Any = standardization.apply(train.images[:count], "float64").reshape(count, -1)
    return np.ascontiguousarray(x[:, :inputs]), train.labels[:count]
