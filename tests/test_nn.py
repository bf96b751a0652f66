"""Initialisers, the flat vector, layers, containers, prediction, the table of models and its summaries."""

import itertools
import math
import weakref

import numpy as np
import pytest

import fastnet as fn
from fastnet import backend
from fastnet.nn import initializers
from fastnet.nn.layer import INFERENCE, Context, Layer
from fastnet.nn.layers import ACTIVATIONS
from fastnet.nn.losses import forward_backward
from fastnet.nn.models import entry
from fastnet.nn.parameters import Parameter, ParameterStore
from fastnet.nn.sequential import PREDICT_BATCH
from fastnet.nn.summary import align, format_summary, summarize

TRAINING = Context(training=True)


def normal(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def small_model(seed=1, dtype="float32"):
    return fn.Sequential([fn.Linear(7, 5), fn.BatchNorm(5), fn.ReLU(), fn.Linear(5, 3)], seed=seed, dtype=dtype)


def laid_out(model):
    """The model, its parameters made: a bare call of its layers does not make them."""
    assert model.store is not None
    return model


def bits(arrays):
    return {name: a.tobytes() for name, a in arrays.items()}


# --- initialisers ---

IN, OUT = 300, 200
# name -> (distribution, variance for fan_in = IN and fan_out = OUT), from the papers
FORMULAS = {
    "lecun_normal": ("normal", 1 / IN),
    "xavier": ("normal", 1 / IN),
    "glorot_normal": ("normal", 2 / (IN + OUT)),
    "glorot_uniform": ("uniform", 2 / (IN + OUT)),
    "kaiming_normal": ("normal", 2 / IN),
    "kaiming_uniform": ("uniform", 2 / IN),
    "torch_default": ("uniform", 1 / (3 * IN)),
    "normal:0.02": ("normal", 0.02**2),
}


def draw(name, shape=(IN, OUT), seed=0, index=0):
    return initializers.get(name).draw(shape, *initializers.fans(shape), seed=seed, index=index)


def test_every_initialiser_has_its_formula_below():
    assert set(initializers.NAMED) == {"zeros", "ones", *FORMULAS} - {"normal:0.02"}


@pytest.mark.parametrize("name", FORMULAS)
def test_initialiser_follows_its_formula(name):
    kind, variance = FORMULAS[name]
    numbers = draw(name)
    std = math.sqrt(variance)
    assert numbers.shape == (IN, OUT) and numbers.dtype == np.float64
    assert abs(numbers.mean()) < 4 * std / math.sqrt(numbers.size)
    assert numbers.std() == pytest.approx(std, rel=0.01)
    # The fourth moment tells the two apart: 3 for a normal distribution, 9/5 for a uniform one.
    assert np.mean(numbers**4) / variance**2 == pytest.approx(3 if kind == "normal" else 1.8, rel=0.03)
    if kind == "uniform":
        bound = std * math.sqrt(3)
        assert np.abs(numbers).max() <= bound
        assert numbers.max() > 0.999 * bound and numbers.min() < -0.999 * bound


def test_constant_initialisers():
    assert (draw("zeros") == 0).all()
    assert (draw("ones") == 1).all()


def test_initialisers_by_name_and_by_object():
    assert initializers.get("xavier") is initializers.get("lecun_normal") is fn.initializers.lecun_normal
    assert initializers.get(initializers.ones) is initializers.ones
    assert initializers.get("normal:0.5").name == "normal:0.5" == initializers.normal(0.5).name
    assert (draw("normal:0") == 0).all()


@pytest.mark.parametrize("name", ["he", "normal", "normal:", "normal:x", "normal:-1", "normal:nan", "uniform:1", ""])
def test_unknown_initialiser(name):
    with pytest.raises(ValueError, match=r"initializers: .* is not known; choose from zeros, .*, normal:SIGMA"):
        initializers.get(name)


def test_a_negative_sigma_is_refused():
    with pytest.raises(ValueError, match=r"sigma must not be negative but is -0\.1"):
        initializers.normal(-0.1)


def test_fans_of_linear_and_convolution_weights():
    assert initializers.fans((30, 20)) == (30, 20)
    assert initializers.fans((3, 5, 4, 8)) == (3 * 5 * 4, 3 * 5 * 8)


def test_draws_are_keyed_by_seed_and_parameter():
    first, second = small_model(seed=4), small_model(seed=4)
    assert bits(first.parameters()) == bits(second.parameters())
    assert bits(first.parameters()) != bits(small_model(seed=5).parameters())
    twins = fn.Sequential([fn.Linear(20, 20), fn.Linear(20, 20)]).parameters()
    assert not (twins["linear1.w"] == twins["linear2.w"]).any()
    assert draw("lecun_normal", index=1)[0, 0] != draw("lecun_normal", index=2)[0, 0]
    assert abs(np.corrcoef(draw("kaiming_uniform", index=1).flat, draw("kaiming_uniform", index=2).flat)[0, 1]) < 0.02


def test_draws_do_not_depend_on_the_type():
    wide, narrow = small_model(dtype="float64").parameters(), small_model(dtype="float32").parameters()
    for name, value in wide.items():
        assert narrow[name].dtype == np.float32 and value.dtype == np.float64
        np.testing.assert_array_equal(value.astype(np.float32), narrow[name])


# --- parameters and the flat vector ---

@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_parameters_are_aligned_views_into_one_vector(dtype):
    model = small_model(dtype=dtype)
    for vector, arrays in ((model.store.vector, model.parameters()), (model.store.gradient, model.gradients())):
        assert vector.ndim == 1 and vector.dtype == ("float32" if dtype == "float16" else dtype)
        assert list(arrays) == ["linear1.w", "linear1.b", "batch_norm1.gamma", "batch_norm1.beta", "linear2.w",
                                "linear2.b"]
        for name, value in arrays.items():
            assert np.shares_memory(value, vector), name
            assert value.ctypes.data % 64 == 0, name
            assert value.flags.c_contiguous
    assert model.num_parameters() == 7 * 5 + 5 + 5 + 5 + 5 * 3 + 3


def test_writing_to_a_parameter_changes_the_model():
    model, x = small_model(), normal(4, 7)
    before = model.predict(x)
    model.parameters()["linear2.b"][...] += 1
    np.testing.assert_allclose(model.predict(x), before + 1, rtol=1e-6, atol=1e-6)


def test_the_penalised_part_holds_exactly_the_weight_matrices():
    model = small_model()
    for name, value in model.parameters().items():
        value[...] = 1 if name.endswith(".w") else 2
    vector, end = model.store.vector, model.store.penalised
    assert (vector[:end] == 1).sum() == 7 * 5 + 5 * 3
    assert not (vector[:end] == 2).any() and not (vector[end:] == 1).any()
    assert (vector[end:] == 2).sum() == 5 + 5 + 5 + 3


@pytest.mark.parametrize("optimizer", [fn.SGD(lr=0.1, momentum=0.9), fn.Adam(lr=0.01)], ids=lambda o: o.name)
def test_padding_stays_zero(optimizer):
    model = small_model()
    step = fn.TrainStep(model, optimizer, penalty=fn.L2(0.01))
    for seed in range(5):
        step(normal(6, 7, seed=seed), np.arange(6) % 3)
    padding = np.ones(model.store.vector.size, bool)
    for view in model.store.views(padding).values():
        view[...] = False
    assert padding.sum() > 0
    for vector in (model.store.vector, model.store.gradient, *step.state.values()):
        assert (vector[padding] == 0).all() and not (vector[~padding] == 0).all()


def test_views_find_each_parameter_in_a_vector_of_the_same_layout():
    store = small_model().store
    numbers = np.arange(store.vector.size, dtype=float)
    copied = np.zeros_like(numbers)
    for name, view in store.views(copied).items():
        assert view.shape == store.named[name].shape
        view[...] = store.views(numbers)[name]
    used = copied != 0
    used[0] = True  # the number 0 stands there
    np.testing.assert_array_equal(copied[used], numbers[used])
    assert used.sum() == sum(math.prod(p.shape) for _, p in store)


def test_contributions_to_a_gradient_add_up_and_absent_ones_are_zero():
    used, idle = (Parameter((2,), initializers.zeros, penalised=False) for _ in range(2))
    store = ParameterStore([("used", used), ("idle", idle)], "float64", 0)
    for round_ in (1, 2):
        store.gradient[...] = 77  # of an earlier pass
        store.start_gradients()
        used.accumulate(np.array([1.0, 2.0]) * round_)
        used.accumulate(np.array([10.0, 20.0]))
        store.finish_gradients()
        np.testing.assert_array_equal(used.grad, [10 + round_, 20 + 2 * round_])
        np.testing.assert_array_equal(idle.grad, [0, 0])
    assert store.penalised == 0


# --- layers ---

def test_a_layer_without_a_forward_pass():
    with pytest.raises(NotImplementedError):
        Layer()(normal(2, 2), INFERENCE)
    assert repr(Layer()) == "Layer()" and Layer().macs((3,)) == 0 and Layer().output_shape((3,)) == (3,)


def test_linear_flattens_images_and_returns_dx_of_their_shape():
    model = fn.Sequential([fn.Linear(12, 3)], dtype="float64")
    x, dy = normal(5, 2, 2, 3, dtype="float64"), normal(5, 3, seed=1, dtype="float64")
    w = model.parameters()["linear1.w"]
    model.parameters()["linear1.b"][...] = [1, 2, 3]
    y, back = model(x, TRAINING)
    np.testing.assert_allclose(y, x.reshape(5, 12) @ w + [1, 2, 3], rtol=1e-14)
    model.store.start_gradients()
    dx = back(dy)
    np.testing.assert_allclose(dx, (dy @ w.T).reshape(5, 2, 2, 3), rtol=1e-14)
    np.testing.assert_allclose(model.gradients()["linear1.w"], x.reshape(5, 12).T @ dy, rtol=1e-13)
    np.testing.assert_allclose(model.gradients()["linear1.b"], dy.sum(axis=0), rtol=1e-13)


def test_linear_biases():
    assert list(fn.Sequential([fn.Linear(4, 2, bias=False)]).parameters()) == ["linear1.w"]
    model = fn.Sequential([fn.Linear(4, 2, bias=False)], dtype="float64")
    loss, gradients = fn.loss_and_gradients(model, normal(5, 4), np.zeros(5, int))
    assert loss > 0 and list(gradients) == ["linear1.w"]
    assert (fn.Sequential([fn.Linear(4, 2, init="kaiming_normal")]).parameters()["linear1.b"] == 0).all()
    assert (fn.Sequential([fn.Linear(4, 2, bias_init="ones")]).parameters()["linear1.b"] == 1).all()
    like_torch = fn.Sequential([fn.Linear(100, 5000, init="torch_default")]).parameters()["linear1.b"]
    assert np.abs(like_torch).max() == pytest.approx(0.1, rel=0.01)  # by its weight's fan_in, not its own
    assert like_torch.std() == pytest.approx(0.1 / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: fn.Linear(0, 3), "Linear: features must be positive, but in_features is 0 and out_features 3"),
    (lambda: fn.Linear(3, -1), "out_features -1"),
    (lambda: fn.Linear(3, 3, init="he"), "'he' is not known"),
    (lambda: fn.BatchNorm(3, stat_decay=1.1), r"BatchNorm: stat_decay must be in \[0, 1\] but is 1.1"),
    (lambda: fn.BatchNorm(3, eps=0), "BatchNorm: eps must be positive but is 0"),
    (lambda: fn.Dropout(1.0), r"Dropout: p must be in \[0, 1\) but is 1.0"),
    (lambda: fn.Dropout(-0.1), "but is -0.1"),
    (lambda: fn.Linear(3, 3).output_shape((2, 2)), r"Linear: the input is \(2, 2\), 4 features a sample, but the layer "
                                                   "takes 3"),
    (lambda: fn.BatchNorm(3).output_shape((3, 4)), r"BatchNorm: the input is \(3, 4\), but the layer normalises 3"),
    (lambda: fn.BatchNorm(3).output_shape(()), r"BatchNorm: the input is \(\)"),
])
def test_layers_say_what_does_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("layer", "expected"), [
    (fn.ReLU(), [0, 0, 2]),
    (fn.LeakyReLU(0.2), [-0.4, 0, 2]),
    (fn.ELU(0.5), [0.5 * math.expm1(-2), 0, 2]),
    (fn.GELU(), [-1 - math.erf(-math.sqrt(2)), 0, 1 + math.erf(math.sqrt(2))]),
    (fn.GELU("tanh"), [-0.0454023059, 0, 1.9545976940]),
    (fn.Swish(), [-2 / (1 + math.exp(2)), 0, 2 / (1 + math.exp(-2))]),
    (fn.SiLU(), [-2 / (1 + math.exp(2)), 0, 2 / (1 + math.exp(-2))]),
    (fn.Sigmoid(), [1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-2))]),
    (fn.Tanh(), [math.tanh(-2), 0, math.tanh(2)]),
], ids=repr)
def test_activation_layers(layer, expected):
    y, back = layer(np.array([[-2.0, 0.0, 2.0]]), INFERENCE)
    np.testing.assert_allclose(y, [expected], rtol=1e-9, atol=1e-15)
    assert back(np.ones((1, 3))).shape == (1, 3)
    assert back(np.ones((1, 3)), False) is None


def test_every_activation_is_public():
    assert set(ACTIVATIONS) == {"relu", "leaky_relu", "elu", "gelu", "swish", "sigmoid", "tanh"}
    assert all(getattr(fn, layer.__name__) is layer for layer in ACTIVATIONS.values())
    assert all(hasattr(fn, name) for name in fn.__all__)


# --- which gradients are computed ---

@pytest.fixture
def backward_calls(monkeypatch):
    """(op, needs) of every backward call."""
    calls, run = [], backend.run

    def spy(name, *arrays, **options):
        y, back = run(name, *arrays, **options)

        def watched(dy, needs=None, into=None):
            calls.append((name, needs))
            return back(dy, needs, into)

        return y, watched

    monkeypatch.setattr(backend, "run", spy)
    return calls


def test_dx_is_not_computed_where_no_parameter_lies_below(backward_calls):
    model = fn.Sequential([fn.Flatten(), fn.Tanh(), fn.Dropout(0.1), fn.Linear(8, 5), fn.ReLU(), fn.Linear(5, 3)])
    fn.loss_and_gradients(model, normal(6, 2, 4), np.arange(6) % 3)
    assert backward_calls == [("softmax_cross_entropy", (True, False)), ("linear", (True, True, True)), ("relu", None),
                              ("linear", (False, True, True))]


def test_dx_is_computed_when_asked_for(backward_calls):
    model = fn.Sequential([fn.Flatten(), fn.Linear(8, 5), fn.ReLU(), fn.Sequential([fn.Linear(5, 3)])], dtype="float64")
    x, dy = normal(6, 2, 4, dtype="float64"), normal(6, 3, seed=1, dtype="float64")
    w1, w2 = model.parameters()["linear1.w"], model.parameters()["sequential1.linear1.w"]
    _, back = model(x, TRAINING)
    dx = back(dy)
    hidden = x.reshape(6, 8) @ w1
    np.testing.assert_allclose(dx, ((dy @ w2.T * (hidden > 0)) @ w1.T).reshape(x.shape), rtol=1e-12)
    assert [needs for name, needs in backward_calls if name == "linear"] == [(True, True, True)] * 2


def test_batch_norm_as_first_layer_computes_no_dx():
    model = laid_out(fn.Sequential([fn.BatchNorm(4), fn.Linear(4, 3)]))
    _, back = model(normal(6, 4), TRAINING)
    assert back(normal(6, 3), False) is None
    _, back = model(normal(6, 4), TRAINING)
    assert back(normal(6, 3)).shape == (6, 4)


# --- containers ---

def test_what_a_pass_keeps_is_free_once_it_is_used():
    """Going back holds no more than going forward did, and a second time is refused."""
    seen = []

    class Keeps(fn.ReLU):
        def __call__(self, x, context):
            y, back = super().__call__(x, context)
            kept = np.empty(1)
            weakref.finalize(kept, seen.append, self.name)

            def noted(dy, needs_dx=True, kept=kept):
                seen.append(f"{self.name} back")
                return back(dy, needs_dx)

            return y, noted

    model = laid_out(fn.Sequential([fn.Linear(4, 4), Keeps(), Keeps(), Keeps(), fn.Linear(4, 3)]))
    _, back = model(normal(6, 4), TRAINING)
    back(normal(6, 3))
    assert seen == ["keeps3 back", "keeps3", "keeps2 back", "keeps2", "keeps1 back", "keeps1"]
    with pytest.raises(RuntimeError, match="went back already"):
        back(normal(6, 3))


def test_layers_are_named_by_kind_and_number():
    model = fn.Sequential([fn.Linear(6, 4), fn.BatchNorm(4), fn.LeakyReLU(), fn.Linear(4, 4),
                           fn.Sequential([fn.ReLU(), ("head", fn.Linear(4, 2))])])
    assert [layer.name for layer in model.layers] == ["linear1", "batch_norm1", "leakyrelu1", "linear2", "sequential1"]
    assert list(model.parameters()) == ["linear1.w", "linear1.b", "batch_norm1.gamma", "batch_norm1.beta", "linear2.w",
                                        "linear2.b", "sequential1.head.w", "sequential1.head.b"]
    assert list(model.statistics()) == ["batch_norm1.running_mean", "batch_norm1.running_var"]
    assert repr(model).startswith("Sequential(Linear(in_features=6, out_features=4, bias=True), BatchNorm(num_f")
    assert "Sequential(ReLU(), Linear(" in repr(model)


def test_sequential_refuses_what_cannot_be_named_apart():
    with pytest.raises(ValueError, match="layer names must differ, but a, b is repeated"):
        fn.Sequential([("a", fn.ReLU()), ("b", fn.ReLU()), ("b", fn.ReLU()), ("a", fn.ReLU())])
    with pytest.raises(ValueError, match="layer names must differ, but linear2 is repeated"):
        fn.Sequential([("linear2", fn.Linear(2, 2)), fn.Linear(2, 2)])
    layer = fn.Linear(2, 2)
    with pytest.raises(ValueError, match="the same layer object stands in it twice"):
        fn.Sequential([layer, fn.ReLU(), layer])
    with pytest.raises(ValueError, match="the same layer object stands in it twice"):
        fn.Sequential([layer, fn.Sequential([fn.ReLU(), layer])])
    with pytest.raises(TypeError, match="Sequential: a layer is needed, got 'relu'"):
        fn.Sequential(["relu"])
    with pytest.raises(ValueError, match=r"Sequential: layer name 'a\.b' has a dot, which parts the names of nested"):
        fn.Sequential([("a.b", fn.Linear(2, 2))])


def test_parameters_are_made_at_first_use_whatever_it_is():
    def make():
        return fn.Sequential([fn.Linear(4, 3), fn.Dropout(0.5), fn.Sequential([fn.BatchNorm(3), fn.Dropout(0.5)])],
                             seed=7, dtype="float64")

    called, used, x = make(), make(), normal(6, 4, dtype="float64")
    context = Context(training=True, samples=np.arange(6), update_statistics=False)
    y, _ = called(x, context)
    assert used.parameters()
    np.testing.assert_array_equal(y, used(x, context)[0])
    assert called.layers[2]._store is None and list(called.parameters())[2] == "sequential1.batch_norm1.gamma"
    called.store.vector[...] = 0  # the inner container sees the model's parameters, and none of its own
    assert (called(x, context)[0] == 0).all()


def test_first_use_numbers_dropout_layers_where_there_are_no_parameters():
    x = np.ones((4, 100))
    model = fn.Sequential([fn.Dropout(0.5), fn.Sequential([fn.Dropout(0.5)])])
    y, _ = model(x, Context(training=True, samples=np.arange(4)))
    assert 0.15 < (y > 0).mean() < 0.35  # one mask twice would leave a half


def test_a_part_of_a_model_makes_no_parameters_of_its_own():
    inner = fn.Sequential([fn.Linear(4, 3)])
    model = fn.Sequential([inner, fn.Linear(3, 2)])
    for use in (lambda: inner.parameters(), lambda: inner.predict(normal(2, 4)), lambda: inner(normal(2, 4), TRAINING)):
        with pytest.raises(ValueError, match="is a part of another one, which holds its parameters: use that one"):
            use()
    x = normal(2, 4)
    expected = model.predict(x)
    hidden, _ = inner(x, INFERENCE)  # to look at it is fine
    np.testing.assert_array_equal(model.layers[1](hidden, INFERENCE)[0], expected)
    view = fn.Sequential([model.layers[0].layers[0]])
    np.testing.assert_array_equal(view(x, INFERENCE)[0], hidden)
    with pytest.raises(ValueError, match=r"Sequential: linear1\.w belongs to another model already; make new layers"):
        view.parameters()
    np.testing.assert_array_equal(model.predict(x), expected)


@pytest.mark.parametrize("dtype", ["int32", np.int64, bool, "complex64"])
def test_a_model_is_made_of_floating_point_numbers(dtype):
    for make in (lambda: fn.Sequential([fn.Linear(2, 2)], dtype=dtype),
                 lambda: fn.Sequential([fn.Linear(2, 2)]).copy(dtype)):
        with pytest.raises(ValueError, match=r"dtype must be floating \(float32, .* float16\) but is"):
            make()
    assert fn.Sequential([fn.Linear(2, 2)]).copy("complex128").parameters()["linear1.w"].dtype == np.complex128


def test_a_real_model_takes_no_complex_numbers():
    model, x = fn.Sequential([fn.Linear(2, 2)]), np.ones((3, 2), complex)
    with pytest.raises(TypeError, match="x is complex128, but the model is float32: the imaginary part would be lost"):
        model.predict(x)
    assert model.copy("complex128").predict(x).dtype == np.complex128


@pytest.mark.parametrize(("make", "message"), [
    (lambda: fn.BatchNorm(0), "BatchNorm: num_features must be at least 1 but is 0"),
    (lambda: fn.Dropout(float("nan")), r"Dropout: p must be in \[0, 1\) but is nan"),
    (lambda: fn.LeakyReLU(-0.1), "leaky_relu: negative_slope must be at least 0 but is -0.1"),
    (lambda: fn.ELU(0), "elu: alpha must be positive but is 0"),
    (lambda: fn.GELU("erf"), "gelu: approximate must be 'none' or 'tanh' but is 'erf'"),
])
def test_arguments_of_layers_are_looked_at_when_they_are_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="a layer is needed, got <class"):
        fn.Sequential([fn.ReLU])


def test_a_tap_sees_every_layer():
    model, x, seen = laid_out(small_model()), normal(6, 7), []
    y, _ = model(x, Context(training=True, tap=lambda layer, x, y: seen.append((layer.name, x, y))))
    assert [name for name, _, _ in seen] == ["linear1", "batch_norm1", "relu1", "linear2"]
    assert seen[0][1] is x and seen[-1][2] is y
    assert all(before[2] is after[1] for before, after in itertools.pairwise(seen))


# --- batch normalisation ---

def test_batch_norm_conventions():
    torch, keras = fn.BatchNorm.from_torch(4, eps=1e-4, momentum=0.1), fn.BatchNorm.from_keras(4)
    assert (torch.stat_decay, torch.eps, torch.unbiased) == (0.9, 1e-4, True)
    assert (keras.stat_decay, keras.eps, keras.unbiased) == (0.99, 1e-3, False)
    assert fn.BatchNorm.from_keras(4, momentum=0.5, epsilon=0.1).options() == {
        "num_features": 4, "eps": 0.1, "stat_decay": 0.5}
    assert fn.BatchNorm.from_torch(4).options() == fn.BatchNorm(4).options()


@pytest.mark.parametrize("shape", [(6, 2), (3, 2, 2, 2)])
@pytest.mark.parametrize("unbiased", [True, False])
def test_running_statistics_by_hand(shape, unbiased):
    model = laid_out(fn.Sequential([fn.BatchNorm(2, stat_decay=0.75, unbiased=unbiased)], dtype="float64"))
    mean, var = np.zeros(2), np.ones(2)
    for seed in (1, 2, 3):
        x = 3 + 2 * normal(*shape, seed=seed, dtype="float64")
        model(x, TRAINING)
        rows = x.reshape(-1, 2)
        mean = 0.75 * mean + 0.25 * rows.mean(axis=0)
        var = 0.75 * var + 0.25 * rows.var(axis=0, ddof=int(unbiased))
    np.testing.assert_allclose(model.statistics()["batch_norm1.running_mean"], mean, rtol=1e-13)
    np.testing.assert_allclose(model.statistics()["batch_norm1.running_var"], var, rtol=1e-13)


@pytest.mark.parametrize("unbiased", [True, False])
def test_training_and_inference_agree_on_the_batch_whose_statistics_are_kept(unbiased):
    count, eps = 6, 0.25  # large, so that an eps added twice or left out is seen
    model = fn.Sequential([fn.BatchNorm(3, eps=eps, stat_decay=0, unbiased=unbiased)], dtype="float64")
    model.parameters()["batch_norm1.gamma"][...] = [1, -2, 3]
    model.parameters()["batch_norm1.beta"][...] = [5, 6, 7]
    x = 3 + 2 * normal(count, 3, dtype="float64")
    trained, _ = model(x, TRAINING)
    var = x.var(axis=0)
    np.testing.assert_allclose(trained, (x - x.mean(axis=0)) / np.sqrt(var + eps) * [1, -2, 3] + [5, 6, 7], rtol=1e-12)
    inferred = model.predict(x)
    kept = var * count / (count - 1) if unbiased else var
    expected = (trained - [5, 6, 7]) * np.sqrt((var + eps) / (kept + eps)) + [5, 6, 7]
    np.testing.assert_allclose(inferred, expected, rtol=1e-12)
    assert np.allclose(inferred, trained, rtol=1e-10) is not unbiased


def test_running_statistics_change_in_training_only_and_only_if_they_may():
    model, x = small_model(), normal(6, 7)
    before = bits(model.statistics())
    model.predict(x)
    model(x, Context(training=True, update_statistics=False))
    assert bits(model.statistics()) == before
    model(x, TRAINING)
    assert bits(model.statistics()) != before


def test_a_batch_of_one_updates_the_running_mean():
    model = laid_out(fn.Sequential([fn.BatchNorm(2, stat_decay=0)]))
    model(np.array([[3.0, 4.0]], np.float32), TRAINING)
    np.testing.assert_array_equal(model.statistics()["batch_norm1.running_mean"], [3, 4])
    np.testing.assert_array_equal(model.statistics()["batch_norm1.running_var"], [0, 0])


def test_statistics_have_the_type_sums_are_kept_in():
    for dtype, kept in (("float16", "float32"), ("float32", "float32"), ("float64", "float64"),
                        ("complex128", "float64")):
        model = fn.Sequential([fn.BatchNorm(2)], dtype=dtype)
        assert {s.dtype.name for s in model.statistics().values()} == {kept}


def test_batch_norm_in_inference_has_gradients():
    model = laid_out(fn.Sequential([fn.BatchNorm(3)], dtype="float64"))
    x, dy = normal(5, 3, dtype="float64"), normal(5, 3, seed=1, dtype="float64")
    _, back = model(x, INFERENCE)
    np.testing.assert_allclose(back(dy), dy / math.sqrt(1 + 1e-5), rtol=1e-13)
    np.testing.assert_allclose(model.gradients()["batch_norm1.gamma"], (dy * x).sum(0) / math.sqrt(1 + 1e-5),
                               rtol=1e-12)


# --- dropout ---

def masked(layer, x, samples, **context):
    return layer(x, Context(training=True, samples=np.array(samples), **context))[0]


def test_dropout_masks_a_sample_the_same_in_any_batch():
    layer, x = fn.Dropout(0.4), np.ones((6, 200), np.float32)
    ids = [7, 3, 90, 14, 2, 55]
    whole = masked(layer, x, ids)
    assert set(np.unique(whole)) == {np.float32(0), np.float32(1 / 0.6)}
    assert (whole == 0).mean() == pytest.approx(0.4, abs=0.05)
    np.testing.assert_array_equal(masked(layer, x[:2], [55, 3]), whole[[5, 1]])
    np.testing.assert_array_equal(masked(layer, x[:1], [90]), whole[2:3])
    with backend.use("reference"):
        np.testing.assert_array_equal(masked(layer, x, ids), whole)
    for other in ({"epoch": 1}, {"seed": 1}):
        assert 0.3 < (masked(layer, x, ids, **other) != whole).mean() < 0.66  # 2 * 0.4 * 0.6 for independent ones


def test_two_dropout_layers_have_different_masks():
    outputs = {}
    model = fn.Sequential([("a", fn.Dropout(0.5)), ("inner", fn.Sequential([("b", fn.Dropout(0.5))]))])
    assert model.store.vector.size == 0
    for name, layer in (("a", model.layers[0]), ("b", model.layers[1].layers[0])):
        outputs[name] = masked(layer, np.ones((4, 100)), range(4))
    assert 0.4 < (outputs["a"] != outputs["b"]).mean() < 0.6


def test_dropout_backward_has_the_mask_of_forward():
    layer, x, dy = fn.Dropout(0.5), np.ones((4, 50)), normal(4, 50, dtype="float64")
    y, back = layer(x, Context(training=True, samples=np.arange(4)))
    np.testing.assert_array_equal(back(dy), dy * y)
    assert back(dy, False) is None


def test_dropout_is_the_identity_in_inference_and_with_p_0():
    x = normal(4, 5)
    for layer, context in ((fn.Dropout(0.5), INFERENCE), (fn.Dropout(0), TRAINING)):
        y, back = layer(x, context)
        assert y is x and back(x) is x


def test_dropout_in_training_needs_to_know_the_samples():
    with pytest.raises(ValueError, match="Dropout: training needs the ids of the samples"):
        fn.Dropout()(normal(4, 5), TRAINING)


# --- prediction ---

def test_predict_casts_x_to_the_models_type():
    model, x = small_model(), normal(4, 7, dtype="float64")
    y = model.predict(x)
    assert y.shape == (4, 3) and y.dtype == np.float32
    np.testing.assert_array_equal(y, model.predict(x.astype(np.float32)))
    assert small_model(dtype="float64").predict(x.astype(np.float32)).dtype == np.float64


@pytest.mark.parametrize(("x", "kind", "message"), [
    ([[1.0] * 7], TypeError, "x must be an array, got list"),
    (np.zeros((2, 7), np.uint8), TypeError, r"x is uint8, but floating-point numbers are needed: normalise the images"),
    (np.zeros((2, 7), int), TypeError, "x is int64"),
    (np.zeros(7), ValueError, r"x is \(7,\), but a batch is needed: \(N, H, W, C\) or \(N, D\)"),
    (np.zeros((0, 7)), ValueError, "predict: x holds no samples"),
    (np.zeros((2, 8)), ValueError, r"linear1: Linear: the input is \(8,\), 8 features a sample, but the layer takes 7"),
    (np.zeros((2, 2, 2, 2)), ValueError, r"linear1: Linear: the input is \(2, 2, 2\), 8 features"),
    (np.zeros((2, 1, 1, 7)), ValueError, r"x is \(2, 1, 1, 7\): is it \(N, C, H, W\)\? Channels come last here"),
])
def test_predict_says_what_is_wrong_with_x(x, kind, message):
    with pytest.raises(kind, match=message):
        small_model().predict(x)


def test_predict_in_parts_gives_the_rows_that_single_images_give():
    model, x = laid_out(small_model()), normal(2 * PREDICT_BATCH + 100, 7)
    model(normal(50, 7, seed=1), TRAINING)  # running statistics of its own
    whole = model.predict(x)
    single = np.concatenate([model.predict(x[i : i + 1]) for i in (0, PREDICT_BATCH - 1, PREDICT_BATCH, len(x) - 1)])
    assert whole.shape == (len(x), 3)
    np.testing.assert_allclose(single, whole[[0, PREDICT_BATCH - 1, PREDICT_BATCH, -1]], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([model.predict(x[:PREDICT_BATCH]),
                                                  model.predict(x[PREDICT_BATCH : 2 * PREDICT_BATCH])]),
                                  whole[: 2 * PREDICT_BATCH])


def test_the_result_of_predict_is_a_copy():
    x = normal(4, 2, 3)
    y = fn.Sequential([fn.Flatten(), fn.Dropout()]).predict(x)
    np.testing.assert_array_equal(y, x.reshape(4, 6))
    assert not np.shares_memory(x, y)


# --- state ---

def test_state_round_trip():
    model, other, x = laid_out(small_model(seed=1)), small_model(seed=2), normal(6, 7)
    model(x, TRAINING)  # running statistics of its own
    state = model.state()
    assert set(state) == {*model.parameters(), *model.statistics()}
    assert not any(np.shares_memory(a, model.store.vector) for a in state.values())
    assert not np.array_equal(other.predict(x), model.predict(x))
    other.load_state(state)
    np.testing.assert_array_equal(other.predict(x), model.predict(x))
    state["linear1.w"][...] = 0
    np.testing.assert_array_equal(other.predict(x), model.predict(x))


def test_load_state_names_all_that_does_not_fit():
    model = small_model()
    before, state = bits(model.state()), model.state()
    del state["linear1.b"], state["batch_norm1.running_var"]
    state |= {"extra": np.zeros(1), "linear2.w": np.zeros((3, 5)), "linear1.w": np.zeros((7, 5))}
    with pytest.raises(ValueError) as caught:
        model.load_state(state)
    assert str(caught.value) == ("load_state: linear1.b is missing; batch_norm1.running_var is missing; extra is not "
                                 "in the model; linear2.w is (3, 5) but the model has (5, 3)")
    assert bits(model.state()) == before
    state = model.state() | {"linear1.w": [1.0], "linear1.b": np.zeros(5, int), "linear2.b": np.zeros(3, complex)}
    with pytest.raises(ValueError, match=r"^load_state: linear1.w is list, not floating numbers; linear1.b is int64, "
                                         r"not floating numbers; linear2.b is complex128, not floating numbers$"):
        model.load_state(state)
    assert bits(model.state()) == before


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_a_copy_is_independent(dtype):
    model = fn.Sequential([fn.Linear(7, 5), fn.BatchNorm(5), fn.Dropout(), fn.Dropout(), fn.Linear(5, 3)], seed=3)
    x = normal(6, 7)
    step = fn.TrainStep(model, fn.SGD(lr=0.1))
    step(x, np.arange(6) % 3)
    before = bits(model.state())
    twin = model.copy(dtype)
    assert twin.dtype == (dtype or "float32") and model.dtype == "float32"
    assert twin.predict(x).dtype == twin.dtype
    np.testing.assert_allclose(twin.predict(x), model.predict(x), rtol=1e-5, atol=1e-6)
    assert [layer.index for layer in twin.layers[2:4]] == [0, 1]
    assert twin.seed == 3 and list(twin.parameters()) == list(model.parameters())
    np.testing.assert_array_equal(twin.statistics()["batch_norm1.running_mean"],
                                  model.statistics()["batch_norm1.running_mean"])
    fn.TrainStep(twin, fn.SGD(lr=0.1))(x, np.arange(6) % 3)
    assert bits(model.state()) == before
    assert not np.allclose(twin.parameters()["linear1.w"], model.parameters()["linear1.w"], rtol=1e-4)


# --- loss and gradients ---

def test_loss_and_gradients_by_hand():
    model = fn.Sequential([fn.Linear(4, 3)], dtype="float64", seed=2)
    x, labels = normal(5, 4, dtype="float64"), np.array([0, 2, 1, 1, 0])
    loss, gradients = fn.loss_and_gradients(model, x, labels)
    logits = x @ model.parameters()["linear1.w"] + model.parameters()["linear1.b"]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    delta = (p - np.eye(3)[labels]) / 5
    assert loss == pytest.approx(-np.log(p[np.arange(5), labels]).mean(), rel=1e-13)
    assert list(gradients) == ["linear1.w", "linear1.b"]
    np.testing.assert_allclose(gradients["linear1.w"], x.T @ delta, rtol=1e-12)
    np.testing.assert_allclose(gradients["linear1.b"], delta.sum(axis=0), rtol=1e-12, atol=1e-17)


def test_loss_and_gradients_changes_nothing():
    model, x, labels = small_model(), normal(6, 7), np.arange(6) % 3
    forward_backward(model, x, labels, TRAINING, "softmax_cross_entropy", {})
    assert model.store.gradient.any()
    before = bits(model.state()) | bits(model.gradients())
    _, gradients = fn.loss_and_gradients(model, 2 * x, labels)
    assert bits(model.state()) | bits(model.gradients()) == before
    assert not any(np.shares_memory(g, model.store.gradient) for g in gradients.values())
    assert not np.array_equal(gradients["linear1.w"], model.gradients()["linear1.w"])


def test_loss_and_gradients_takes_other_losses_with_options():
    model, x = fn.Sequential([fn.Linear(4, 3)], dtype="float64"), normal(5, 4)
    loss, _ = fn.loss_and_gradients(model, x, np.zeros(5, int), loss="mean_squared_error",
                                    loss_options={"reduction": "sample_mean"})
    targets = np.eye(3)[np.zeros(5, int)]
    assert loss == pytest.approx(((model.predict(x) - targets) ** 2).sum() / 5, rel=1e-12)
    with pytest.raises(ValueError, match="loss 'hinge' is not known; choose from softmax_cross_entropy, "):
        fn.loss_and_gradients(model, x, np.zeros(5, int), loss="hinge")
    with pytest.raises(ValueError, match=r"label 3 at index 0 is outside 0\.\.2"):
        fn.loss_and_gradients(model, x, np.full(5, 3))


# --- the table of models ---

@pytest.mark.parametrize(("name", "parameters"), [
    ("mlp2", 154_160), ("mlp3", 156_710), ("mlp3-bn", 156_910), ("mlp9", 156_870), ("mlp9-bn", 157_190),
    ("mlp7", 156_650), ("mlp7-wide", 327_360)])
def test_parameter_counts_are_the_reports(name, parameters):
    model = fn.build(name)
    assert model.num_parameters() == parameters
    assert model.model_name == name
    assert model.output_shape(entry(name).input_shape) == (10,)
    if name != "mlp7-wide":
        assert model.predict(normal(2, 32, 32, 3)).shape == (2, 10)


def test_every_model_is_counted():
    from test_convnets import COUNTS

    mlps = {"mlp2", "mlp3", "mlp3-bn", "mlp9", "mlp9-bn", "mlp7", "mlp7-wide"}
    assert set(fn.MODELS) == mlps | set(COUNTS)


def test_batch_norm_stands_before_the_activation_or_after_it():
    def kinds(**options):
        return [layer.kind for layer in fn.build("mlp3-bn", **options).layers]
    assert kinds() == ["Linear", "BatchNorm", "ReLU", "Linear", "BatchNorm", "ReLU", "Linear"]
    assert kinds(norm_after=True) == ["Linear", "ReLU", "BatchNorm", "Linear", "ReLU", "BatchNorm", "Linear"]
    assert kinds(batch_norm=False) == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_options_of_models():
    model = fn.build("mlp2", hidden=(4,), inputs=6, classes=3, activation="gelu", init="zeros", dtype="float64", seed=9)
    assert [layer.kind for layer in model.layers] == ["Linear", "GELU", "Linear"]
    assert model.predict(normal(2, 6)).tolist() == [[0, 0, 0]] * 2
    assert model.dtype == "float64" and model.seed == 9
    assert model.settings == {"options": {"hidden": (4,), "inputs": 6, "classes": 3, "activation": "gelu",
                                          "init": "zeros"}}
    named = fn.build("mlp2", init=fn.initializers.normal(0.01))
    assert named.parameters()["linear1.w"].std() == pytest.approx(0.01, rel=0.01)
    assert isinstance(named.settings["options"]["init"], str)  # goes into a JSON file
    assert bits(fn.build("mlp2", seed=1).parameters()) != bits(fn.build("mlp2", seed=2).parameters())


@pytest.mark.parametrize(("name", "options", "kind", "message"), [
    ("resnet", {}, ValueError, "model 'resnet' is not known; choose from mlp2, mlp3, "),
    ("mlp3", {"width": 3}, TypeError, "^build: mlp3 got an unexpected keyword argument 'width'"),
    ("mlp3", {"activation": "ReLU"}, ValueError, "activation 'ReLU' is not known; choose from relu, leaky_relu, "),
    ("mlp3", {"init": "he"}, ValueError, "initializers: 'he' is not known"),
    ("mlp3", {"hidden": 5}, TypeError, "^build: mlp3 "),
])
def test_build_says_what_is_not_known(name, options, kind, message):
    with pytest.raises(kind, match=message):
        fn.build(name, **options)


# --- summaries ---

def test_summary_counts_products_with_weights_both_ways():
    rows = summarize(fn.build("mlp3-bn"), (32, 32, 3))
    assert [row.name for row in rows] == ["linear1", "batch_norm1", "relu1", "linear2", "batch_norm2", "relu2",
                                          "linear3"]
    first, norm, relu, second, *_, last = rows
    # The first layer needs dw only; the others dw and dx.
    assert (first.macs_forward, first.macs_backward) == (3072 * 50, 3072 * 50)
    assert (second.macs_forward, second.macs_backward) == (50 * 50, 2 * 50 * 50)
    assert (last.macs_forward, last.macs_backward) == (50 * 10, 2 * 50 * 10)
    assert (norm.parameters, norm.macs_forward, norm.macs_backward) == (100, 0, 0)
    assert (first.parameters, first.shape, first.activation_bytes) == (153_650, (50,), 200)
    assert relu.kind == "ReLU" and sum(row.parameters for row in rows) == 156_910
    assert fn.build("mlp3-bn").macs((32, 32, 3)) == 3072 * 50 + 50 * 50 + 50 * 10


def test_layers_above_a_parameter_need_dx_whatever_its_kind():
    model = fn.Sequential([fn.Flatten(), fn.BatchNorm(8), fn.Sequential([fn.Linear(8, 4), fn.Linear(4, 2)])])
    flat, norm, first, second = summarize(model, (2, 4))
    assert [row.name for row in (flat, first, second)] == ["flatten1", "sequential1.linear1", "sequential1.linear2"]
    assert flat.shape == (8,) and norm.macs_backward == 0
    assert (first.macs_forward, first.macs_backward, first.parameters) == (32, 64, 8 * 4 + 4)
    assert (second.macs_forward, second.macs_backward, second.parameters) == (8, 16, 4 * 2 + 2)


def test_formatted_summary_has_the_totals():
    text = format_summary(fn.build("mlp3", dtype="float64"), (32, 32, 3), 100)
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "parameters", "MACs", "forward", "MACs", "backward", "bytes"]
    assert set(lines[1]) == {"-", " "}
    assert lines[2].split() == ["linear1", "Linear", "50", "153,650", "153,600", "153,600", "400"]
    assert lines[-3].split() == ["total", "156,710", "156,600", "159,600", str(8 * (4 * 50 + 10)).replace("1", "1,", 1)]
    assert "float64" in lines[-2]
    gflop = 2 * 100 * (156_600 + 159_600) / 1e9
    activations = 100 * 8 * (3072 + 210) / 2**20
    assert lines[-1] == (f"batch of 100: {gflop:.3f} GFLOP a step, input and activations {activations:.1f} MiB, "
                         f"parameters and gradients {2 * 8 * 156_710 / 2**20:.1f} MiB")


def test_summary_of_a_model_that_does_not_fit():
    with pytest.raises(ValueError, match="but the layer takes 3072"):
        summarize(fn.build("mlp2"), (28, 28, 1))


def test_align():
    assert align([("a", "bb"), ("ccc", "1")], right=(1,)) == "a    bb\n---  --\nccc   1"
