"""The likely cause of a wrong gradient is named: for the mistakes of the catalogue, and where nothing is known."""

import types

import numpy as np
import pytest

from fastnet.check import GradientError, check_op, mutants
from fastnet.check.autopsy import equation, likely_cause
from fastnet.check.cases import ops
from fastnet.check.mutants import CATALOGUE
from fastnet.check.patterns import Clue
from fastnet.ops import batch_norm, batch_norm_fixed, linear, relu, softmax_cross_entropy

RNG = np.random.default_rng(7)
X, W, B = RNG.standard_normal((6, 4)), RNG.standard_normal((4, 3)), RNG.standard_normal(3)
RIGHT = RNG.standard_normal((6, 5, 4))
MOST = 0.98  # of the mutants that leave a trace; all of them today
QUICK = [op for op in ops() if "conv2d" not in op and "perceptron" not in op]


@pytest.mark.parametrize("op", QUICK)
def test_the_catalogue_s_mistakes_are_recognised(op):
    told = [(o, CATALOGUE[o.mistake].cause) for o in mutants.check_mutants(
        [op, *(m.name for m in CATALOGUE.values() if m.cause)], ("reference",))]
    assert len(told) >= 12
    missed = [(o.mistake, o.autopsy) for o, cause in told if not any(cause in line for line in o.autopsy)]
    assert len(missed) <= (1 - MOST) * len(told), missed


def last_rows_zero(g):
    g = g.copy()
    g[4:] = 0
    return g


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda g: -g, "is -1 times what it should be, in every entry: a sign"),
    (lambda g: g / 6, "is 1/N = 1/6 times what it should be, in every entry: a sum over the samples is a mean"),
    (lambda g: 6 * g, "is N = 6 times what it should be, in every entry: the mean over the 6 samples is a sum"),
    (lambda g: g / 4, "is 1/4 times what it should be"),
    (lambda g: -1.5 * g, "is -1.5 times what it should be"),
    (lambda g: 0 * g, "is zero everywhere"),
    (lambda g: np.where(np.arange(120).reshape(g.shape) >= 77, np.nan, g),
     "is not a number from [3, 4, 1] on (43 of 120 entries)"),
    (lambda g: g.astype(np.float32).astype(float), "has the digits of float32"),
    (lambda g: g[:, ::-1], "is flipped along axis 1"),
    (lambda g: g[:, ::-1, ::-1], "is flipped along axes 1, 2"),
    (lambda g: np.roll(g, -1, 2), "is shifted by -1 along axis 2"),
    (lambda g: np.concatenate([np.zeros((2, 5, 4)), g[:-2]]), "is shifted by 2 along axis 0"),
    (lambda g: g.swapaxes(1, 2).reshape(g.shape), "as if transposed: axes 1 and 2 are read in the other order"),
    (last_rows_zero, "is zero for sample 4, 5 and right elsewhere: a loop or chunk that ends too early"),
    (lambda g: np.where(g > 1, 0, g), "entries that must not be, from ["),
    (lambda g: np.where(np.arange(6)[:, None, None] == 2, 3 * g, g), "is right but for sample 2, and there is 3 times"),
    (lambda g: g * [1, 2, 3, 4], "has a wrong factor for each channel"),
    (lambda g: g + [1, 2, 3, 4], "differs by the same number in all of a channel: the term with the channel's mean"),
    (lambda g: np.sort(g, axis=None).reshape(g.shape), "has the right numbers in the wrong places"),
    (lambda g: g * (1 + 1e-5 * RIGHT), "is nearly right everywhere: a small constant such as eps"),
    (lambda g: g**2, "fits no pattern that is known here"),
    (lambda g: g, "backward is right, but the forward pass is not the oracle's"),
])
def test_patterns(spoil, words):
    text = likely_cause("dx", Clue(spoil(RIGHT), RIGHT, samples=6, x=RIGHT[::-1] ** 3))
    assert text.startswith("dx ") and words in text


def test_masks():
    mask = RIGHT > 0
    right = np.where(mask, RIGHT, 0)
    assert "a mask is missing" in likely_cause("dx", Clue(RIGHT, right))
    assert "a mask is inverted" in likely_cause("dx", Clue(np.where(mask, 0, RIGHT), right))


def test_square_and_terms_of_batch_norm():
    square = RNG.standard_normal((4, 4))
    assert "dw is transposed: axes 0 and 1 are exchanged" in likely_cause("dw", Clue(square.T, square))
    x = RNG.standard_normal((9, 3))
    wrong = RIGHT[0, 0, :3] * (x - x.mean(axis=0)) + x**3
    assert "variance is missing or wrong" in likely_cause("dx", Clue(wrong, x**3, x=x))


def test_entries_that_are_not_known_are_left_out():
    """Only some entries were differentiated: what fits those is said, and nothing is read into the others."""
    partly = np.where(RNG.random(RIGHT.shape) < 0.3, RIGHT, np.nan)
    for wrong, words in ((2 * RIGHT, "2 times"), (RIGHT[::-1], "flipped along axis 0"), (RIGHT**2, "no pattern")):
        assert words in likely_cause("dx", Clue(wrong, partly))
    assert "no pattern" in likely_cause("dx", Clue(RIGHT**2, np.full(RIGHT.shape, np.nan)))


def test_equations_come_from_the_docstring():
    assert equation(batch_norm, "dgamma") == "dgamma = sum dy x^"
    assert equation(batch_norm, "dx") == "dx = gamma rstd (dy - dbeta/M - x^ dgamma/M)"
    assert equation(batch_norm_fixed, "dvar") == "dvar = -1/2 gamma rstd^2 dgamma"
    assert equation(linear, "y") == "y = x w + b"
    assert equation(relu, "dx") == "dx = dy where x > 0, else 0"
    assert equation(relu, "dw") == "" == equation(types.SimpleNamespace(), "dx")


def broken(op, change):
    def backward(dy, cache, needs=None):
        return tuple(None if g is None else change(g, dy, cache) for g in op.backward(dy, cache, needs))
    return types.SimpleNamespace(forward=op.forward, backward=backward, __doc__=op.__doc__, __name__=op.__name__)


def test_error_and_report_say_it():
    wrong = broken(linear, lambda g, dy, cache: -g)
    report = check_op(wrong, (X, W, B), raises=False)
    why = "times what it should be, in every entry: a sign"
    assert report.autopsy == [f"dx is -1 {why}  [dx = dy w^T]", f"dw is -1 {why}  [dw = x^T dy]",
                              f"db is -1 {why}  [db = sum_n dy_n]"]
    with pytest.raises(GradientError) as caught:
        check_op(wrong, (X, W, B))
    assert str(caught.value).splitlines()[-3:] == [f"likely cause: {line}" for line in report.autopsy]
    assert check_op(linear, (X, W, B)).autopsy == []


def test_with_an_oracle_other_calls_are_tried():
    labels = RNG.integers(0, 4, 6)

    def from_one(g, dy, cache):
        p, labels, smoothing, dtype = cache
        return softmax_cross_entropy.backward(dy, (p, (labels + 1) % 4, smoothing, dtype))[0]

    report = check_op(broken(softmax_cross_entropy, from_one), (X, labels), oracle=softmax_cross_entropy, raises=False)
    assert report.autopsy == ["dx is what it should be if labels were one more (counted from 1)  [dx = dy (p - t) / N]"]
    alone = check_op(broken(softmax_cross_entropy, from_one), (X, labels), raises=False)
    assert "no pattern" in alone.autopsy[0]


@pytest.mark.parametrize("mistake", ["pad forgotten", "stride forgotten", "kernel flipped in dx", "absolute x"])
def test_convolutions_other_calls(mistake):
    outcome, = mutants.check_mutants(["conv2d", mistake], ("reference",))
    assert all(" is what it should be if " in line for line in outcome.autopsy), outcome.autopsy


def test_without_complex_numbers_and_with_an_oracle_that_is_wrong():
    """Differences will do, and an oracle's backward pass is believed only if the evidence is with it."""
    root = types.SimpleNamespace(forward=lambda x: (np.cbrt(x), x), backward=lambda dy, x: (-dy / np.cbrt(x) ** 2 / 3,))
    report = check_op(root, (np.abs(X) + 1,), name="cbrt", raises=False)
    assert report.autopsy == ["dx is -1 times what it should be, in every entry: a sign"]
    liar = types.SimpleNamespace(forward=linear.forward, backward=broken(linear, lambda g, dy, c: 2 * g).backward)
    report = check_op(broken(linear, lambda g, dy, c: -g), (X, W, B), oracle=liar, raises=False)
    assert all("is -1 times" in line for line in report.autopsy)
