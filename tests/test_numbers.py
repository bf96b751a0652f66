"""Numbers that are no ordinary ones, through every op, optimizer and schedule: the result that `fastnet.ops` promises.

Each row runs by the reference and by the kernels; where both give the same, what it is is said of the reference alone.
"""

import inspect

import numpy as np
import pytest
from emulator import engine
from emulator.arrays import emulated

import fastnet as fn
from fastnet import backend
from fastnet.arrays import to_numpy
from fastnet.check.cases import cases, ops
from fastnet.check.contract import argument_names
from fastnet.optim.optimizers import OPTIMIZERS
from fastnet.optim.schedules import SCHEDULES

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of what is put in on purpose
ROUNDING = 3e-5  # of the largest entry: float32, and sums in another order
TINY = 1e-43  # 70 units of the last place of a denormal float32; the smallest normal one is 1.2e-38
FLOATS = [case for op in ops() for case in cases(op) if case.arrays[0].dtype.kind == "f"]
CASES = [pytest.param(case, id=f"{case.op}-{case.label}") for case in FLOATS]
FIRST = [pytest.param(next(c for c in FLOATS if c.op == op), id=op) for op in dict.fromkeys(c.op for c in FLOATS)]
BATCHED = {"x", "labels", "targets", "samples", "indices", "shortcut"}
LOSSES = ("huber", "mean_squared_error", "sigmoid_cross_entropy", "soft_margin", "softmax_cross_entropy")
# Those whose x is normalised by what all samples have in common, and with the norm's own shift as the rest of the y.
TOGETHER = ("basic_block", "batch_norm", "batch_norm_relu", "batch_norm_add_relu", "perceptron")

WHOLE = (*TOGETHER, *LOSSES, "pooled_softmax_cross_entropy")  # no sample of which has a y of its own


def single(case):
    return [a if a is None or a.dtype.kind != "f" else a.astype(np.float32) for a in case.arrays]


def passes(implementation, case, arrays):
    """[y, gradients] for a dy of small whole numbers, or the error."""
    module = backend.module(implementation, case.op)
    try:
        y, cache = module.forward(*arrays, **case.options)
        dy = np.ones_like(y) if y.ndim == 0 else (np.arange(y.size).reshape(y.shape) * 7 % 11).astype(y.dtype)
        return [y, *module.backward(dy, cache)]
    except (ValueError, TypeError) as error:
        return error


EXTREMES = {
    "nan": lambda x: _with(x, np.nan), "inf": lambda x: _with(x, np.inf), "-inf": lambda x: _with(x, -np.inf),
    "huge": lambda x: x * np.float32(1e4), "largest": lambda x: x * np.float32(1e30),
    "denormal": lambda x: x * np.float32(1e-40), "constant": lambda x: np.full_like(x, 0.7), "zero": np.zeros_like,
    "one": lambda x: x[:1]}
# (op, extreme) -> how far y of the kernels may be from the reference's, and why.
APART = {
    # The variance overflows on the way through the first layer or does not, as its sums are kept: then nothing is left.
    ("perceptron", "largest"): np.inf,
    # A channel without variance, normalised: its rounding times 300 and the weights of the second layer.
    **{("perceptron", extreme): 1e-2 for extreme in ("constant", "denormal", "zero")},
    **{(op, "constant"): 1e-3 for op in TOGETHER if op != "perceptron"}}


def _with(x, value):
    x = x.copy()
    x.flat[x.size // 2] = value
    return x


def extreme_of(case, extreme):
    arrays = single(case)
    if extreme != "one":
        return [EXTREMES[extreme](arrays[0]), *arrays[1:]]
    names = argument_names(backend.module("reference", case.op), 0)
    return [a[:1] if name in BATCHED and a is not None and a.ndim else a
            for name, a in zip(names, arrays, strict=False)]


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("case", CASES)
def test_kernels_do_as_the_reference(case, extreme):
    arrays = extreme_of(case, extreme)
    assert backend.module("cpu", case.op).supports(*arrays, **case.options)
    ours, theirs = (passes(name, case, arrays) for name in ("cpu", "reference"))
    if isinstance(theirs, Exception):
        assert (type(ours), str(ours)) == (type(theirs), str(theirs))
        return
    finite_x = np.isfinite(arrays[0]).all()
    for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if b is None or (place and not finite_x):  # of gradients then nothing is promised
            continue
        assert a.shape == b.shape and a.dtype == b.dtype
        bound = APART.get((case.op, extreme), 0)
        if bound != np.inf:
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
            np.testing.assert_array_equal(np.where(np.isinf(a), a, 0), np.where(np.isinf(b), b, 0))
        finite = np.isfinite(a) & np.isfinite(b)
        largest = abs(b[finite]).max(initial=0)
        # A batch norm's gradients of a constant or a NaN channel are rounding alone: 300 times that of what is summed.
        noise = 1e-2 if case.op in TOGETHER and place and extreme not in ("huge", "one") else 0
        error = abs(a[finite].astype(np.float64) - b[finite]).max(initial=0)
        assert error <= ROUNDING * largest + TINY + bound + (bound and 1e-2) + noise


@pytest.mark.parametrize("case", [param for param in CASES if param.values[0].op not in WHOLE])
def test_other_samples_stay_as_they_are(case):
    """A NaN in a sample changes no bit of another sample, neither of y nor of dx."""
    arrays = single(case)
    whole, broken = passes("cpu", case, arrays), passes("cpu", case, [_with(arrays[0], np.nan), *arrays[1:]])
    sample = arrays[0].size // 2 // arrays[0][0].size
    for a, b in zip(whole[:2], broken[:2], strict=True):
        others = np.arange(len(a)) != sample
        np.testing.assert_array_equal(a[others], b[others])
    # A dropout may have dropped it, a stride have passed it over.
    reference = passes("reference", case, [_with(arrays[0], np.nan), *arrays[1:]])[0]
    np.testing.assert_array_equal(np.isnan(broken[0]), np.isnan(reference))


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
@pytest.mark.parametrize("op", ["relu", "leaky_relu", "elu", "gelu", "swish", "sigmoid", "tanh"])
def test_activations(op, implementation):
    module, tiny = backend.module(implementation, op), np.float32(1e-42)
    x = np.array([[np.nan, np.inf, -np.inf, tiny, -tiny, 3e38, -3e38, 0.0]], np.float32)
    y, _ = module.forward(x)
    inf, low = {"relu": (np.inf, 0), "leaky_relu": (np.inf, -np.inf), "elu": (np.inf, -1), "sigmoid": (1, 0),
                "tanh": (1, -1)}.get(op, (np.inf, None))
    assert np.isnan(y[0, 0]) and y[0, 1] == inf and (low is None or y[0, 2] == low)
    if low is None:  # x times 0 at minus infinity: the limit or NaN, and the same in all implementations
        same = backend.module("reference", op).forward(x)[0][0, 2]
        np.testing.assert_array_equal(y[0, 2], same)
    assert np.isfinite(y[0, 3:]).all()
    expected = {"relu": tiny, "leaky_relu": tiny, "elu": tiny, "tanh": tiny, "gelu": tiny / 2, "swish": tiny / 2}
    if op in expected:
        assert y[0, 3] == pytest.approx(expected[op], abs=1.5e-45) and y[0, 3] > 0  # not flushed


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
@pytest.mark.parametrize("scale", [1e4, 1e30])
@pytest.mark.parametrize("op", LOSSES)
def test_losses_of_huge_logits(op, scale, implementation):
    """Against the same in float64: exact as long as a float can hold it."""
    x = (np.array([[1, -1, 0.5], [-2, 2, 2], [0, 0, 0]]) * scale).astype(np.float32)
    labels = np.array([0, 0, 2])
    module = backend.module(implementation, op)
    y, cache = module.forward(x, labels)
    dx = module.backward(np.float32(1), cache)[0]
    precise, their_cache = backend.module("reference", op).forward(x.astype(np.float64), labels)
    if precise < np.finfo(np.float32).max:
        assert y == pytest.approx(float(precise), rel=1e-6)
    else:
        assert op == "mean_squared_error" and np.isposinf(y)
    their_dx = backend.module("reference", op).backward(1.0, their_cache)[0]
    np.testing.assert_allclose(dx, their_dx, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_one_class_alone(implementation):
    """Its probability is 1 whatever the logits: loss 0, gradient 0 but for a rounding of what is 1."""
    module = backend.module(implementation, "softmax_cross_entropy")
    for smoothing in (0.0, 0.1):
        y, cache = module.forward(np.array([[3.0], [-1e30], [0.0]], np.float32), np.zeros(3, np.int64),
                                  label_smoothing=smoothing)
        assert y == 0 and abs(module.backward(np.float32(1), cache)[0]).max() <= 6e-8


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 3), (7, 3), (2, 4, 4, 3), (1, 1, 1, 3)])
@pytest.mark.parametrize("value", [0.0, 0.7, -1e4, 1e-40])
def test_no_variance(implementation, dtype, shape, value):
    """y is beta, but for the rounding of the mean, which is at most an ULP of it, times gamma/sqrt(eps)."""
    module, gamma, beta = backend.module(implementation, "batch_norm"), *np.array([[1.5, -2, 0], [1, 0, -3]], dtype)
    x = np.full(shape, value, dtype)
    y, cache = module.forward(x, gamma, beta)
    rounding = 4 * abs(value) * np.finfo(dtype).eps * 2 / 1e-5**0.5
    np.testing.assert_allclose(y, np.broadcast_to(beta, shape), rtol=1e-6, atol=rounding + 1e-7)
    gradients = module.backward(np.ones_like(x), cache)
    assert all(np.isfinite(g).all() for g in gradients)
    assert np.array_equal(gradients[2], np.full(3, x.size / 3)) and abs(gradients[0]).max() <= 1e-3 + rounding * 600
    mean, var = module.statistics(cache)
    np.testing.assert_allclose(mean, value, rtol=1e-6, atol=1e-44)
    assert (var >= 0).all() and var.max() <= (4 * value * np.finfo(dtype).eps) ** 2 + 1e-44


def test_a_variance_that_overflows():
    x = np.array([[1e30, 1], [-1e30, 2], [1e30, 3]], np.float32)
    gamma, beta = np.float32([2, 1]), np.float32([5, 0])
    for implementation in ("reference", "cpu"):
        y, _ = backend.module(implementation, "batch_norm").forward(x, gamma, beta)
        np.testing.assert_array_equal(y[:, 0], 5)
        assert y[2, 1] == pytest.approx(1.2247, rel=1e-3)


def empty(case):
    names = argument_names(backend.module("reference", case.op), 0)
    return [a[:0] if name in BATCHED and a is not None and a.ndim else a
            for name, a in zip(names, single(case), strict=False)]


@pytest.mark.parametrize("case", FIRST)
def test_no_samples(case):
    """Whoever runs it, through the dispatcher: an empty result, or a ValueError that says so."""
    arrays = empty(case)
    if case.op in WHOLE:
        with pytest.raises(ValueError, match=rf"^{case.op}: .*(empty|at least one sample)"):
            backend.run(case.op, *arrays, **case.options)
        return
    whole = passes("reference", case, single(case))
    y, back = backend.run(case.op, *arrays, **case.options)
    assert y.shape == (0, *whole[0].shape[1:]) and y.dtype == np.float32
    for given, gradient in zip(arrays, back(np.zeros_like(y)), strict=False):
        if gradient is not None:
            assert gradient.shape == given.shape and not gradient.any()


@pytest.mark.parametrize(("op", "extreme"), [("relu", "nan"), ("relu", "denormal"), ("batch_norm", "constant"),
                                             ("batch_norm", "one"), ("softmax_cross_entropy", "huge"),
                                             ("softmax_cross_entropy", "nan"), ("max_pool2d", "nan"),
                                             ("linear", "inf")])
def test_emulated_cuda_kernels_do_as_the_reference(op, extreme):
    engine.install()
    case = next(c for c in FLOATS if c.op == op)
    arrays = extreme_of(case, extreme)
    module, there = backend.module("cuda", op), [None if a is None else emulated(a) for a in arrays]
    y = to_numpy(module.forward(*there, **case.options)[0])
    expected = passes("reference", case, arrays)[0]
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-3 if extreme == "constant" else 1e-44)


# --- optimizers and schedules ---

def updated(kind, implementation, g, steps=2):
    """(parameters, state) after some steps, all with the same gradient."""
    w = np.linspace(-1, 1, len(g)).astype(np.float32)
    made = OPTIMIZERS[kind](0.01)
    state = made.start(w)
    with backend.use(implementation):
        for step in range(steps):
            made.update(w, g.copy(), state, step=step, lr=0.01)
    return w, state


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_gradient_that_is_not_finite_stays_where_it_is(kind, value):
    """Its own parameter is lost, all others are updated as if nothing were, to the bit; kernels do the same."""
    good = np.linspace(-2, 3, 40).astype(np.float32)
    bad = good.copy()
    bad[7] = value
    others = np.arange(40) != 7
    for implementation in ("reference", "cpu"):
        (w, state), (expected, states) = updated(kind, implementation, bad), updated(kind, implementation, good)
        np.testing.assert_array_equal(w[others], expected[others])
        for key in state:
            np.testing.assert_array_equal(state[key][others], states[key][others])
        if not np.isfinite(value):
            assert not np.isfinite(w[7]) or kind in ("adagrad", "adadelta", "rmsprop", "adamax")
        if np.isnan(value):
            assert np.isnan(w[7])
    np.testing.assert_array_equal(np.isnan(updated(kind, "cpu", bad)[0]), np.isnan(updated(kind, "reference", bad)[0]))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_small_and_absent_gradients(kind):
    for g in (np.full(33, 1e-40, np.float32), np.zeros(33, np.float32), np.zeros(0, np.float32)):
        (w, state), (theirs, states) = updated(kind, "cpu", g), updated(kind, "reference", g)
        assert w.shape == g.shape and np.isfinite(w).all()
        np.testing.assert_allclose(w, theirs, rtol=1e-6)
        for key in state:
            np.testing.assert_allclose(state[key], states[key], rtol=1e-5, atol=1.5e-45 * 4)
    if kind in ("adam", "adamw", "adamax"):
        first = updated(kind, "cpu", np.full(3, 1e-40, np.float32), steps=1)[1]["m"]
        assert first[0] == pytest.approx(1e-41, rel=1e-3) and first[0] > 0  # not flushed


@pytest.mark.parametrize("rate", [np.nan, np.inf, -1.0, 0.0])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_rates_that_are_none(kind, rate):
    with pytest.raises(ValueError, match=r"learning rate must be a positive number but is"):
        OPTIMIZERS[kind](rate)
    for name in set(inspect.signature(OPTIMIZERS[kind]).parameters) - {"lr", "nesterov", "eps_mode"}:
        if rate != 0.0:
            with pytest.raises(ValueError, match=name):
                OPTIMIZERS[kind](0.1, **{name: rate})


@pytest.mark.parametrize("rate", [np.nan, np.inf, -1.0, 0.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_rates_that_are_none(name, rate):
    lengths = {"half_cycle_steps": 3, "steps": 9, "warmup_steps": 2, "every": 3, "decay": 0.9, "factor": 0.5,
               "lr_min": 1e-4, "unit": "step"}
    takes = inspect.signature(SCHEDULES[name]).parameters
    first, *_ = takes
    good = {key: value for key, value in lengths.items() if key in takes and key != first}
    main = "lr_max" if "lr_max" in takes else first
    assert np.isfinite([SCHEDULES[name](**{**good, main: 0.1})(t) for t in (0, 1, 8, 9, 10**9)]).all()
    with pytest.raises(ValueError, match=r"must be a positive number|positive"):
        SCHEDULES[name](**{**good, main: rate})


def test_a_figure_that_is_no_number_is_no_improvement():
    schedule = fn.schedules.reduce_on_plateau(0.1, patience=1, factor=0.5)
    for value in (np.nan, np.inf, 1.0, np.nan, np.nan):
        schedule.observe({"validation_loss": value})
    assert schedule.best == 1.0 and schedule.lr == 0.05


# --- training ---

def test_images_of_one_class_without_variance_train():
    """Black images, one class, batches of one: standardised to zero, normalised to beta, and no NaN anywhere."""
    data = fn.data.Split(np.zeros((3, 4, 4, 3), np.uint8), np.zeros(3, np.int64), np.arange(3))
    standardization = fn.data.Standardization.fit(data.images, "pixel")
    x = standardization.apply(data.images)
    assert not x.any()
    model = fn.Sequential([fn.Linear(48, 4), fn.BatchNorm(4), fn.ReLU(), fn.Linear(4, 2)], seed=0)
    step = fn.TrainStep(model, fn.SGD(lr=0.1))
    losses = [float(step(x[k : k + 1], data.labels[k : k + 1], data.indices[k : k + 1], 0)) for k in range(3)]
    assert losses[0] == pytest.approx(np.log(2), abs=0.3) and losses[2] < losses[0]
    assert all(np.isfinite(a).all() for a in model.state().values())
