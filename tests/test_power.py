"""A check says how much it could have seen, and refuses to pass when that is next to nothing."""

import types

import numpy as np
import pytest

import fastnet as fn
from fastnet.check import check_model, check_op, format_table
from fastnet.check.cases import cases, ops
from fastnet.check.errors import BOUNDS
from fastnet.check.evidence import Evidence
from fastnet.check.op import LEAST_SEEN, ArgumentRow, OpReport
from fastnet.ops import batch_norm, linear, relu

RNG = np.random.default_rng(3)
X, W, B = RNG.standard_normal((6, 4)), RNG.standard_normal((4, 3)), RNG.standard_normal(3)


def module(forward, backward):
    return types.SimpleNamespace(forward=forward, backward=backward)


def test_all_of_a_linear_layer_is_seen():
    report = check_op(linear, (X, W, B))
    assert [(row.seen, row.size) for row in report.rows] == [(24, 24), (12, 12), (3, 3)]
    assert report.power == 1 and report.batch is None


def test_what_a_relu_cuts_off_is_not_seen():
    report = check_op(relu, (np.where(X > 0, X + 0.1, X - 0.1),))
    assert report.rows[0].seen == (X > 0).sum() and report.power == (X > 0).mean()


@pytest.mark.parametrize("op", ops())
def test_fastnet_s_own_cases_see_enough(op):
    from fastnet import backend

    for case in cases(op):
        report = check_op(backend.module("reference", op), case.arrays, case.options, entries=2)
        assert report.power >= 10 * LEAST_SEEN
        assert (report.batch is not None) == (op in ("batch_norm", "batch_norm_relu", "batch_norm_add_relu"))


def _evidence(gradient, method, looked=None, itemsize=8):
    coordinates = np.arange(gradient.size) if looked is None else np.arange(looked)
    numbers = gradient.reshape(-1)[coordinates]
    given = {"differences": None, "complex_step": None, "direction": None, method: numbers}
    if method == "direction":
        given["direction"] = np.ones(gradient.shape)
    return Evidence(coordinates, **given, derivative=float(gradient.sum()), itemsize=itemsize, scale=1.0)


def test_noise_is_what_each_method_resolves():
    """An entry is seen exactly if the method would notice that it is lost."""
    gradient = 10.0 ** -np.arange(16.0)
    for method, name in (("differences", "differences"), ("complex_step", "complex step"),
                         ("direction", "complex step")):
        evidence = _evidence(gradient, method)
        seen = evidence.seen(gradient)
        for i in range(1, gradient.size):
            lost = gradient.copy()
            lost[i] = 0
            far = abs(np.log10(gradient[i] / BOUNDS[name][8])) > 1.2
            assert seen[i] == evidence.wrong(lost) or not far
        assert 5 < seen.sum() < 14
    assert _evidence(gradient, "differences", looked=3).seen(gradient).tolist() == [True] * 3 + [False] * 13
    assert _evidence(gradient, "differences", itemsize=4).seen(gradient).sum() == 3
    assert not _evidence(0 * gradient, "complex_step").seen(0 * gradient).any()


def test_a_check_that_saw_almost_nothing_of_an_argument_fails():
    """All but one unit of 200 is dead: dx and dw are right, and a wrong one would be too."""
    w = np.full((4, 200), -10.0)
    w[:, 0] = 1
    x = 0.5 + np.abs(X)
    report = check_op(module(lambda x, w: (np.where((z := x @ w).real > 0, z, 0), (x, w)), _dead), (x, w), name="dead",
                      raises=False)
    assert [row.seen for row in report.rows] == [24, 4]
    assert report.power == 4 / 800
    assert report.failures == [
        "dead: the check of dw saw 4 of 800 entries above the noise, less than 1%: it would pass most mistakes; take "
        "other inputs (dead ReLUs, saturated or vanishing gradients?)"]
    assert "  0%  " in format_table([report])
    assert check_op(module(lambda x, w: (np.where((z := x @ w).real > 0, z, 0), (x, w)), _dead), (x, w[:, :50])).passed


def _dead(dy, cache):
    x, w = cache
    dz = dy * (x @ w > 0)
    return dz @ w.T, x.T @ dz


def test_vanishing_gradients_are_noise():
    """tanh at 40: 1 - y^2 is rounding, so there is nothing to compare it with."""
    steep = module(lambda x: (np.tanh(x), np.tanh(x)), lambda dy, y: (dy * (1 - y * y),))
    saturated = np.full((6, 40), 25.0)
    saturated[0, 0] = 0.3
    report = check_op(steep, (saturated,), raises=False)
    assert any("saw 1 of 240 entries above the noise" in line for line in report.failures)


def test_zero_by_algebra_is_no_lack_of_power():
    def forward(x, b):
        return batch_norm.forward(x + b, np.ones(4), np.ones(4))

    def backward(dy, cache):
        dx = batch_norm.backward(dy, cache)[0]
        return dx, dx.sum(axis=0)

    report = check_op(module(forward, backward), (X, RNG.standard_normal(4)), name="shifted")
    assert [(row.seen, row.zero) for row in report.rows] == [(24, False), (0, True)]
    assert report.power == 1


def test_table_has_power_and_batch():
    case = cases("batch_norm")[1]
    report = check_op(batch_norm, case.arrays, case.options, entries=4)
    head, _, line = format_table([report]).splitlines()
    assert head.split()[-3:] == ["power", "sharp", "verdict"]
    assert "100%, batch 45" in line
    rows = [ArgumentRow("a", seen=1, size=4), ArgumentRow("b", zero=True, size=9)]
    assert OpReport("x", "own", rows=rows).power == 0.25
    assert OpReport("x", "own").power == 0


def test_models_say_how_many_parameters_were_reached():
    model = fn.Sequential([fn.Linear(4, 5), fn.BatchNorm(5), fn.Tanh(), fn.Linear(5, 3)], seed=0)
    report = check_model(model, X, RNG.integers(0, 3, 6), entries=5)
    assert "above the noise: 48 of 53 parameters" in report.notes  # linear1.b goes under
    assert report.batch == 6
    assert all(row.seen == row.size for row in report.rows if not row.zero)


def test_a_model_with_dead_units_fails():
    model = fn.Sequential([fn.Linear(4, 300), fn.ReLU(), fn.Linear(300, 3)], seed=0)
    parameters = model.parameters()
    parameters["linear1.b"][...] = -100
    parameters["linear1.b"][0] = 100
    report = check_model(model, X, RNG.integers(0, 3, 6), entries=3, raises=False)
    assert any("the check of dlinear1.w saw 4 of 1200 entries above the noise, less than 1%" in line
               for line in report.failures)
