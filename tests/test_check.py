"""The checks can fail: mistakes that people make in backward passes are each found, and named."""

from types import SimpleNamespace

import numpy as np
import pytest
from strict_arrays import strict

from fastnet import backend
from fastnet.check import GradientError, check_is_sharp, check_op, check_ops, format_table, relative_error
from fastnet.check import op as op_module
from fastnet.check.errors import BOUNDS, worst
from fastnet.ops import batch_norm, dropout, gelu, linear, mean_squared_error, relu, softmax_cross_entropy

RNG = np.random.default_rng(5)
X, W, B = RNG.standard_normal((6, 4)), RNG.standard_normal((4, 4)), RNG.standard_normal(4)
SQUARE = RNG.standard_normal((4, 4))
GAMMA, BETA = RNG.standard_normal((2, 4))
LABELS = np.array([0, 3, 2, 1, 3, 0])
SAMPLES = np.arange(6)
KEY = {"p": 0.5, "key": (7, 2**16, 0)}
KINKED = np.where(X > 0, X + 0.1, X - 0.1)


def module(forward, backward):
    return SimpleNamespace(forward=forward, backward=backward)


def spoiled(op, **changes):
    """An op with some of its gradients replaced: name -> function of (right gradient, dy, cache)."""
    names = [n.removeprefix("d") for n in changes]

    def backward(dy, cache, needs=None):
        arguments = {"x": 0, "w": 1, "gamma": 1, "b": 2, "beta": 2}
        gradients = list(op.backward(dy, cache, needs))
        for name, change in zip(names, changes.values(), strict=True):
            i = arguments[name]
            gradients[i] = None if gradients[i] is None else change(gradients[i], dy, cache)
        return tuple(gradients)

    return module(op.forward, backward)


def _batch_norm_dx(mean_term, variance_term, rstd_of=lambda var: 1 / np.sqrt(var + 1e-5)):
    def dx(_, dy, cache):
        x, gamma, mean, var, _ = cache
        rstd = rstd_of(var)
        x_hat = (x - mean) * rstd
        return gamma * rstd * (dy - mean_term * dy.mean(axis=0) - variance_term * x_hat * (dy * x_hat).mean(axis=0))
    return dx


def _stale():
    kept = []

    def forward(x, w, b):
        y, cache = linear.forward(x, w, b)
        kept.append(cache)
        return y, cache

    return module(forward, lambda dy, cache, needs=None: linear.backward(dy, kept[0], needs))


def _shifted_label(dx, dy, cache):
    p, labels, *_ = cache
    return dy * (p - np.eye(4)[(labels + 1) % 4]) / len(p)


def _one_entry(dx, dy, cache):
    wrong = dx.copy()
    wrong[2, 1] += 1e-6 * np.max(np.abs(dx))
    return wrong


LINEAR, NORM = (X, W, B), (X, GAMMA, BETA)
MISTAKES = {
    "sign": ("linear: dw is wrong", spoiled(linear, dw=lambda g, dy, c: -g), LINEAR, {}),
    "transposed": ("linear: dw is wrong", spoiled(linear, dw=lambda g, dy, c: g.T.copy()), LINEAR, {}),
    "bias over the wrong axis": ("linear: db is wrong", spoiled(linear, db=lambda g, dy, c: dy.sum(axis=1)),
                                 (SQUARE, W, B), {}),
    "bias of the first sample": ("linear: db is wrong", spoiled(linear, db=lambda g, dy, c: dy[0]), LINEAR, {}),
    "dx from w untransposed": ("linear: dx is wrong", spoiled(linear, dx=lambda g, dy, c: dy @ c[1]), LINEAR, {}),
    "stale cache": ("linear: dx is wrong", _stale(), LINEAR, {}),
    "one entry by 1e-6": (r"linear: dx is wrong at \[2, 1\]", spoiled(linear, dx=_one_entry), LINEAR, {}),
    "not a number": ("linear: dx is wrong", spoiled(linear, dx=lambda g, dy, c: g * np.nan), LINEAR, {}),
    "always zero": ("linear: dw is wrong", spoiled(linear, dw=lambda g, dy, c: 0 * g), LINEAR, {}),
    "no 1/N": ("softmax_cross_entropy: dx is wrong", spoiled(softmax_cross_entropy, dx=lambda g, dy, c: g * len(g)),
               (X, LABELS), {}),
    "shifted label": ("softmax_cross_entropy: dx is wrong", spoiled(softmax_cross_entropy, dx=_shifted_label),
                      (X, LABELS), {}),
    "dy left out": ("softmax_cross_entropy: dx is wrong",
                    spoiled(softmax_cross_entropy, dx=lambda g, dy, c: softmax_cross_entropy.backward(1.0, c)[0]),
                    (X, LABELS), {}),
    "factor 2": ("mean_squared_error: dx is wrong", spoiled(mean_squared_error, dx=lambda g, dy, c: g / 2),
                 (X, LABELS), {}),
    "no mean term": ("batch_norm: dx is wrong", spoiled(batch_norm, dx=_batch_norm_dx(0, 1)), NORM, {}),
    "no variance term": ("batch_norm: dx is wrong", spoiled(batch_norm, dx=_batch_norm_dx(1, 0)), NORM, {}),
    "unbiased variance": ("batch_norm: dx is wrong", spoiled(batch_norm, dx=_batch_norm_dx(1, 6 / 5)), NORM, {}),
    "eps outside the root": ("batch_norm: dx is wrong",
                             spoiled(batch_norm, dx=_batch_norm_dx(1, 1, lambda var: 1 / (np.sqrt(var) + 1e-5))),
                             NORM, {}),
    "dgamma of x, not x^": ("batch_norm: dgamma is wrong",
                            spoiled(batch_norm, dgamma=lambda g, dy, c: (dy * c[0]).sum(axis=0)), NORM, {}),
    "mask of dy": ("relu: dx is wrong", spoiled(relu, dx=lambda g, dy, c: np.where(dy > 0, dy, 0)), (KINKED,), {}),
    "no rescaling": ("dropout: dx is wrong", spoiled(dropout, dx=lambda g, dy, c: g / 2), (X, SAMPLES), KEY),
    "slope of the other gelu": ("gelu: dx is wrong", spoiled(
        gelu, dx=lambda g, dy, c: gelu.backward(dy, (c[0], "tanh"))[0]), (X,), {"approximate": "none"}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_found_and_named(mistake):
    message, broken, arrays, options = MISTAKES[mistake]
    name = message.partition(":")[0]
    with pytest.raises(GradientError, match=message):
        check_op(broken, arrays, options, name=name)
    wrong = message.split()[1]
    report = check_op(broken, arrays, options, name=name, raises=False)
    assert not report.passed
    others = [line for line in report.failures if not line.startswith(f"{name}: {wrong} ")]
    assert mistake == "stale cache" or not others


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_right_op_passes(mistake):
    message, _, arrays, options = MISTAKES[mistake]
    report = check_op(backend.module("reference", message.partition(":")[0]), arrays, options)
    assert report.passed
    assert report.implementation == "reference"
    assert all(row.sharp for row in report.rows)


def test_message_says_where_how_much_and_which_bound():
    with pytest.raises(GradientError) as caught:
        check_op(spoiled(linear, dx=_one_entry), LINEAR, name="linear")
    lines = str(caught.value).splitlines()
    assert lines[3].startswith("likely cause: dx is wrong in only entry [2, 1], ")
    assert len(lines) == 4
    for line, method, bound in zip(lines, ("centered differences", "the complex step"), ("1e-07", "1e-12"),
                                   strict=False):
        assert line.startswith("linear: dx is wrong at [2, 1]: backward gives ")
        assert f", {method} " in line
        assert line.endswith(f"(error 1.0e-06 of the largest, bound {bound})")
    assert "for a random v <v, dx> is " in lines[2]


def test_every_entry_of_a_large_array_is_seen():
    """One wrong entry among 2000, of which 5 are differentiated: the adjoint test sees it, and nothing else does."""
    x = RNG.standard_normal((500, 4))
    report = check_op(spoiled(linear, dx=_one_entry), (x, W, B), name="linear", entries=5, raises=False)
    assert [line.partition(" (")[0][:40] for line in report.failures] == ["linear: dx is wrong: for a random v <v, "]
    assert report.rows[0].entries == 5
    assert report.rows[0].sharp is None


# What breaks the contract, and the message.


def _linear(**changes):
    return SimpleNamespace(**{"forward": linear.forward, "backward": linear.backward, **changes})


def _changing_forward(x, w, b):
    x += 1
    return linear.forward(x, w, b)


def _changing_dy(dy, cache, needs=None):
    gradients = linear.backward(dy, cache, needs)
    dy *= 2
    return gradients


def _keeping_w(x, w, b):
    y, cache = linear.forward(x, w, b)
    return y, {"linear": cache, "copies": [w.copy()], "rows": len(x)}


def _changing_cache(dy, cache, needs=None):
    cache["copies"][0] += 1
    return linear.backward(dy, cache["linear"], needs)


def _one_gradient_needed(dy, cache, needs=None):
    dx, dw, db = linear.backward(dy, cache, needs)
    return dx, dw, db if needs is None or db is None else db * (1 + 1e-15)


class _Random:
    def __init__(self):
        self.calls = 0

    def forward(self, x, w, b):
        self.calls += 1
        y, cache = linear.forward(x, w, b)
        return y * (1 + 1e-15 * (self.calls % 3)), cache

    def backward(self, dy, cache, needs=None):
        self.calls += 1
        return tuple(g * (1 + 1e-15 * (self.calls % 3)) for g in linear.backward(dy, cache))


class _LastCall:
    def forward(self, x, w, b):
        y, self.cache = linear.forward(x, w, b)
        return y, None

    def backward(self, dy, cache, needs=None):
        return linear.backward(dy, self.cache, needs)


BREACHES = {
    "forward changes x": _linear(forward=_changing_forward),
    "backward changes dy": _linear(backward=_changing_dy),
    "backward changes its cache": _linear(forward=_keeping_w, backward=_changing_cache),
    "returns 2 gradients for 3 arrays (x, w, b)": _linear(backward=lambda dy, c: linear.backward(dy, c)[:2]),
    "db is None, but b is float64": _linear(backward=lambda dy, c: (*linear.backward(dy, c)[:2], None)),
    "db is (1, 4), but b is (4,)": _linear(backward=lambda dy, c: (*linear.backward(dy, c)[:2], dy.sum(axis=0)[None])),
    "db is float32, but b is float64": _linear(
        backward=lambda dy, c: (*linear.backward(dy, c)[:2], dy.sum(axis=0).astype("f"))),
    "db is a StrictArray, but b is a ndarray": _linear(
        backward=lambda dy, c: (*linear.backward(dy, c)[:2], strict(dy.sum(axis=0)))),
    "y is float32, but x is float64": _linear(
        forward=lambda x, w, b: (linear.forward(x, w, b)[0].astype("f"), (x, w, b))),
    "db is not needed, but is not None": _linear(backward=lambda dy, c, needs=None: linear.backward(dy, c)),
    "db has other bits when other gradients are not needed": _linear(backward=_one_gradient_needed),
    "a second forward pass gives other bits": _Random(),
    "a second backward pass gives other bits": _Random(),
    "backward gives other bits after a forward pass on other numbers": _LastCall(),
}


@pytest.mark.parametrize("message", BREACHES)
def test_breach_of_contract_is_named(message):
    report = check_op(BREACHES[message], [a.copy() for a in LINEAR], name="linear", raises=False)
    assert any(line.startswith("linear: ") and message in line for line in report.failures)


def test_gradients_of_integer_and_absent_arrays_must_be_none():
    ones = module(lambda x, labels, w: ((2 * x), None), lambda dy, c: (2 * dy, dy, dy))
    report = check_op(ones, (X, LABELS, None), name="twice", raises=False)
    assert report.failures == ["twice: dlabels must be None, because labels is int64",
                               "twice: dw must be None, because w is absent"]


def test_results_of_the_wrong_kind():
    with pytest.raises(TypeError, match="mean: y is a float, but an array is needed"):
        check_op(module(lambda x: (float(x.real.mean()), x), None), (X,), name="mean")
    with pytest.raises(TypeError, match="twice: backward returns a ndarray, but a tuple of gradients is needed"):
        check_op(module(lambda x: (2 * x, None), lambda dy, c: 2 * dy), (X,), name="twice")


def test_value_against_an_oracle():
    twice = module(lambda x: (2 * x, None), lambda dy, c: (2 * dy,))
    report = check_op(twice, (X,), oracle=module(lambda x: (2.001 * x, None), None), name="twice", raises=False)
    assert report.failures[0].startswith("twice: y is wrong at [")
    assert "(error 5.0e-04 of the largest, bound 1e-12)" in report.failures[0]
    flat = module(lambda x: (2 * x.reshape(-1), None), None)
    with pytest.raises(GradientError, match=r"twice: y is \(6, 4\), but the oracle's is \(24,\)"):
        check_op(twice, (X,), oracle=flat, name="twice")


# Checks that would see nothing.


def test_ones_would_see_nothing_under_batch_norm():
    """Why dy is random: the sum of normalised outputs is constant, so a backward pass of zeros would pass."""
    y, cache = batch_norm.forward(*NORM)
    assert np.max(np.abs(batch_norm.backward(np.ones_like(y), cache)[0])) < 1e-14
    blind = module(lambda x: (batch_norm.forward(x, GAMMA, BETA)[0].sum(), x), lambda dy, x: (0 * x,))
    with pytest.raises(GradientError, match=r"^sum: every gradient is zero, so the check saw nothing$"):
        check_op(blind, (X,), name="sum")
    zero_dx = spoiled(batch_norm, dx=lambda g, dy, c: 0 * g)
    with pytest.raises(GradientError, match="batch_norm: dx is wrong"):
        check_op(zero_dx, NORM, name="batch_norm")


def test_two_samples_are_refused_under_batch_norm():
    """With two samples x^ is +-1, so the gradient below nearly vanishes and a wrong one is hard to tell."""
    few = (X[:2], GAMMA, BETA)
    with pytest.raises(ValueError, match=r"^batch_norm: a check needs at least 5 samples, but x \(2, 4\) has 2 a"):
        check_op(batch_norm, few)
    with pytest.raises(ValueError, match="at least 5 samples"):
        check_op(batch_norm, (X[:4], GAMMA, BETA))
    # Differences fail on a right gradient there: dx is eps/d^2 of what it should be and drowns in rounding.
    report = check_op(batch_norm, few, allow_small_batch=True, raises=False)
    dx, dgamma, _ = report.rows
    assert dx.differences > 1000 * dgamma.differences
    assert check_op(batch_norm, NORM).passed


def test_a_bias_under_batch_norm_is_zero_by_algebra():
    """Flagged, compared with what differences can resolve, and a wrong one is still found."""

    def forward(x, b):
        y, cache = batch_norm.forward(x + b, GAMMA, BETA)
        return y, cache

    def backward(dy, cache):
        dx = batch_norm.backward(dy, cache)[0]
        return dx, dx.sum(axis=0)

    report = check_op(module(forward, backward), (X, B), name="shifted")
    dx, db = report.rows
    assert (dx.zero, db.zero) == (False, True)
    assert db.sharp
    assert "needs: backward does not take it" in report.notes
    with pytest.raises(GradientError, match="shifted: db is wrong"):
        check_op(module(forward, lambda dy, c: (batch_norm.backward(dy, c)[0], dy.sum(axis=0))), (X, B), name="shifted")


def test_nothing_to_check():
    for arrays in ((LABELS,), (None,), (X[:0],)):
        with pytest.raises(ValueError, match="count: there is nothing to check"):
            check_op(module(lambda x: (x, x), lambda dy, c: (dy,)), arrays, name="count")


# Sharpness.

GRADIENTS = {"w": RNG.standard_normal((5, 3)), "b": RNG.standard_normal(3)}


def _without_sample(n):
    return {name: g * (1 - 0.01 * (n + 1)) for name, g in GRADIENTS.items()}


def test_a_blind_comparison_is_reported():
    escaped = check_is_sharp(GRADIENTS, lambda name, g: False, without_sample=_without_sample, samples=4)
    assert [line.partition(":")[0] for line in escaped] == ["w"] * 3 + ["b"] * 3
    for word in ("changed by 1e-04 of the largest", "exchange of entries", "missing contribution of sample"):
        assert sum(word in line for line in escaped) == 2


def test_an_exact_comparison_is_sharp():
    assert check_is_sharp(GRADIENTS, lambda name, g: not np.array_equal(g, GRADIENTS[name]),
                          without_sample=_without_sample, samples=4) == []


def test_partly_blind_comparisons():
    by_sum = check_is_sharp(GRADIENTS, lambda name, g: abs(g.sum() - GRADIENTS[name].sum()) > 1e-12,
                            without_sample=_without_sample, samples=4)
    assert len(by_sum) == 2
    assert all("exchange" in line for line in by_sum)
    loose = check_is_sharp(GRADIENTS, lambda name, g: relative_error(GRADIENTS[name], g) > 1e-3,
                           without_sample=_without_sample, samples=4)
    assert len(loose) == 2
    assert all("changed" in line for line in loose)


def test_what_changes_nothing_is_passed_over():
    equal = {"b": np.ones(3)}
    assert len(check_is_sharp(equal, lambda name, g: False, without_sample=lambda n: equal, samples=3)) == 1
    only = check_is_sharp({"b": np.array([0.0, 5.0])}, lambda name, g: False, seen={"b": np.array([1])})
    assert only == ["b: entry [1] changed by 1e-04 of the largest went unnoticed"]


def test_a_blind_check_of_an_op_fails(monkeypatch):
    """Bounds so wide that they hide a change of 1e-4: right gradients then do not pass either."""
    for method in ("differences", "complex step"):
        monkeypatch.setitem(BOUNDS, method, {8: 1e-2})
    with pytest.raises(GradientError, match=r"linear: the check of dw is not sharp: entry \[\d, \d\] changed by 1e-04"):
        check_op(linear, LINEAR)


# A user's own ops.


def test_own_op():
    cube = module(lambda x: (x**3, x), lambda dy, x: (3 * x**2 * dy,))
    report = check_op(cube, (X,))
    assert (report.op, report.implementation) == ("op", "own")
    assert report.rows[0].name == "x"
    assert report.rows[0].differences < 1e-9
    assert max(report.rows[0].complex_step, report.rows[0].adjoint) < 1e-14


def test_own_op_of_any_arrays():
    total = module(lambda *arrays: (sum(arrays), len(arrays)), lambda dy, n: (dy,) * n)
    with pytest.raises(GradientError, match="total: darray 1 is wrong"):
        check_op(module(total.forward, lambda dy, n: (dy, 2 * dy, dy)), (X, X + 1, X + 2), name="total")
    assert check_op(total, (X, X + 1, X + 2)).passed


def test_own_op_without_complex_numbers():
    """The report says so, and differences still prove and are sharp."""
    root = module(lambda x: (np.cbrt(x), x), lambda dy, x: (dy / (3 * np.cbrt(x) ** 2),))
    report = check_op(root, (np.abs(X) + 1,), name="cbrt", entries=10)
    assert "complex step: forward takes no complex numbers" in report.notes
    assert (report.rows[0].complex_step, report.rows[0].adjoint) == (None, None)
    assert report.rows[0].differences < 1e-9
    assert report.rows[0].sharp
    with pytest.raises(GradientError, match="centered differences"):
        check_op(module(root.forward, lambda dy, x: (dy / np.cbrt(x) ** 2,)), (np.abs(X) + 1,))


def test_forward_that_drops_the_imaginary_part():
    size = module(lambda x: (np.abs(x), x), lambda dy, x: (np.sign(x) * dy,))
    assert "complex step: forward takes no complex numbers" in check_op(size, (KINKED,)).notes
    cast = module(lambda x: (2 * x.astype(np.float64), None), lambda dy, c: (2 * dy,))
    assert "complex step: forward takes no complex numbers" in check_op(cast, (X,)).notes
    assert "complex step: the oracle takes no complex numbers" in check_op(size, (KINKED,), oracle=size).notes


@pytest.mark.parametrize(("dtype", "methods"), [(np.float32, 3), (np.float16, 2)])
def test_lower_precision(dtype, methods):
    """Wider bounds, no differences in 16 bits; mistakes are still found."""
    arrays = (X.astype(dtype), W.astype(np.float32), B.astype(np.float32))
    report = check_op(linear, arrays)
    for row in report.rows:
        assert sum(e is not None for e in (row.differences, row.complex_step, row.adjoint)) == methods
        assert row.sharp
    with pytest.raises(GradientError, match="linear: dw is wrong"):
        check_op(MISTAKES["transposed"][1], arrays, name="linear")


def test_kernels_have_the_reference_as_oracle():
    pytest.importorskip("numba")
    report = check_op(backend.module("cpu", "linear"), LINEAR)
    assert report.implementation == "cpu"
    assert report.value < 1e-14
    assert report.notes == []


# Errors, reports, tables.


def test_relative_error():
    a = np.array([[1.0, -4.0], [2.0, 0.5]])
    assert relative_error(a, a) == 0
    assert relative_error(a, a + [[0, 0], [1, 0]]) == 0.25
    assert relative_error(a, a + [[0, 0], [1, 0]], largest=10.0) == 0.1
    assert worst(a, a + [[0, 0], [0, 2]]) == (0.5, (1, 1), 0.5, 2.5)
    assert relative_error(np.zeros(3), np.zeros(3)) == 0
    assert relative_error(np.zeros((0, 2)), np.zeros((0, 2))) == 0
    assert relative_error(np.float64(2.0), np.float64(1.0)) == 0.5
    assert relative_error(np.zeros(2), np.array([0, 1e-30])) == np.inf
    for bad in (np.nan, np.inf, -np.inf):
        wrong = np.where(a == 2, bad, a)
        for pair in ((a, wrong), (wrong, a), (wrong, wrong)):
            assert relative_error(*pair) == np.inf
            assert worst(*pair)[1] == (1, 0)
    assert relative_error(a[0], a[0], largest=np.nan) == np.inf
    with pytest.raises(ValueError, match=r"the shapes differ, \(2, 2\) and \(2,\)"):
        relative_error(a, a[0])


def test_inputs_are_left_alone():
    arrays = [a.copy() for a in LINEAR]
    for a in arrays:
        a.flags.writeable = False
    assert check_op(linear, arrays).passed
    assert all(map(np.array_equal, arrays, LINEAR))


def test_same_seed_same_report():
    first, again, other = (check_op(batch_norm, NORM, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.rows != other.rows


def test_check_ops_and_table():
    reports = check_ops(["relu", "linear"])
    assert all(report.passed for report in reports)
    assert {report.implementation for report in reports} == set(backend.ORDER["numpy"])
    text = format_table(reports).splitlines()
    assert text[0].split()[:3] == ["op", "implementation", "case"]
    assert len(text) == 2 + len(reports)
    assert all(line.endswith("passed") for line in text[2:])
    only = check_ops(["relu"], implementations=("reference", "cuda"))
    assert {report.implementation for report in only} == {"reference"}
    with pytest.raises(ValueError, match="there is no op or function named 'nothing'"):
        check_ops(["nothing"])


def test_table_shows_failures():
    report = check_op(MISTAKES["sign"][1], LINEAR, name="linear", case="sign", raises=False)
    lines = format_table([report]).splitlines()
    assert lines[2].split()[:3] == ["linear", "own", "sign"]
    assert lines[2].endswith("FAILED")
    assert "\n".join(lines[3:]) == report.text
    empty = op_module.OpReport("nothing", "own", failures=["nothing: broken"])
    assert format_table([empty]).splitlines()[2].split() == ["nothing", "own", "-", "-", "0", "0%", "no", "FAILED"]
