"""`check_model` passes what is right, on every layer and loss, and finds what is wrong, by name."""

import itertools

import numpy as np
import pytest
from tiny import bits

import fastnet as fn
from fastnet.check import GradientError, check_model
from fastnet.nn.layers import ACTIVATIONS
from fastnet.nn.losses import LOSSES

WIDTHS = (12, 7, 5, 3)


def batch(n=8, width=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)), rng.integers(0, 3, n)


def mlp(norm=None, activation=fn.Tanh, seed=1, **replaced):
    """12-7-5-3; `norm` is 'before' or 'after' the activation; `replaced` gives other classes for named layers."""
    layers = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(WIDTHS), start=1):
        layers.append((f"linear{number}", replaced.get(f"linear{number}", fn.Linear)(inputs, outputs)))
        if outputs != WIDTHS[-1]:
            inner = [(f"act{number}", replaced.get(f"act{number}", activation)())]
            if norm:
                inner.insert(int(norm == "after"), (f"norm{number}", replaced.get(f"norm{number}",
                                                                                  fn.BatchNorm)(outputs)))
            layers += inner
    return fn.Sequential(layers, seed=seed)


def proven(report, zero=()):
    """All that makes a check worth something: entries looked at, errors within the bounds, and sharp."""
    assert report.passed, report.failures
    for row in report.rows:
        assert row.differences <= 1e-7 and row.complex_step <= 1e-12 and row.adjoint <= 1e-12, row
        assert row.sharp and row.entries > 0, row
        assert row.zero is (row.name in zero), row
    return report


# --- what is right passes ---

@pytest.mark.parametrize("norm", [None, "before", "after"])
def test_perceptrons_pass(norm):
    model = mlp(norm)
    report = proven(check_model(model, *batch()), zero={"linear1.b", "linear2.b"} if norm == "before" else ())
    assert [row.name for row in report.rows] == list(model.parameters())
    assert {row.name: row.entries for row in report.rows}["linear1.w"] == 12 * 7
    assert report.op == "model" and report.case == "batch 8"


def test_biases_before_batch_norm_are_zero_by_algebra():
    report = check_model(mlp("before"), *batch())
    assert "zero by algebra: linear1.b, linear2.b" in report.notes
    assert not any("zero" in note for note in check_model(mlp("after"), *batch()).notes)


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_every_activation_passes(activation):
    report = proven(check_model(mlp(activation=activation), *batch()))
    assert "crossed a kink: 0 of 149" in report.notes


def test_kinks_of_derived_activations_are_seen():
    class Rectifier(fn.ReLU):
        """Its parent under another name."""

    notes = [check_model(mlp(activation=kind), *batch(), raises=False).notes for kind in (fn.ReLU, Rectifier)]
    assert notes[0] == notes[1]
    tail = fn.check.models._Tail(mlp(activation=Rectifier).copy("float64"), *batch(), "softmax_cross_entropy", {}, 0)
    assert len(tail(0)[1]) == 2  # a mask for each of the two


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_passes(loss):
    proven(check_model(mlp(), *batch(), loss=loss))


def test_options_of_a_loss_are_used():
    with_option = check_model(mlp(), *batch(), loss_options={"label_smoothing": 0.2})
    proven(with_option)
    with pytest.raises(TypeError):
        check_model(mlp(), *batch(), loss_options={"label_smoothness": 0.2})


def test_dropout_flattening_and_nested_containers_pass():
    inner = fn.Sequential([fn.Linear(9, 6), fn.BatchNorm(6), fn.Swish()])
    model = fn.Sequential([fn.Flatten(), fn.Dropout(0.2), fn.Linear(12, 9), fn.Tanh(), fn.Dropout(0.4), inner,
                           fn.Linear(6, 3)])
    x, labels = batch()
    report = proven(check_model(model, x.reshape(8, 2, 2, 3), labels), zero={"sequential1.linear1.b"})
    assert "sequential1.batch_norm1.gamma" in {row.name for row in report.rows}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_model_is_left_as_it_was(dtype):
    model = mlp("before").copy(dtype)
    model.store.gradient[...] = 3
    before = bits(model.state()), bits(model.gradients())
    proven(check_model(model, *batch()), zero={"linear1.b", "linear2.b"})
    assert (bits(model.state()), bits(model.gradients())) == before
    assert model.dtype == dtype


def test_only_so_many_entries_are_differentiated_one_by_one():
    report = proven(check_model(mlp(), *batch(), entries=10))
    assert [row.entries for row in report.rows] == [10, 7, 10, 5, 10, 3]


def test_the_same_seed_looks_at_the_same_entries():
    first, second, other = (check_model(mlp(), *batch(), entries=5, seed=seed).rows for seed in (1, 1, 2))
    assert first == second != other


# --- what is wrong is found ---

def altered(layer, change):
    """The class `layer` with `change(self, dx)` done to every backward pass."""

    class Altered(layer):
        def __call__(self, x, context):
            y, back = super().__call__(x, context)
            return y, lambda dy, needs_dx=True: change(self, back(dy, needs_dx))

    return Altered


def of_gradient(key, change):
    def apply(layer, dx):
        change(layer.parameters_here[key].grad)
        return dx
    return apply


def negate(g):
    g *= -1


def double(g):
    g *= 2


def clear(g):
    g[...] = 0


def nudge(g):
    g.flat[-1] += 1e-4 * np.abs(g).max()


ABOVE = {"linear3.w", "linear3.b"}
SECOND = {"linear2.w", "linear2.b"}
FIRST = {"linear1.w", "linear1.b"}


@pytest.mark.parametrize(("where", "layer", "change", "wrong"), [
    ("linear2", fn.Linear, of_gradient("w", negate), {"linear2.w"}),
    ("linear2", fn.Linear, of_gradient("b", double), {"linear2.b"}),
    ("linear1", fn.Linear, of_gradient("w", double), {"linear1.w"}),
    ("linear1", fn.Linear, of_gradient("w", nudge), {"linear1.w"}),
    ("linear3", fn.Linear, of_gradient("w", clear), {"linear3.w"}),
    ("linear3", fn.Linear, lambda self, dx: -dx, FIRST | SECOND),
    ("linear2", fn.Linear, lambda self, dx: dx if dx is None else 2 * dx, FIRST),
    ("linear2", fn.Linear, lambda self, dx: 0 * dx, FIRST),  # a dx that was dropped
    ("act2", fn.Tanh, lambda self, dx: -dx, FIRST | SECOND),
    ("act1", fn.Tanh, lambda self, dx: 1.001 * dx, FIRST),
], ids=["sign of dw", "twice db", "twice the first dw", "one entry of dw", "no dw", "sign of dx", "twice dx", "no dx",
        "sign behind an activation", "a thousandth"])
def test_a_broken_backward_pass_is_found_and_named(where, layer, change, wrong):
    model = mlp(**{where: altered(layer, change)})
    with pytest.raises(GradientError) as caught:
        check_model(model, *batch())
    report = check_model(model, *batch(), raises=False)
    assert str(caught.value) == report.text and not report.passed
    named = {name for name in model.parameters() if f"d{name} is wrong" in str(caught.value)}
    assert named == wrong
    by_name = {row.name: row for row in report.rows}
    assert all(by_name[name].complex_step > 1e-5 or by_name[name].complex_step != by_name[name].complex_step
               for name in wrong)
    assert all(by_name[name].complex_step <= 1e-12 for name in set(by_name) - wrong)


@pytest.mark.parametrize(("key", "change"), [("gamma", negate), ("beta", double)])
def test_a_broken_batch_norm_is_found(key, change):
    report = check_model(mlp("before", norm1=altered(fn.BatchNorm, of_gradient(key, change))), *batch(), raises=False)
    assert {row.name for row in report.rows if row.complex_step > 1e-12} == {f"norm1.{key}"}


def test_batch_norm_that_forgets_its_statistics_depend_on_x_is_found():
    class Forgetful(fn.BatchNorm):
        def __call__(self, x, context):
            y, _ = super().__call__(x, context)
            gamma, beta = self.parameters_here["gamma"], self.parameters_here["beta"]
            rstd = 1 / np.sqrt(x.var(axis=0) + self.eps)

            def back(dy, needs_dx=True):
                gamma.accumulate((dy * (x - x.mean(axis=0)) * rstd).sum(axis=0))
                beta.accumulate(dy.sum(axis=0))
                return dy * gamma.value * rstd

            return y, back

    report = check_model(mlp("before", norm2=Forgetful), *batch(), raises=False)
    assert {row.name for row in report.rows if row.complex_step > 1e-12} == {
        "linear1.w", "linear2.w", "linear2.b", "norm1.gamma", "norm1.beta"}


def test_the_message_says_where_and_by_how_much():
    model = mlp(linear2=altered(fn.Linear, of_gradient("w", negate)))
    report = check_model(model, *batch(), raises=False)
    lines = [line for line in report.failures if line.startswith("model: dlinear2.w is wrong at [")]
    assert len(lines) == 2
    assert "backward gives" in lines[0] and "centered differences" in lines[0] and "bound 1e-07)" in lines[0]
    assert "the complex step" in lines[1] and "bound 1e-12)" in lines[1]


# --- checks that would prove nothing ---

def test_too_few_samples_under_batch_norm_are_refused():
    with pytest.raises(ValueError, match="under batch normalisation needs at least 5 samples, but x has 2"):
        check_model(mlp("before"), *batch(2))
    proven(check_model(mlp(), *batch(2)))
    # With two samples every normalised value is +-1 whatever x is, so that nothing below has a gradient to speak of.
    report = check_model(mlp("before"), *batch(2), allow_small_batch=True, raises=False)
    assert [row.name for row in report.rows] == list(mlp("before").parameters())


def test_coordinates_that_cross_a_kink_do_not_count_and_too_many_fail():
    model = fn.Sequential([fn.Linear(4, 3, init="zeros"), fn.ReLU(), fn.Linear(3, 3)])
    x, labels = batch(6, 4)
    report = check_model(model, x, labels, raises=False)
    # All inputs of the ReLU are exactly 0: whatever moves a weight or bias of the first layer crosses.
    assert "crossed a kink: 15 of 27" in report.notes
    assert "model: 15 of 27 coordinates crossed a kink, more than 2%: too few were compared" in report.failures
    assert [row.entries for row in report.rows] == [0, 0, 9, 3]


def test_gradients_that_are_all_zero_show_nothing():
    model = fn.Sequential([fn.Linear(4, 3, init="zeros")])
    x, _ = batch(6, 4)
    report = check_model(model, x, np.zeros((6, 3)), loss="mean_squared_error", raises=False)
    assert report.failures == ["model: every gradient is zero, so the check saw nothing"]


def test_a_model_of_full_size_passes():
    rng = np.random.default_rng(0)
    model = fn.build("mlp3-bn", seed=0)
    report = proven(check_model(model, rng.normal(size=(10, 32, 32, 3)), rng.integers(0, 10, 10), entries=300),
                    zero={"linear1.b", "linear2.b"})
    assert report.op == "mlp3-bn" and sum(row.entries for row in report.rows) == 300 + 6 * 50 + 300 + 300 + 10
