"""Every optimizer, reference and kernel: one step at a time against its published recurrence in 50 digits, then torch.

Each exact step starts from the state the implementation is in, so nothing accumulates. The error of w is counted in
ULP of max(|w before|, |step|), |step| being the sum of its terms' magnitudes (of the velocity's old and new part, say):
where terms nearly cancel, a ULP of what is left measures nothing. That of the state is counted alike.
"""

import itertools
import json
import math

import mpmath
import numpy as np
import pytest
from strict_arrays import strict, unwrap

import fastnet as fn
from fastnet import backend
from fastnet.functions._update import Regularization
from fastnet.functions.adam_update import one_minus_power
from fastnet.optim.optimizers import OPTIMIZERS, SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, RMSprop

mp = mpmath.MPContext()
mp.dps = 50

ALL = {
    "sgd": SGD(0.1),
    "momentum": SGD(0.05, momentum=0.9),
    "nesterov": SGD(0.05, momentum=0.9, nesterov=True),
    "adam": Adam(),
    "adam-inside": Adam(eps=1e-3, eps_mode="inside"),
    "adam-hat": Adam(eps=1e-3, eps_mode="hat"),
    "adam-no-memory": Adam(beta1=0.0, beta2=0.0),
    "adamw": AdamW(0.01, weight_decay=0.1),
    "adagrad": Adagrad(),
    "adagrad-initial": Adagrad(0.1, initial=0.1, eps=1e-7),
    "adadelta": Adadelta(),
    "adadelta-rate": Adadelta(3.0, rho=0.9, eps=1e-7),
    "adamax": Adamax(),
    "adamax-eps": Adamax(0.1, beta1=0.5, beta2=0.9, eps=0.1),
    "rmsprop": RMSprop(),
    "rmsprop-inside": RMSprop(1e-3, alpha=0.9, eps=1e-2, eps_mode="inside"),
}
PENALTIES = {
    "none": Regularization(),
    "all": Regularization(decay=0.05, l1=0.02, shrink=0.1, penalised=7),
}
STEPS, SIZE = 100, 12


def exact(optimizer, parts, state, t, lr):
    """One step of one entry as published, in 50 digits: the terms whose sum is what w loses, and the new state.

    `parts` are the terms of the gradient. A state is given with the terms it is the sum of.
    """
    of = {name: mp.mpf(value) for name, value in vars(optimizer).items() if isinstance(value, float)}
    g = sum(parts)

    def average(memory, old, terms):
        return [memory * old, *((1 - memory) * term for term in terms)]

    def squares(memory, old):
        new = sum(average(memory, old, [g**2]))
        return new, average(memory, old, [sum(map(abs, parts)) ** 2])  # g may be smaller than its parts

    if isinstance(optimizer, SGD):
        if not state:
            return [lr * part for part in parts], {}
        mu = of["momentum"]
        velocity = [mu * state["velocity"], *parts]
        if not optimizer.nesterov:
            return [lr * term for term in velocity], {"velocity": (sum(velocity), velocity)}
        return [lr * term for term in (*parts, *(mu * v for v in velocity))], {"velocity": (sum(velocity), velocity)}
    if isinstance(optimizer, Adam):  # Kingma & Ba, algorithm 1 and section 2
        b1, b2, eps = of["beta1"], of["beta2"], of["eps"]
        m = average(b1, state["m"], parts)
        v, v_terms = squares(b2, state["v"])
        v_hat = v / (1 - b2**t)
        scale = lr / (1 - b1**t) * {"outside": lambda: 1 / (mp.sqrt(v_hat) + eps),
                                    "inside": lambda: 1 / mp.sqrt(v_hat + eps),
                                    "hat": lambda: mp.sqrt(1 - b2**t) / (mp.sqrt(v) + eps)}[optimizer.eps_mode]()
        return [scale * term for term in m], {"m": (sum(m), m), "v": (v, v_terms)}
    if isinstance(optimizer, Adagrad):  # Duchi et al., section 1.1
        s = state["squares"] + g**2
        return ([lr * part / (mp.sqrt(s) + of["eps"]) for part in parts],
                {"squares": (s, [state["squares"], sum(map(abs, parts)) ** 2])})
    if isinstance(optimizer, Adadelta):  # Zeiler, algorithm 1
        rho, eps = of["rho"], of["eps"]
        v, v_terms = squares(rho, state["v"])
        ratio = mp.sqrt(state["u"] + eps) / mp.sqrt(v + eps)
        u = sum(average(rho, state["u"], [(ratio * g) ** 2]))
        u_terms = average(rho, state["u"], [(ratio * sum(map(abs, parts))) ** 2])
        return [lr * ratio * part for part in parts], {"v": (v, v_terms), "u": (u, u_terms)}
    if isinstance(optimizer, Adamax):  # Kingma & Ba, algorithm 2, with PyTorch's eps
        b1, b2 = of["beta1"], of["beta2"]
        m = average(b1, state["m"], parts)
        u = max(b2 * state["u"], abs(g) + of["eps"])
        return [lr / (1 - b1**t) * term / u for term in m], {"m": (sum(m), m), "u": (u, [max(u, sum(map(abs, parts)))])}
    v, v_terms = squares(of["alpha"], state["v"])  # Tieleman & Hinton, lecture 6.5
    root = mp.sqrt(v + of["eps"]) if optimizer.eps_mode == "inside" else mp.sqrt(v) + of["eps"]
    return [lr * part / root for part in parts], {"v": (v, v_terms)}


def worst_errors(optimizer, implementation, dtype, regularization, run=None):
    """The largest error of w and of the state over all steps and entries, in ULP, when `run` (else itself) updates."""
    rng = np.random.default_rng(7)
    gradients = (rng.normal(size=(STEPS, SIZE)) * np.logspace(-3, 1, SIZE)).astype(dtype)
    gradients[:, 3] = 0  # a unit that is never active
    gradients[::3, 5] = 0
    w = rng.normal(size=SIZE).astype(dtype)
    w[2] = 0  # sign(0)
    state, lr = optimizer.start(w), optimizer.lr
    of_w = of_state = 0.0
    for t, g in enumerate(gradients, start=1):
        w0, state0, g0 = w.copy(), {key: s.copy() for key, s in state.items()}, g.copy()
        with backend.use(implementation):
            (run or optimizer).update(w, g, state, step=t - 1, lr=lr, regularization=regularization)
        assert g.tobytes() == g0.tobytes()
        for i in range(SIZE):
            applies = i < regularization.penalised
            decay, l1, shrink = (mp.mpf(x if applies else 0) for x in regularization[:3])
            shrink += mp.mpf(getattr(optimizer, "weight_decay", 0)) if applies else 0
            start = mp.mpf(float(w0[i]))
            terms, new = exact(optimizer, [mp.mpf(float(g[i])), decay * start, l1 * mp.sign(start)],
                               {key: mp.mpf(float(s[i])) for key, s in state0.items()}, t, mp.mpf(lr))
            terms.append(mp.mpf(lr) * shrink * start)
            of_w = max(of_w, ulps(w[i], start - sum(terms), max(abs(start), sum(map(abs, terms))), dtype))
            assert set(new) == set(state)
            for key, (value, parts) in new.items():
                of_state = max(of_state, ulps(state[key][i], value, sum(map(abs, parts)), dtype))
    assert w.dtype == dtype and all(s.dtype == dtype for s in state.values())
    return of_w, of_state


def ulps(found, true, size, dtype):
    return float(abs(mp.mpf(float(found)) - true)) / float(np.spacing(np.asarray(float(size), dtype)))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("regularization", PENALTIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_each_step_is_the_published_one(name, implementation, dtype, regularization):
    of_w, of_state = worst_errors(ALL[name], implementation, dtype, PENALTIES[regularization])
    assert of_w <= 4 and of_state <= 4


@pytest.mark.parametrize(("slip", "right"), [
    (Adam(beta1=0.9 + 1e-12), Adam()), (Adam(eps=1.0001e-8), Adam()), (AdamW(weight_decay=1e-9), Adam()),
    (Adagrad(eps=1.001e-10), Adagrad()), (RMSprop(eps_mode="inside"), RMSprop()),
    (SGD(momentum=0.9, nesterov=True), SGD(momentum=0.9))], ids=lambda o: repr(vars(o)))
def test_the_comparison_can_fail(slip, right):
    """Far smaller slips than a wrong formula are seen."""
    slip.lr = right.lr = 0.01
    assert max(worst_errors(right, "cpu", "float64", PENALTIES["all"], run=slip)) > 4


@pytest.mark.parametrize("beta", [0.9, 0.999, 1 - 1e-9, 0.0])
@pytest.mark.parametrize("t", [1, 2, 10, 1000, 10**6])
def test_the_correction_for_the_start_is_right_to_the_last_digits(beta, t):
    assert ulps(one_minus_power(beta, t), 1 - mp.mpf(beta) ** t, one_minus_power(beta, t), "float64") <= 4


# --- against PyTorch ---

PEERS = {
    "sgd": (SGD(0.1), "SGD", {}),
    "momentum": (SGD(0.1, momentum=0.9), "SGD", {"momentum": 0.9}),
    "nesterov": (SGD(0.1, momentum=0.9, nesterov=True), "SGD", {"momentum": 0.9, "nesterov": True}),
    "adam": (Adam(), "Adam", {}),
    "adamw": (AdamW(), "AdamW", {}),
    "adagrad": (Adagrad(), "Adagrad", {}),
    "adagrad-initial": (Adagrad(initial=0.1), "Adagrad", {"initial_accumulator_value": 0.1}),
    "adadelta": (Adadelta(rho=0.9), "Adadelta", {}),
    "adamax": (Adamax(), "Adamax", {}),
    "rmsprop": (RMSprop(), "RMSprop", {}),
}


@pytest.mark.parametrize("coupled", [0.0, 0.1])
@pytest.mark.parametrize("name", PEERS)
def test_agrees_with_pytorch(name, coupled):
    """With the defaults of both, but for Adadelta's rho; AdamW's weight_decay is its own there too."""
    torch = pytest.importorskip("torch")
    optimizer, peer, options = PEERS[name]
    if name == "adamw" and coupled:
        pytest.skip("PyTorch's AdamW has no coupled decay")
    if coupled:
        options = {**options, "weight_decay": coupled}
    rng = np.random.default_rng(2)
    w, gradients = rng.normal(size=30), rng.normal(size=(20, 30)) * np.logspace(-3, 1, 30)
    theirs = torch.tensor(w.copy(), requires_grad=True)
    their_optimizer = getattr(torch.optim, peer)([theirs], lr=optimizer.lr, **options)
    state = optimizer.start(w)
    for t, g in enumerate(gradients):
        optimizer.update(w, g, state, step=t, lr=optimizer.lr, regularization=Regularization(coupled, penalised=30))
        theirs.grad = torch.tensor(g)
        their_optimizer.step()
    np.testing.assert_allclose(w, theirs.detach().numpy(), rtol=1e-12, atol=1e-12)


# --- all alike ---

@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_parallel_kernel_has_the_bits_of_the_serial_one(name, dtype):
    """A vector in one call and in pieces: so a rate for a part of the model changes nothing in the rest."""
    rng = np.random.default_rng(3)
    size, cut = 50_001, (0, 64, 1024, 30_016, 50_001)
    w0, gradients = rng.normal(size=size).astype(dtype), rng.normal(size=(3, size)).astype(dtype)
    found = []
    for bounds in ((0, size), cut):
        w, optimizer = w0.copy(), ALL[name]
        state = optimizer.start(w)
        with backend.use("cpu"):
            for t, g in enumerate(gradients):
                for start, stop in itertools.pairwise(bounds):
                    here = slice(start, stop)
                    optimizer.update(w[here], g[here], {key: s[here] for key, s in state.items()}, step=t, lr=0.01,
                                     regularization=Regularization(0.1, 0.01, 0.1, max(0, min(2000, stop) - start)))
        found.append([w, *state.values()])
    for one, pieces in zip(*found, strict=True):
        assert one.tobytes() == pieces.tobytes()


@pytest.mark.parametrize("name", ALL)
def test_the_reference_runs_on_other_arrays(name):
    rng = np.random.default_rng(4)
    w, g, optimizer = rng.normal(size=9), rng.normal(size=9), ALL[name]
    there, state, state_there = strict(w), optimizer.start(w), optimizer.start(strict(w))
    regularization = Regularization(0.1, 0.1, 0.1, penalised=4)
    optimizer.update(there, strict(g), state_there, step=0, lr=0.1, regularization=regularization)
    with backend.use("reference"):
        optimizer.update(w, g, state, step=0, lr=0.1, regularization=regularization)
    np.testing.assert_array_equal(unwrap(there), w)
    for key, vector in state.items():
        np.testing.assert_array_equal(unwrap(state_there[key]), vector)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_padding_and_dead_units_stay_where_they_are(name, implementation):
    w, optimizer = np.zeros(20, np.float32), ALL[name]
    w[10:] = 2
    state = optimizer.start(w)
    with backend.use(implementation):
        for t in range(3):
            optimizer.update(w, np.zeros_like(w), state, step=t, lr=0.5,
                             regularization=Regularization(0.1, 0.1, 0.1, penalised=10))
    np.testing.assert_array_equal(w, np.repeat(np.float32([0, 2]), 10))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_a_gradient_that_is_not_a_number_shows(name, implementation):
    w, optimizer = np.ones(4), ALL[name]
    with backend.use(implementation):
        optimizer.update(w, np.array([1, np.nan, 1, 1]), optimizer.start(w), step=0, lr=0.1)
    assert np.isnan(w).tolist() == [False, True, False, False]


@pytest.mark.parametrize("name", ALL)
def test_settings_make_it_again(name):
    optimizer = ALL[name]
    again = OPTIMIZERS[optimizer.name](**json.loads(json.dumps(optimizer.settings())))
    assert type(again) is type(optimizer) and vars(again) == vars(optimizer)


def test_adamw_is_adam_with_decoupled_decay_whose_strengths_add_up():
    rng = np.random.default_rng(5)
    w = rng.normal(size=50)
    ours, theirs = w.copy(), w.copy()
    adamw, adam = AdamW(0.01, weight_decay=0.25), Adam(0.01)
    state, state_of_adam = adamw.start(w), adam.start(w)
    for t in range(5):
        g = rng.normal(size=50)
        adamw.update(ours, g, state, step=t, lr=0.01, regularization=Regularization(shrink=0.5, penalised=20))
        adam.update(theirs, g, state_of_adam, step=t, lr=0.01, regularization=Regularization(shrink=0.75, penalised=20))
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", [name for name in ALL if name != "adam-no-memory"])
def test_two_epochs_of_each_lower_the_loss(name):
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 4, 400)
    x = (rng.normal(size=(400, 12)) + 1.5 * np.eye(4, 12)[labels]).astype(np.float32)
    step = fn.TrainStep(fn.Sequential([fn.Linear(12, 16), fn.BatchNorm(16), fn.ReLU(), fn.Linear(16, 4)]), ALL[name])
    losses = [float(step(x[i : i + 20], labels[i : i + 20])) for _ in range(2) for i in range(0, 400, 20)]
    assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: AdamW(-1), "AdamW: the learning rate must be a positive number but is -1"),
    (lambda: AdamW(weight_decay=-0.1), "AdamW: weight_decay must be a number of at least 0 but is -0.1"),
    (lambda: AdamW(weight_decay=math.nan), "AdamW: weight_decay must be a number of at least 0 but is nan"),
    (lambda: AdamW(beta2=1), "AdamW: beta2 must be in [0, 1) but is 1"),
    (lambda: Adagrad(0), "Adagrad: the learning rate must be a positive number but is 0"),
    (lambda: Adagrad(initial=-1), "Adagrad: initial must be a number of at least 0 but is -1"),
    (lambda: Adagrad(eps=0), "Adagrad: eps must be a positive number but is 0"),
    (lambda: Adadelta(rho=1), "Adadelta: rho must be in [0, 1) but is 1"),
    (lambda: Adadelta(eps=-1), "Adadelta: eps must be a positive number but is -1"),
    (lambda: Adamax(beta1=-0.1), "Adamax: beta1 must be in [0, 1) but is -0.1"),
    (lambda: Adamax(eps=0), "Adamax: eps must be a positive number but is 0"),
    (lambda: RMSprop(alpha=2), "RMSprop: alpha must be in [0, 1) but is 2"),
    (lambda: RMSprop(eps=0), "RMSprop: eps must be a positive number but is 0"),
    (lambda: RMSprop(eps_mode="hat"), "RMSprop: eps_mode must be one of outside, inside but is 'hat'"),
])
def test_optimizers_say_what_is_out_of_range(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == message
