"""Updates against recurrences in decimal arithmetic, penalties against the cost they stand for, schedules."""

import json
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

import fastnet as fn
from fastnet import backend
from fastnet.functions._update import Regularization
from fastnet.functions.adam_update import EPS_MODES
from fastnet.optim import penalties, schedules
from fastnet.optim.optimizers import OPTIMIZERS

STEPS, SIZE, PENALISED, DECAY = 100, 7, 3, 0.05
REGULARIZATION = Regularization(decay=DECAY, penalised=PENALISED)
IMPLEMENTATIONS = ("reference", "cpu")


def gradients(dtype):
    """STEPS gradients of very different sizes, numbers that `dtype` holds exactly."""
    rng = np.random.default_rng(5)
    return (rng.normal(size=(STEPS, SIZE)) * np.logspace(-2, 1, SIZE)).astype(dtype)


def start(dtype):
    return np.random.default_rng(6).normal(size=SIZE).astype(dtype)


def exactly(recurrence, dtype):
    """Run the recurrence of one entry, w after all steps, in 50 digits, for every entry."""
    with localcontext() as context:
        context.prec = 50
        found = []
        for i, w in enumerate(start(dtype)):
            column = [Decimal(float(g)) for g in gradients(dtype)[:, i]]
            found.append(float(recurrence(Decimal(float(w)), column, Decimal(DECAY) if i < PENALISED else Decimal(0))))
    return np.array(found)


def close(dtype):
    return {"rtol": 1e-4 if dtype == "float32" else 1e-12, "atol": 1e-5 if dtype == "float32" else 1e-13}


# --- updates ---

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_follows_its_recurrence(implementation, dtype, momentum, nesterov):
    def recurrence(w, column, decay):
        v, mu, lr = Decimal(0), Decimal(momentum), Decimal(rate)
        for g in column:
            g += decay * w
            v = mu * v + g
            w -= lr * (g + mu * v if nesterov else v)
        return w

    rate = 0.01
    w, optimizer = start(dtype), fn.SGD(momentum=momentum, nesterov=nesterov)
    state = optimizer.start(w)
    assert set(state) == ({"velocity"} if momentum else set())
    with backend.use(implementation):
        for step, g in enumerate(gradients(dtype)):
            kept = g.copy()
            optimizer.update(w, g, state, step=step, lr=rate, regularization=REGULARIZATION)
            np.testing.assert_array_equal(g, kept)
    assert w.dtype == dtype and all(s.dtype == dtype for s in state.values())
    np.testing.assert_allclose(w, exactly(recurrence, dtype), **close(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("eps_mode", EPS_MODES)
def test_adam_follows_its_recurrence(implementation, dtype, eps_mode):
    beta1, beta2, eps, lr = 0.8, 0.95, 0.03125, 0.01  # an eps so large that its place matters

    def recurrence(w, column, decay):
        b1, b2, e, m, v = Decimal(beta1), Decimal(beta2), Decimal(eps), Decimal(0), Decimal(0)
        for t, g in enumerate(column, start=1):
            g += decay * w
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
            w -= Decimal(lr) * {"outside": lambda m=m_hat, v=v_hat: m / (v.sqrt() + e),
                                "inside": lambda m=m_hat, v=v_hat: m / (v + e).sqrt(),
                                "hat": lambda m=m, v=v, t=t: ((1 - b2**t).sqrt() / (1 - b1**t)) * m / (v.sqrt() + e),
                                }[eps_mode]()
        return w

    w, optimizer = start(dtype), fn.Adam(beta1=beta1, beta2=beta2, eps=eps, eps_mode=eps_mode)
    state = optimizer.start(w)
    assert set(state) == {"m", "v"}
    with backend.use(implementation):
        for step, g in enumerate(gradients(dtype)):
            kept = g.copy()
            optimizer.update(w, g, state, step=step, lr=lr, regularization=REGULARIZATION)
            np.testing.assert_array_equal(g, kept)
    assert w.dtype == dtype and all(s.dtype == dtype for s in state.values())
    np.testing.assert_allclose(w, exactly(recurrence, dtype), **close(dtype))


def test_the_three_places_of_eps_differ():
    results = []
    for eps_mode in EPS_MODES:
        w, optimizer = start("float64"), fn.Adam(eps=0.03125, eps_mode=eps_mode)
        state = optimizer.start(w)
        for step, g in enumerate(gradients("float64")[:3]):
            optimizer.update(w, g, state, step=step, lr=0.1)
        results.append(w)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(results, results[1:] + results[:1], strict=True))


@pytest.mark.parametrize("optimizer", [fn.SGD(), fn.SGD(momentum=0.9), fn.SGD(momentum=0.9, nesterov=True),
                                       *(fn.Adam(eps_mode=mode) for mode in EPS_MODES)],
                         ids=["plain", "momentum", "nesterov", *EPS_MODES])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 2e-6), ("float64", 1e-14)])
def test_kernels_agree_with_the_reference(optimizer, dtype, bound):
    rng = np.random.default_rng(1)
    found = []
    regularization = Regularization(decay=0.1, penalised=400)
    w0, g = rng.normal(size=1000).astype(dtype), rng.normal(size=(5, 1000)).astype(dtype)
    for implementation in IMPLEMENTATIONS:
        w = w0.copy()
        state = optimizer.start(w)
        with backend.use(implementation):
            for step in range(5):
                optimizer.update(w, g[step], state, step=step, lr=0.01, regularization=regularization)
        found.append([w, *state.values()])
    for ours, theirs in zip(*found, strict=True):
        assert np.abs(ours - theirs).max() <= bound * np.abs(ours).max()


@pytest.mark.parametrize("eps_mode", EPS_MODES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_first_step_of_adam_is_lr_whatever_the_gradient(eps_mode, scale):
    w, optimizer = np.ones(4), fn.Adam(eps=1e-20, eps_mode=eps_mode)
    optimizer.update(w, scale * np.array([1, -2, 3, -4.0]), optimizer.start(w), step=0, lr=0.01)
    np.testing.assert_allclose(w, [0.99, 1.01, 0.99, 1.01], rtol=1e-6)


def test_momentum_carries_the_velocity_on():
    w, optimizer = np.zeros(1), fn.SGD(momentum=0.5)
    state = optimizer.start(w)
    for step, expected in enumerate((-1, -2.5, -4.25)):  # steps of 1, 1.5 and 1.75
        optimizer.update(w, np.ones(1), state, step=step, lr=1.0)
        assert w[0] == expected


@pytest.mark.parametrize(("make", "message"), [
    (lambda: fn.SGD(0), "SGD: the learning rate must be a positive number but is 0"),
    (lambda: fn.SGD(-0.1), "but is -0.1"),
    (lambda: fn.SGD(math.nan), "but is nan"),
    (lambda: fn.Adam(math.inf), "Adam: the learning rate must be a positive number but is inf"),
    (lambda: fn.SGD(0.1, momentum=1), "SGD: momentum must be in [0, 1) but is 1"),
    (lambda: fn.SGD(0.1, momentum=-0.5), "but is -0.5"),
    (lambda: fn.SGD(0.1, momentum=math.nan), "but is nan"),
    (lambda: fn.SGD(0.1, nesterov=True), "SGD: Nesterov's form needs a momentum above 0"),
    (lambda: fn.Adam(beta1=1), "Adam: beta1 must be in [0, 1) but is 1"),
    (lambda: fn.Adam(beta2=-1), "Adam: beta2 must be in [0, 1) but is -1"),
    (lambda: fn.Adam(eps=0), "Adam: eps must be a positive number but is 0"),
    (lambda: fn.Adam(eps_mode="in"), "Adam: eps_mode must be one of outside, inside, hat but is 'in'"),
])
def test_optimizers_say_what_is_out_of_range(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("optimizer", [fn.SGD(0.1, momentum=0.5, nesterov=True), fn.SGD(),
                                       fn.Adam(0.1, beta1=0.1, beta2=0.2, eps=0.3, eps_mode="hat")])
def test_settings_make_the_optimizer_again(optimizer):
    settings = json.loads(json.dumps(optimizer.settings()))
    again = OPTIMIZERS[optimizer.name](**settings)
    assert vars(again) == vars(optimizer)


# --- penalties ---

def test_values_of_the_forms():
    w = np.array([1, -2, 3], np.float32)
    assert fn.L2(0.005).value(w) == pytest.approx(0.005 * 14, rel=1e-15)
    assert fn.WeightDecay(0.005).value(w) == pytest.approx(0.0025 * 14, rel=1e-15)
    assert fn.L2(0).value(w) == 0
    assert fn.L2(0.1).settings() == {"name": "L2", "decay": 0.2}
    assert fn.WeightDecay(0.1).settings() == {"name": "WeightDecay", "decay": 0.1}


def test_the_value_is_summed_in_float64():
    w = np.full(10**6, 0.1, np.float32)
    assert fn.L2(1).value(w) == pytest.approx(10**6 * float(np.float32(0.1)) ** 2, rel=1e-12)


def test_l2_of_lambda_is_weight_decay_of_twice_lambda():
    w = np.linspace(-1, 1, 5)
    assert fn.L2(0.005).decay == fn.WeightDecay(0.01).decay == 0.01
    assert fn.L2(0.005).value(w) == fn.WeightDecay(0.01).value(w)
    assert penalties.weight_decay_from_l2(0.005) == 0.01
    assert penalties.l2_from_weight_decay(0.01) == 0.005


def test_scikit_learns_alpha():
    w, alpha, batch_size = np.linspace(-1, 1, 5), 0.3, 20
    penalty = fn.WeightDecay(penalties.weight_decay_from_sklearn(alpha, batch_size))
    assert penalty.value(w) == pytest.approx(alpha / (2 * batch_size) * (w**2).sum(), rel=1e-14)
    assert penalty.decay == pytest.approx(alpha / batch_size, rel=1e-15)


@pytest.mark.parametrize("strength", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("penalty", [fn.L2, fn.WeightDecay])
def test_a_penalty_must_not_be_negative(penalty, strength):
    with pytest.raises(ValueError, match=f"{penalty.__name__}: the strength must be a number of at least 0 but is"):
        penalty(strength)


def test_the_step_follows_the_gradient_of_the_cost():
    """Centered differences of loss + lambda sum w^2 in every parameter, weights and others."""
    model = fn.Sequential([fn.Linear(4, 5), fn.BatchNorm(5), fn.Tanh(), fn.Linear(5, 3)], dtype="float64", seed=3)
    rng = np.random.default_rng(0)
    for value in model.parameters().values():
        value[...] = rng.normal(size=value.shape)
    x, labels = rng.normal(size=(8, 4)), rng.integers(0, 3, 8)
    step = fn.TrainStep(model, fn.SGD(lr=1.0), penalty=fn.L2(0.1))

    def cost():
        return float(fn.loss_and_gradients(model, x, labels)[0]) + step.penalty_value()

    numeric, h = {}, 1e-5
    for name, value in model.parameters().items():
        slopes = []
        for index in np.ndindex(value.shape):
            kept, ends = value[index], []
            for value[index] in (kept + h, kept - h):
                ends.append(cost())
            value[index] = kept
            slopes.append((ends[0] - ends[1]) / (2 * h))
        numeric[name] = np.reshape(slopes, value.shape)
    before = model.state()
    step(x, labels)
    for name, value in model.parameters().items():
        np.testing.assert_allclose(before[name] - value, numeric[name], rtol=1e-7, atol=1e-8, err_msg=name)
    weight = before["linear2.w"]
    _, unpenalised = fn.loss_and_gradients(_restored(model, before), x, labels)
    np.testing.assert_allclose(numeric["linear2.w"] - unpenalised["linear2.w"], 2 * 0.1 * weight, atol=1e-8)
    np.testing.assert_allclose(numeric["linear2.b"], unpenalised["linear2.b"], atol=1e-8)


def _restored(model, state):
    model.load_state(state)
    return model


# --- schedules ---

def test_constant():
    rate = schedules.constant(0.25)
    assert [rate(t) for t in (0, 1, 10**9)] == [0.25] * 3


def test_triangular_at_its_corners_and_between():
    rate = schedules.triangular(0.25, 1.25, half_cycle_steps=4)
    assert [rate(t) for t in range(10)] == [0.25, 0.5, 0.75, 1.0, 1.25, 1.0, 0.75, 0.5, 0.25, 0.5]
    assert all(rate(t) == rate(t + 8 * k) for t in range(8) for k in (1, 7))


def test_triangular_of_the_reports():
    rate = schedules.triangular(half_cycle_steps=2250)  # five epochs of 45,000 images in batches of 100
    assert rate(0) == rate(4500) == 1e-5
    assert rate(2250) == pytest.approx(0.1, rel=1e-15) == rate(3 * 2250)
    assert rate(1125) == pytest.approx((1e-5 + 0.1) / 2, rel=1e-15) == rate(3375)
    assert rate(1) - rate(0) == pytest.approx((0.1 - 1e-5) / 2250, rel=1e-9)


def test_exponential_counts_steps_or_whole_epochs():
    by_step = schedules.exponential(0.5, 0.25, unit="step")
    assert [by_step(t) for t in range(4)] == [0.5, 0.125, 0.03125, 0.0078125]
    by_epoch = schedules.exponential(0.5, 0.25, unit="epoch", steps_per_epoch=3)
    assert [by_epoch(t) for t in range(7)] == [0.5] * 3 + [0.125] * 3 + [0.03125]


@pytest.mark.parametrize("schedule", [
    schedules.constant(0.1), schedules.triangular(1e-4, 0.2, half_cycle_steps=7),
    schedules.exponential(0.1, 0.9, unit="step"), schedules.exponential(0.1, 0.9, unit="epoch", steps_per_epoch=5)])
def test_name_and_settings_make_the_schedule_again(schedule):
    settings = json.loads(json.dumps(schedule.settings))
    again = schedules.from_settings(schedule.name, settings)
    assert [again(t) for t in range(30)] == [schedule(t) for t in range(30)]
    assert repr(again) == repr(schedule) and repr(schedule).startswith(f"{schedule.name}(lr")


@pytest.mark.parametrize(("make", "message"), [
    (lambda: schedules.constant(0), "constant: lr must be a positive number but is 0"),
    (lambda: schedules.constant(math.nan), "constant: lr must be a positive number but is nan"),
    (lambda: schedules.triangular(0, 0.1, half_cycle_steps=5), "triangular: lr_min must be a positive number but is 0"),
    (lambda: schedules.triangular(0.1, math.inf, half_cycle_steps=5), "triangular: lr_max must be a positive number"),
    (lambda: schedules.triangular(half_cycle_steps=0), "triangular: half_cycle_steps must be a positive number"),
    (lambda: schedules.triangular(2, 1, half_cycle_steps=5), "triangular: lr_min (2) is larger than lr_max (1)"),
    (lambda: schedules.exponential(0.1, 0, unit="step"), "exponential: decay must be a positive number but is 0"),
    (lambda: schedules.exponential(-1, 0.9, unit="step"), "exponential: lr must be a positive number but is -1"),
    (lambda: schedules.exponential(1, 0.9, unit="day"), "exponential: unit must be 'step' or 'epoch' but is 'day'"),
    (lambda: schedules.exponential(1, 0.9, unit="epoch"), "exponential: unit='epoch' needs steps_per_epoch"),
    (lambda: schedules.exponential(1, 0.9, unit="epoch", steps_per_epoch=-3),
     "exponential: steps_per_epoch must be a positive number but is -3"),
    (lambda: schedules.from_settings("cosin", {}), "schedule 'cosin' is not known; choose from constant, triangular, "
                                                   "exponential"),
])
def test_schedules_say_what_is_out_of_range(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)
