"""Every reference op runs on arrays that NumPy may not touch, as it must on a GPU; and those arrays do refuse."""

import numpy as np
import pytest
from strict_arrays import NAMESPACE, StrictArray, strict

from fastnet import backend
from fastnet.arrays import array_module, erf, to_numpy
from fastnet.check import check_op
from fastnet.check.cases import cases, ops
from fastnet.functions import philox

X = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
CASES = [case for op in ops() for case in cases(op)]


@pytest.mark.parametrize("use", [
    lambda x: np.asarray(x),
    lambda x: np.array([x, x]),
    lambda x: np.exp(x),
    lambda x: np.add(x, 1.0),
    lambda x: np.concatenate([x, x]),
    lambda x: np.sum(x),
    lambda x: np.where(x > 0, x, 0.0),
    lambda x: x + X,
    lambda x: X + x,
    lambda x: x @ X.T,
    lambda x: X * x,
    lambda x: x > X,
    lambda x: x[np.array([0, 1])],
    lambda x: NAMESPACE.where(x > 0, x, X),
    lambda x: NAMESPACE.concatenate([x, X]),
    lambda x: x.dot(X.T),
    lambda x: x.__setitem__(0, X[0]),
    lambda x: x.__iadd__(X),
    lambda x: np.multiply(x, x, out=np.empty(x.shape)),
    lambda x: memoryview(x),
])
def test_refuses(use):
    with pytest.raises(TypeError):
        use(strict(X))


def test_own_functions_work():
    x = strict(X)
    assert array_module(x) is NAMESPACE
    pairs = [
        (x + 1, X + 1), (np.float64(2) * x, 2 * X), (2 - x, 2 - X), (x @ x.T, X @ X.T), (-x, -X), (abs(x), abs(X)),
        (~(x > 0), ~(X > 0)), (x[0], X[0]), (x[x > 0], X[X > 0]), (list(x)[1], X[1]), (x.real, X),
        (x.astype(np.float32), X.astype(np.float32)), (x.sum(axis=0), X.sum(axis=0)), (NAMESPACE.exp(x), np.exp(X)),
        (NAMESPACE.stack([x, x], axis=-1), np.stack([X, X], axis=-1)),
    ]
    for ours, theirs in pairs:
        assert isinstance(ours, StrictArray)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(to_numpy(ours), theirs)
    x += 1
    x[0] = 0.0
    np.testing.assert_array_equal(x.get(), [[0, 0, 0], [5, 6, -5]])
    assert "Strict" in repr(x)
    np.testing.assert_allclose(erf(strict(X)).get()[0], [0.842701, -0.995322, 0.999978], atol=1e-6)


def test_reductions_are_zero_dimensional_arrays():
    x = strict(X)
    for y in (x.sum(), x[0, 0], NAMESPACE.max(x), NAMESPACE.asarray(1.0)):
        assert isinstance(y, StrictArray)
        assert y.shape == ()
    assert float(x.sum()) == 5
    assert int(x[0, 0]) == 1
    assert bool((x > -7).all())
    assert complex(x[0, 0]) == 1
    assert range(4)[strict(np.array(2))] == 2


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}-{c.label}")
def test_reference_runs(case):
    """Forward, backward and dispatch touch the arrays by their own library only, and the numbers are NumPy's."""
    reference = backend.module("reference", case.op)
    arrays = [strict(a) for a in case.arrays]
    assert backend.pair(case.op, *arrays, **case.options) is reference
    expected, cache = reference.forward(*case.arrays, **case.options)
    y, strict_cache = reference.forward(*arrays, **case.options)
    dy = np.random.default_rng(0).standard_normal(expected.shape)
    results = [y, *reference.backward(strict(dy), strict_cache)]
    for ours, theirs in zip(results, [expected, *reference.backward(dy, cache)], strict=True):
        if theirs is None:
            assert ours is None
        else:
            assert isinstance(ours, StrictArray)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(to_numpy(ours), theirs)


@pytest.mark.parametrize("op", ops())
def test_checks_run(op):
    """The checker itself moves arrays between host and device explicitly."""
    case = cases(op)[0]
    arrays = [strict(a) for a in case.arrays]
    report = check_op(backend.module("reference", op), arrays, case.options, entries=10)
    assert report.passed
    assert all(row.sharp for row in report.rows)


def test_philox_runs():
    samples, options = np.array([0, 3, 2**31, 7]), {"seed": 2**40 + 3, "stream": 5, "epoch": 2, "count": 6}
    words = backend.call("philox", strict(samples), **options)
    assert isinstance(words, StrictArray)
    np.testing.assert_array_equal(words.get(), philox.run(samples, **options))
