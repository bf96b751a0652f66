"""The CUDA convolutions on the emulator: exact on small integers in every type, whichever way they take."""

import numpy as np
import pytest
from emulator import engine
from emulator.arrays import emulated

from fastnet import backend
from fastnet.kernels.cuda import _launch, conv2d

engine.install()
ml_dtypes = pytest.importorskip("ml_dtypes")
TYPES = {"float": np.float32, "double": np.float64, "half": np.float16, "bf16": ml_dtypes.bfloat16}
on_every_type = pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
REFERENCE = backend.module("reference", "conv2d")


def integers(shape, dtype, seed):
    return np.random.default_rng([seed, *shape]).integers(-2, 3, shape).astype(dtype)


def passes(module, x, w, b, dy, **options):
    y, cache = module.forward(x, w, b, **options)
    return [y, *module.backward(dy(y), cache)]


def assert_exact(x_shape, w_shape, dtype, **options):
    wide = _launch.accumulator(dtype)
    x, w, b = integers(x_shape, dtype, 0), integers(w_shape, wide, 1), integers(w_shape[3:], wide, 2)
    exact = passes(REFERENCE, *(a.astype(np.float64) for a in (x, w, b)),
                   lambda y: integers(y.shape, np.float64, 3), **options)
    ours = passes(conv2d, *map(emulated, (x, w, b)), lambda y: emulated(integers(y.shape, dtype, 3)), **options)
    for name, a, e in zip(("y", "dx", "dw", "db"), ours, exact, strict=True):
        stored = name in ("y", "dx")
        assert a.dtype == (x.dtype if stored else wide), name
        assert np.abs(e).max() < (256 if stored else 1 << 20), name  # whole numbers that the type holds
        np.testing.assert_array_equal(a.get().astype(np.float64), e, name)


SHAPES = [
    ((2, 7, 6, 5), (3, 3, 5, 17), {"pad": 1}),
    ((1, 9, 8, 18), (3, 2, 9, 34), {"stride": 2, "pad": (1, 2), "groups": 2}),
    ((3, 6, 7, 70), (1, 1, 70, 66), {"stride": (2, 1)}),
    ((2, 8, 7, 17), (2, 3, 17, 16), {"pad": 2, "dilation": (1, 2), "stride": (3, 1)}),
]


@pytest.mark.parametrize("few", [0, 1 << 30], ids=["tiles", "direct"])
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), SHAPES, ids=[str(row[1]) for row in SHAPES])
@on_every_type
def test_exact_on_integers(dtype, x_shape, w_shape, options, few, monkeypatch):
    """Tails of tiles, several groups, grids that go round, and sums over pixels in parts."""
    monkeypatch.setattr(conv2d, "FEW", few)
    monkeypatch.setattr(conv2d, "LEAST_CHUNK", 10)
    monkeypatch.setattr(_launch, "MOST_BLOCKS", 5)
    assert_exact(x_shape, w_shape, dtype, **options)
