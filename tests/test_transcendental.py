"""exp, tanh and their kin in compiled loops: against mpmath, at the ends of their ranges, in vectors and alone."""

import math
import warnings

import mpmath
import numpy as np
import pytest

pytest.importorskip("numba")

from fastnet import backend
from fastnet.kernels.cpu import _transcendental
from fastnet.kernels.cpu._jit import kernel

NAMES = ["exp", "expm1", "tanh", "log1p", "gauss", "mills"]
DTYPES = [np.float32, np.float64]


def _loop(function):
    @kernel()
    def run(x, y):
        for i in range(x.size):
            y[i] = function(x[i])

    return run


LOOPS = {name: _loop(getattr(_transcendental, name)) for name in NAMES}


def _mills(a):
    return mpmath.erfc(a / mpmath.sqrt(2)) / 2 * mpmath.exp(a * a / 2) * mpmath.sqrt(2 * mpmath.pi)


EXACT = {"exp": mpmath.exp, "expm1": mpmath.expm1, "tanh": mpmath.tanh, "log1p": mpmath.log1p,
         "gauss": lambda x: mpmath.exp(-x * x / 2), "mills": _mills}


def apply(name, x):
    y = np.empty_like(x)
    LOOPS[name](x, y)
    return y


def units(found, exact):
    """The largest error in units of the last place, of which those below the normal numbers have all the same."""
    dtype = found.dtype.type
    spacing = [mpmath.mpf(float(max(np.spacing(dtype(abs(e))), np.finfo(dtype).smallest_subnormal))) for e in exact]
    return float(max(abs(mpmath.mpf(float(y)) - e) / s for y, e, s in zip(found, exact, spacing, strict=True)))


def samples(low, high, dtype, count=1500):
    """Numbers all over a range, many of them small."""
    rng = np.random.default_rng(0)
    smallest = math.log10(np.finfo(dtype).smallest_subnormal)
    small = 10.0 ** rng.uniform(smallest, 0, count) * (1 if high > 0 else -1)
    return np.concatenate([rng.uniform(low, high, count), rng.uniform(max(low, -2), min(high, 2), count),
                           small]).astype(dtype)


@pytest.mark.parametrize(("name", "low", "high", "bound"), [
    ("exp", -104, 0, 1), ("expm1", -45, 0, 1.2), ("tanh", -20, 20, 2), ("log1p", 0, 1, 2), ("gauss", -14, 14, 1.3),
    ("mills", 0, 14, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_units_in_the_last_place(name, low, high, bound, dtype):
    x = samples(low, high, dtype)
    if name == "exp" and dtype is np.float64:
        x = np.concatenate([x, np.random.default_rng(1).uniform(-745, -104, 1500)])
    with mpmath.workprec(120):
        assert units(apply(name, x), [EXACT[name](mpmath.mpf(float(a))) for a in x]) < bound


@pytest.mark.parametrize("dtype", DTYPES)
def test_distribution_keeps_its_digits_where_it_is_small(dtype):
    """gelu(x) / x is the normal distribution: 1 - erf would have no digit left from x = -6 or -9 on."""
    x = np.random.default_rng(2).uniform(-12, 12, 1500).astype(dtype)
    with backend.use("cpu"):
        y, _ = backend.run("gelu", x)
    with mpmath.workprec(160):
        assert units(y, [a * mpmath.ncdf(a) for a in map(mpmath.mpf, x.tolist())]) < 6


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype):
    inf, nan, smallest, largest = math.inf, math.nan, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    expected = {  # [(x, y)]: a dict would take 0 and -0 for one
        "exp": [(0, 1), (-0.0, 1), (-inf, 0), (-largest, 0), (-800, 0), (-smallest, 1)],
        "expm1": [(0, 0), (-inf, -1), (-largest, -1), (-800, -1), (-smallest, -smallest)],
        "tanh": [(0, 0), (-0.0, -0.0), (inf, 1), (-inf, -1), (largest, 1), (-largest, -1), (smallest, smallest),
                 (-smallest, -smallest)],
        "log1p": [(0, 0), (smallest, smallest)],
        "gauss": [(0, 1), (40, 0), (-40, 0), (smallest, 1)],
        "mills": [],
    }
    for name, values in expected.items():
        x, wanted = np.array([*values, (nan, nan)], dtype).T.copy()
        found = apply(name, x)
        np.testing.assert_array_equal(found, wanted, err_msg=name)
        np.testing.assert_array_equal(np.signbit(found[:-1]), np.signbit(wanted[:-1]), err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_in_a_vector_and_alone(name, dtype):
    x = samples(*((0, 1) if name in ("log1p", "mills") else (-14, 0)), dtype, 400)
    alone = np.concatenate([apply(name, x[i : i + 1]) for i in range(x.size)])
    np.testing.assert_array_equal(apply(name, x), alone)


@pytest.mark.parametrize("name", NAMES)
def test_loops_are_vectors(name):
    """Not a call nor a branch an entry, which is what these functions are for."""
    apply(name, np.zeros(1, np.float32))
    code = LOOPS[name].inspect_llvm(LOOPS[name].signatures[0])
    assert "llvm.fma.v" in code


@pytest.mark.parametrize("dtype", DTYPES)
def test_fitted_coefficients(dtype):
    """Those of `mills` are Chebyshev's for (a + 4) mills(a), as far as the result is not 0."""
    form = {np.float32: _transcendental.SINGLE, np.float64: _transcendental.DOUBLE}[dtype]
    largest = {np.float32: 14.5, np.float64: 39}[dtype]
    centre = _transcendental.MILLS_CENTRE

    def fitted(t):
        a = centre * (1 + t) / (1 - t)
        return (a + centre) * _mills(a)

    with mpmath.workdps(40), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the order of coefficients, from mpmath 1.4 on
        end = mpmath.mpf(largest - centre) / (largest + centre)
        fit = mpmath.chebyfit(fitted, [-1, end], len(form.mills))
    np.testing.assert_array_equal(np.array(form.mills, dtype), np.array([float(c) for c in fit]).astype(dtype))
