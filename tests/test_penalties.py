"""Penalties: the cost they stand for by centered differences, decoupled decay, soft thresholds, sparsity, rates."""

import json
import math

import numpy as np
import pytest
from strict_arrays import strict, unwrap

import fastnet as fn
from fastnet import backend
from fastnet.optim import rates
from fastnet.optim.penalties import L1, L2, DecoupledDecay, Sum, WeightDecay, combined, sparsity
from fastnet.optim.schedule import Schedule

IMPLEMENTATIONS = ("reference", "cpu")


def model(dtype="float64", seed=3):
    """A small model with random parameters, biases too, none of them near 0."""
    net = fn.Sequential([fn.Linear(4, 5), fn.BatchNorm(5), fn.Tanh(), fn.Linear(5, 3)], dtype=dtype, seed=seed)
    rng = np.random.default_rng(seed)
    for value in net.parameters().values():
        value[...] = rng.choice([-1, 1], value.shape) * rng.uniform(0.1, 1, value.shape)
    return net


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, 4)), rng.integers(0, 3, 8)


def weights(net):
    return {name: value for name, value in net.parameters().items() if name.startswith("linear") and name.endswith("w")}


# --- costs and gradients ---

@pytest.mark.parametrize(("penalty", "cost"), [
    (L2(0.1), lambda w: 0.1 * (w**2).sum()), (WeightDecay(0.1), lambda w: 0.05 * (w**2).sum()),
    (L1(0.1), lambda w: 0.1 * abs(w).sum()), (L1(0.1, proximal=True), lambda w: 0.1 * abs(w).sum()),
    (DecoupledDecay(0.1), lambda w: 0), (Sum([L2(0.1), L1(0.2), L1(0.3, proximal=True), DecoupledDecay(1)]),
                                         lambda w: 0.1 * (w**2).sum() + 0.5 * abs(w).sum())])
def test_the_value_is_the_cost(penalty, cost):
    w = np.random.default_rng(1).normal(size=50)
    assert penalty.value(w) == pytest.approx(cost(w), rel=1e-14)
    assert penalty.value(np.zeros(0)) == 0


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("penalty", [L2(0.1), WeightDecay(0.3), L1(0.1), [L2(0.1), L1(0.2)], None],
                         ids=["l2", "decay", "l1", "elastic net", "none"])
def test_the_step_follows_the_gradient_of_the_cost(penalty, implementation):
    net, (x, labels) = model(), batch()
    step = fn.TrainStep(net, fn.SGD(lr=1.0), penalty=penalty)

    def cost():
        return float(fn.loss_and_gradients(net, x, labels)[0]) + step.penalty_value()

    numeric, h = {}, 1e-5
    for name, value in net.parameters().items():
        slopes = np.zeros(value.shape)
        for index in np.ndindex(value.shape):
            kept, ends = value[index], []
            for value[index] in (kept + h, kept - h):
                ends.append(cost())
            value[index], slopes[index] = kept, (ends[0] - ends[1]) / (2 * h)
        numeric[name] = slopes
    before = net.state()
    with backend.use(implementation):
        step(x, labels)
    for name, value in net.parameters().items():
        np.testing.assert_allclose(before[name] - value, numeric[name], rtol=1e-7, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("optimizer", [fn.SGD(0.5), fn.SGD(0.5, momentum=0.9), fn.Adam(0.5)], ids=lambda o: o.name)
def test_decoupled_decay_does_not_pass_through_the_optimizer(optimizer, implementation):
    (x, labels), found = batch(), []
    for penalty in (None, DecoupledDecay(0.1)):
        net = model()
        before = net.state()
        with backend.use(implementation):
            step = fn.TrainStep(net, optimizer, penalty=penalty)
            step(x, labels)
        found.append(net.state())
        assert step.penalty_value() == 0
    plain, decayed = found
    for name, value in before.items():
        pull = 0.05 * value if name in weights(net) else 0
        np.testing.assert_allclose(plain[name] - decayed[name], pull, rtol=1e-12, atol=1e-15, err_msg=name)


def test_l1_at_zero_has_slope_zero():
    net, (x, labels) = model(), batch()
    net.parameters()["linear2.w"][1] = 0
    before, (_, gradients) = net.state(), fn.loss_and_gradients(net, x, labels)
    fn.TrainStep(net, fn.SGD(1.0), penalty=L1(0.5))(x, labels)
    moved = before["linear2.w"] - net.parameters()["linear2.w"]
    np.testing.assert_allclose(moved, gradients["linear2.w"] + 0.5 * np.sign(before["linear2.w"]), rtol=1e-12)


@pytest.mark.parametrize("penalty", [lambda: L1(-0.1), lambda: L1(math.nan, proximal=True),
                                     lambda: DecoupledDecay(math.inf)])
def test_a_strength_must_not_be_negative(penalty):
    with pytest.raises(ValueError, match=r"^(L1|DecoupledDecay): the strength must be a number of at least 0 but is"):
        penalty()


def test_settings_and_combinations():
    assert combined(None) is None is combined([])
    one = L1(0.25)
    assert combined(one) is one is combined([one])
    assert one.settings() == {"name": "L1", "l1": 0.25}
    assert L1(0.25, proximal=True).settings() == {"name": "L1", "proximal": 0.25}
    assert DecoupledDecay(0.5).settings() == {"name": "DecoupledDecay", "shrink": 0.5}
    both = combined((L2(0.125), one))
    assert (both.decay, both.l1, both.proximal, both.shrink) == (0.25, 0.25, 0, 0)
    settings = {"name": "Sum", "terms": [{"name": "L2", "decay": 0.25}, {"name": "L1", "l1": 0.25}]}
    assert json.loads(json.dumps(both.settings())) == settings
    with pytest.raises(TypeError, match=r"penalty: a penalty such as L2\(0.005\) or a list of them is needed, got 0.1"):
        combined([one, 0.1])


# --- soft thresholds ---

@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_soft_threshold(implementation, dtype):
    w = np.array([-2, -0.5, -0.25, -0.0, 0, 0.25, 0.5, 2, np.inf, -np.inf, np.nan], dtype)
    with backend.use(implementation):
        backend.call("soft_threshold", w, threshold=0.5)
    np.testing.assert_array_equal(w, np.array([-1.5, 0, 0, 0, 0, 0, 0, 1.5, np.inf, -np.inf, np.nan], dtype))


def test_soft_threshold_of_many_and_of_other_arrays():
    w = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    ours, theirs, there = w.copy(), w.copy(), strict(w)
    for implementation, vector in (("cpu", ours), ("reference", theirs)):
        with backend.use(implementation):
            backend.call("soft_threshold", vector, threshold=0.3)
    backend.call("soft_threshold", there, threshold=0.3)
    assert ours.tobytes() == theirs.tobytes() == unwrap(there).tobytes()
    assert 0.2 < (ours == 0).mean() < 0.3


def test_soft_threshold_is_the_minimum_it_stands_for():
    w = np.linspace(-1, 1, 41)
    z = w.copy()
    backend.call("soft_threshold", z, threshold=0.3)

    def cost(z):
        return 0.5 * (z - w) ** 2 + 0.3 * abs(z)

    for move in (1e-3, -1e-3, 0.1, -0.1):
        assert (cost(z) < cost(z + move)).all()


@pytest.mark.parametrize("optimizer", [fn.SGD(), fn.SGD(momentum=0.9), fn.SGD(momentum=0.5, nesterov=True)],
                         ids=["plain", "momentum", "nesterov"])
def test_the_proximal_step_ends_where_the_cost_is_least(optimizer):
    """Full batches, convex loss: at the end the loss's slope is -strength sign(w), and at most that at zeros."""
    net, (x, labels) = fn.Sequential([fn.Linear(4, 3)], dtype="float64"), batch()
    step = fn.TrainStep(net, optimizer, Schedule("s", {}, lambda t: 0.2 / optimizer.gain),
                        penalty=[L1(0.05, proximal=True), L2(0.01)])
    for _ in range(3000):
        step(x, labels)
    w, slope = net.parameters()["linear1.w"], fn.loss_and_gradients(net, x, labels)[1]["linear1.w"]
    slope = slope + 0.02 * w
    zeros = w == 0
    assert 2 <= zeros.sum() <= 10
    np.testing.assert_allclose(slope[~zeros], -0.05 * np.sign(w[~zeros]), atol=1e-9)
    assert (abs(slope[zeros]) < 0.05).all()


def test_the_proximal_step_gives_exact_zeros_and_the_subgradient_none():
    (x, labels), found = batch(), {}
    for proximal in (False, True):
        net = model("float32")
        step = fn.TrainStep(net, fn.SGD(0.05), penalty=L1(0.05, proximal=proximal))
        for _ in range(150):
            step(x, labels)
        found[proximal] = sparsity(net)
        assert all((value != 0).all() for name, value in net.parameters().items() if name not in weights(net))
    assert found[False] == {"linear1.w": 0, "linear2.w": 0, "all": 0}
    assert found[True]["all"] > 0.1


def test_the_proximal_step_takes_the_rate_of_the_weights_it_moves():
    net, (x, labels) = model(), batch()
    expected = net.copy()
    fn.TrainStep(expected, fn.SGD(0.1), rates={"linear1.w": 0.5})(x, labels)
    fn.TrainStep(net, fn.SGD(0.1), penalty=L1(2, proximal=True), rates={"linear1.w": 0.5})(x, labels)
    for name, value in expected.parameters().items():
        if name in weights(net):
            backend.call("soft_threshold", value.reshape(-1), threshold=0.1 if name == "linear1.w" else 0.2)
        np.testing.assert_array_equal(net.parameters()[name], value)


def test_sparsity_counts_weights_up_to_the_tolerance():
    net = model()
    for value in weights(net).values():
        value[...] = 1
    net.parameters()["linear1.w"][0, :] = [0, 0, 0.01, -0.01, 0.02]
    net.parameters()["linear1.b"][...] = 0
    assert sparsity(net) == {"linear1.w": 2 / 20, "linear2.w": 0, "all": 2 / 35}
    assert sparsity(net, 0.01) == {"linear1.w": 4 / 20, "linear2.w": 0, "all": 4 / 35}
    with pytest.raises(ValueError, match=r"^sparsity: tolerance must be a number of at least 0 but is -1$"):
        sparsity(net, -1)


# --- rates ---

def test_runs_join_neighbours_and_take_the_padding_along():
    places = {"a.w": 0, "b.w": 16, "c.w": 32, "a.b": 48, "b.b": 64}
    assert rates.runs(places, 80, None) == rates.runs(places, 80, {}) == [(0, 80, 1)]
    assert rates.runs(places, 80, {"*": 1}) == [(0, 80, 1)]
    assert rates.runs(places, 80, {"b.*": 0.5}) == [(0, 16, 1), (16, 32, 0.5), (32, 64, 1), (64, 80, 0.5)]
    assert rates.runs(places, 80, {"*.w": 0.1}) == [(0, 48, 0.1), (48, 80, 1)]
    assert rates.runs(places, 80, {"*": 0.1, "c.w": 1}) == [(0, 32, 0.1), (32, 48, 1), (48, 80, 0.1)]
    assert rates.runs({}, 0, None) == []


@pytest.mark.parametrize(("given", "message"), [
    ({"linear1.*": 0.1, "conv1.*": 0.1}, "rates: 'conv1.*' matches no parameter; there are linear1.w, linear2.w, "
                                         "linear1.b, batch_norm1.gamma, batch_norm1.beta, linear2.b"),
    ({"linear1.*": -1}, "rates: the factor of 'linear1.*' must be a number of at least 0 but is -1"),
    ({"linear1.*": math.nan}, "rates: the factor of 'linear1.*' must be a number of at least 0 but is nan")])
def test_rates_that_do_not_fit(given, message):
    with pytest.raises(ValueError) as caught:
        fn.TrainStep(model(), fn.SGD(0.1), rates=given)
    assert str(caught.value) == message


PENALTY = [L2(0.05), L1(0.01), DecoupledDecay(0.1), L1(0.02, proximal=True)]


def trained(rates=None, optimizer=None, steps=4, dtype="float32", lr=0.05, penalty=PENALTY):
    net = model(dtype)
    step = fn.TrainStep(net, optimizer or fn.Adam(), Schedule("s", {}, lambda t: lr), penalty=penalty, rates=rates)
    for t in range(steps):
        step(*batch(t))
    return {name: value.tobytes() for name, value in net.parameters().items()}


@pytest.mark.parametrize("optimizer", [fn.Adam(), fn.SGD(momentum=0.9)], ids=lambda o: o.name)
def test_factors_of_one_change_no_bit(optimizer):
    plain = trained(optimizer=optimizer)
    assert trained({"*": 1}, optimizer) == plain
    assert trained({"linear1.*": 1.0, "*.b": 1}, optimizer) == plain


def test_one_factor_for_all_is_a_rate():
    assert trained({"*": 0.5}) == trained(lr=0.025)


def test_each_parameter_has_its_own_rate():
    """The first step from the same state: every parameter is where one rate for all would have put it."""
    factors = {"linear1.w": 0.5, "batch_norm1.*": 2.0, "linear2.b": 0.25}
    mixed, by_factor = trained(factors, steps=1), {f: trained({"*": f}, steps=1) for f in (1, 0.5, 2.0, 0.25)}
    for name, found in mixed.items():
        factor = next((f for pattern, f in factors.items() if name.startswith(pattern.rstrip("*"))), 1)
        assert found == by_factor[factor][name], name


def test_a_factor_of_zero_freezes():
    before = {name: value.tobytes() for name, value in model("float32").parameters().items()}
    after = trained({"linear1.*": 0})
    assert {name for name in before if before[name] == after[name]} == {"linear1.w", "linear1.b"}


def test_padding_stays_zero():
    net = model("float32")
    step = fn.TrainStep(net, fn.Adam(0.1), penalty=PENALTY, rates={"linear2.w": 0.5, "*.b": 2.0})
    for t in range(3):
        step(*batch(t))
    inside = np.zeros(net.store.vector.size, bool)
    for view in net.store.views(inside).values():
        view[...] = True
    assert not inside.all() and (net.store.vector[~inside] == 0).all() and (net.store.vector[inside] != 0).any()


# --- rates that are none ---

@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, -math.inf])
def test_a_rate_that_is_none_is_refused_where_it_is_used(bad):
    net = model()
    schedule = Schedule("mine", {"a": 1}, lambda t: (0.1, 0.1, bad)[t])
    step = fn.TrainStep(net, fn.SGD(momentum=0.9), schedule)
    for t in range(2):
        step(*batch(t))
    before, velocity = net.state(), step.state["velocity"].copy()
    with pytest.raises(ValueError) as caught:
        step(*batch(2))
    assert str(caught.value) == (f"step 2: the learning rate is {bad} by mine(a=1), but it must be a finite number of "
                                 f"at least 0")
    assert step.count == 2 and all((net.state()[name] == value).all() for name, value in before.items())
    assert step.state["velocity"].tobytes() == velocity.tobytes()


def test_a_rate_of_zero_moves_nothing():
    assert trained(lr=0, steps=2) == {n: v.tobytes() for n, v in model("float32").parameters().items()}
