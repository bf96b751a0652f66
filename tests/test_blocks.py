"""Convolution and pooling layers, residual and parallel branches: shapes, names, gradients, what a tap sees."""

import math
import types

import numpy as np
import pytest
from test_check_model import proven

import fastnet as fn
from fastnet import backend
from fastnet.check import check_model
from fastnet.nn.layer import INFERENCE, Context
from fastnet.nn.sequential import named_layers
from fastnet.nn.summary import format_summary, summarize

TRAINING = Context(training=True, samples=np.arange(6))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def images(n=6, size=6, channels=3):
    return normal(n, size, size, channels), np.random.default_rng(1).integers(0, 3, n)


def model(*layers, **options):
    return fn.Sequential(layers, **{"dtype": "float64", "seed": 2, **options})


def head(channels):
    return [fn.GlobalAvgPool(), fn.Linear(channels, 3)]


def unit(inputs, outputs, stride=1):
    return [("conv", fn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)), ("bn", fn.BatchNorm(outputs)),
            ("act", fn.Swish())]


def projection(inputs, outputs, stride):
    return fn.Sequential([("0", fn.Conv2d(inputs, outputs, 1, stride, bias=False)), ("1", fn.BatchNorm(outputs))])


# --- gradients, through whole models ---

@pytest.mark.parametrize("layers", [
    lambda: [fn.Conv2d(3, 4, 3), fn.Tanh(), fn.Conv2d(4, 5, (2, 1), (1, 2), (1, 0)), fn.Tanh(), *head(5)],
    lambda: [fn.Conv2d(3, 6, 3, pad=2, dilation=2, groups=3), fn.Tanh(), fn.Conv2d(6, 4, 1, groups=2, bias=False),
             *head(4)],
    lambda: [fn.Conv2d(3, 4, 3, pad=1, init="torch_default"), fn.ReLU(), fn.MaxPool2d(2), fn.Conv2d(4, 4, 2),
             fn.AvgPool2d(2, 1, 1), *head(4)],
    lambda: [fn.Conv2d(3, 4, 3), fn.MaxPool2d(3, 2, 1, ceil_mode=True), fn.Linear(4 * 3 * 3, 3)],
    lambda: [fn.Conv2d(3, 4, 3, pad=1), fn.ZeroPadShortcut(2, 6), fn.Tanh(), *head(6)],
    lambda: [fn.Conv2d(3, 4, 3, pad=1), fn.Residual(unit(4, 4)), *head(4)],
    lambda: [fn.Conv2d(3, 4, 3, pad=1), fn.Residual(unit(4, 5, 2), projection(4, 5, 2), fn.ReLU()), *head(5)],
    lambda: [fn.Conv2d(3, 4, 3, pad=1), fn.Residual(unit(4, 5, 2), fn.ZeroPadShortcut(2, 5), fn.Swish()), *head(5)],
    lambda: [fn.Residual(fn.Conv2d(3, 3, 3, pad=1), activation=fn.Tanh()), *head(3)],
    lambda: [fn.Conv2d(3, 4, 3, pad=1),
             fn.Concatenate([fn.Conv2d(4, 2, 1), fn.Residual([fn.Conv2d(4, 4, 3, pad=1)]), fn.Tanh()]), *head(10)],
    lambda: [fn.Conv2d(3, 4, 3, pad=1), fn.DepthwiseSeparable(4, 5, 2, activation="swish"),
             fn.DepthwiseSeparable(5, 4, activation="swish", activate=False), *head(4)],
    lambda: [fn.Fire(3, 2, 3, 4, activation="tanh"), *head(7)],
], ids=["kernels and strides", "dilation and groups", "pools", "overlapping pool", "zero pad", "identity", "projection",
        "zero pad shortcut", "first layer", "branches", "separable", "fire"])
def test_gradients(layers):
    report = check_model(model(*layers()), *images())
    assert report.passed and all(row.sharp for row in report.rows), report.failures
    assert all(row.differences <= 1e-7 and row.complex_step <= 1e-12 for row in report.rows)


class Lossy(fn.Residual):
    """Forgets what comes back through one of its branches."""

    def __call__(self, x, context):
        y, back = super().__call__(x, context)
        return y, lambda dy, needs_dx=True: back(dy, needs_dx) - dy if needs_dx else back(dy, False)


class Shifted(fn.ZeroPadShortcut):
    """Puts dy beside the pixels that were taken."""

    def __call__(self, x, context):
        y, back = super().__call__(x, context)
        return y, lambda dy, needs_dx=True: np.roll(back(dy), 1, axis=1) if needs_dx else None


class Crossed(fn.Concatenate):
    """Gives each of two branches the gradient of the other."""

    def __call__(self, x, context):
        y, back = super().__call__(x, context)
        half = y.shape[-1] // 2
        return y, lambda dy, needs_dx=True: back(np.roll(dy, half, axis=-1), needs_dx)


@pytest.mark.parametrize("block", [
    lambda: Lossy([fn.Conv2d(4, 4, 3, pad=1)]),
    lambda: Shifted(2, 4),
    lambda: Crossed([fn.Conv2d(4, 2, 1), fn.Conv2d(4, 2, 1)]),
], ids=["no shortcut", "shifted pixels", "branches exchanged"])
def test_mistakes_in_blocks_are_found(block):
    broken = model(("conv", fn.Conv2d(3, 4, 3, pad=1)), ("block", block()), *head(4))
    report = check_model(broken, *images(), raises=False)
    assert not report.passed and any("dconv.w is wrong" in line for line in report.failures)


def sides(net, x):
    """What the check notes down of where the pass stands relative to its kinks."""
    return fn.check.models._Tail(net.copy("float64"), x, np.arange(len(x)) % 3, "softmax_cross_entropy", {}, 0)(0)[1]


def test_the_winners_of_a_max_pool_are_kinks():
    net = model(("conv", fn.Conv2d(1, 1, 1)), fn.MaxPool2d(2), fn.Linear(1, 3))
    net.parameters()["conv.w"][...] = 1
    x = np.zeros((6, 2, 2, 1))
    x[0, 0, 1] = x[1, 1, 0] = x[2, 1, 1] = 1e-9
    assert sides(net, x)[0].ravel().tolist() == [1, 2, 3, 0, 0, 0]  # ties go to the first
    # The sign of w decides which of two entries wins, and w is 0: whatever moves it crosses.
    net.parameters()["conv.w"][...] = 0
    x[:, 0, 0], x[:, 1, 1] = -1, 1
    report = check_model(net, x, np.arange(6) % 3, raises=False)
    assert {row.name: row.entries for row in report.rows} == {"conv.w": 0, "conv.b": 1, "linear1.w": 3, "linear1.b": 3}
    assert "crossed a kink: 1 of 8" in report.notes
    assert any("1 of 8 coordinates crossed a kink, more than 2%" in line for line in report.failures)


@pytest.mark.parametrize(("at", "crossed"), [(1e-7, 1), (5e-6, 0), (1e-5, 0)])
def test_a_point_near_a_kink_is_tried_nearer_once(at, crossed):
    net = model(fn.Linear(1, 1, bias=False), fn.ReLU(), fn.Linear(1, 3))  # the steps are 6e-6 and 8e-7
    net.parameters()["linear1.w"][...] = at
    report = check_model(net, np.ones((6, 1)), np.arange(6) % 3, raises=False)
    assert f"crossed a kink: {crossed} of 7" in report.notes


def test_kinks_inside_blocks_are_seen_once():
    net = model(fn.Conv2d(3, 4, 3, pad=1), fn.Residual([fn.Conv2d(4, 4, 3, pad=1), fn.ReLU(), fn.MaxPool2d(3, 1, 1)],
                                                       activation=fn.ReLU()), fn.Fire(4, 2, 2, 2), *head(4))
    assert [side.shape[3] for side in sides(net, images()[0])] == [4, 4, 4, 2, 4]
    # A chain's layers are stages of their own, a residual block is one.
    assert len(list(fn.check.models._stages(net))) == 2 + 4 + 2


# --- convolution and pooling ---

def test_conv2d_is_the_op_with_its_parameters():
    net = model(fn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), 1, 2))
    x, dy = normal(5, 7, 6, 4), normal(5, 4, 5, 6, seed=1)
    w, b = net.parameters().values()
    b[...] = normal(6)
    options = {"stride": (2, 1), "pad": (1, 0), "dilation": 1, "groups": 2}
    expected, gradients = backend.run("conv2d", x, w, b, **options)
    y, back = net(x, TRAINING)
    np.testing.assert_array_equal(y, expected)
    assert y.shape[1:] == net.output_shape(x.shape[1:]) == (4, 5, 6)
    assert net.macs((7, 6, 4)) == 4 * 5 * 6 * 3 * 2 * 2
    for found, right in zip((back(dy), *net.gradients().values()), gradients(dy), strict=True):
        np.testing.assert_array_equal(found, right)


def test_conv2d_starts_as_its_initialiser_says():
    w = model(fn.Conv2d(8, 200, 5)).parameters()
    assert w["conv2d1.w"].std() == pytest.approx(math.sqrt(2 / (25 * 8)), rel=0.02) and not w["conv2d1.b"].any()
    depthwise = model(fn.Conv2d(4000, 4000, 3, groups=4000)).parameters()["conv2d1.w"]
    assert depthwise.std() == pytest.approx(math.sqrt(2 / 9), rel=0.02)
    like_torch = model(fn.Conv2d(8, 2000, 5, init="torch_default")).parameters()["conv2d1.b"]
    assert np.abs(like_torch).max() == pytest.approx(1 / math.sqrt(200), rel=0.01)
    assert (model(fn.Conv2d(2, 2, 1, bias_init="ones")).parameters()["conv2d1.b"] == 1).all()


@pytest.mark.parametrize("layer", [fn.MaxPool2d, fn.AvgPool2d])
@pytest.mark.parametrize("options", [(2,), (3, 2), ((3, 2), (2, 1), (1, 0)), (3, 2, 0, True), (2, 3, 1, True)])
def test_pools_are_their_ops(layer, options):
    x = normal(3, 8, 7, 2)
    y, back = layer(*options)(x, INFERENCE)
    window, stride, pad, ceil_mode = (*options, None, 0, False)[:4] if len(options) < 4 else options
    stride = stride if len(options) > 1 else None
    pad, ceil_mode = options[2] if len(options) > 2 else 0, options[3] if len(options) > 3 else False
    expected, gradients = backend.run(layer.op, x, window=window, stride=stride, pad=pad, ceil_mode=ceil_mode)
    np.testing.assert_array_equal(y, expected)
    assert layer(*options).output_shape((8, 7, 2)) == y.shape[1:]
    np.testing.assert_array_equal(back(np.ones_like(y)), gradients(np.ones_like(y))[0])
    assert back(np.ones_like(y), False) is None


def test_global_average_pool():
    x = normal(3, 5, 4, 2)
    y, back = fn.GlobalAvgPool()(x, INFERENCE)
    np.testing.assert_allclose(y, x.mean(axis=(1, 2)), rtol=1e-14)
    np.testing.assert_allclose(back(np.ones((3, 2))), np.full(x.shape, 1 / 20), rtol=1e-14)
    assert back(np.ones((3, 2)), False) is None and fn.GlobalAvgPool().output_shape((5, 4, 2)) == (2,)


@pytest.mark.parametrize(("make", "kind", "message"), [
    (lambda: fn.Conv2d(0, 3, 3), ValueError, "Conv2d: channels must be positive, but in_channels is 0 and"),
    (lambda: fn.Conv2d(3, 8, 3, stride=0), ValueError, "Conv2d: stride must be at least 1 but is 0"),
    (lambda: fn.Conv2d(3, 8, (3, 0)), ValueError, r"Conv2d: kernel_size must be at least 1 but is \(3, 0\)"),
    (lambda: fn.Conv2d(3, 8, 3, pad=-1), ValueError, "Conv2d: pad must be at least 0 but is -1"),
    (lambda: fn.Conv2d(3, 8, 3, dilation=0), ValueError, "Conv2d: dilation must be at least 1 but is 0"),
    (lambda: fn.Conv2d(3, 8, 2.5), TypeError, "Conv2d: kernel_size must be a whole number or two of them but is 2.5"),
    (lambda: fn.Conv2d(6, 8, 3, groups=4), ValueError,
     r"in_channels \(=6\) and out_channels \(=8\) must be divisible by groups \(=4\)"),
    (lambda: fn.Conv2d(6, 8, 3, groups=0), ValueError, "Conv2d: groups must be at least 1 but is 0"),
    (lambda: fn.Conv2d(6, 8, 3, init="he"), ValueError, "'he' is not known"),
    (lambda: fn.Conv2d(6, 8, 3, conv_algorithm="fft"), ValueError,
     "Conv2d: conv_algorithm must be one of auto, winograd, direct but is 'fft'"),
    (lambda: fn.Conv2d(3, 8, 3).output_shape((3, 32, 32)), ValueError,
     r"Conv2d: the input is \(3, 32, 32\), 32 channels \(the last axis\), but the layer takes 3; is it \(C, H, W\)\?"),
    (lambda: fn.Conv2d(3, 8, 3).output_shape((32, 32, 4)), ValueError, "4 channels .*, but the layer takes 3$"),
    (lambda: fn.Conv2d(3, 8, 3).output_shape((3072,)), ValueError,
     r"Conv2d: the input is \(3072,\), but feature maps \(H, W, C\) are needed"),
    (lambda: fn.Conv2d(3, 8, 5, pad=1).output_shape((9, 2, 3)), ValueError,
     r"Conv2d: the kernel covers 5 places, more than the padded input's 4 \(2 and 1 on each side\)"),
    (lambda: fn.MaxPool2d(2, 0), ValueError, "MaxPool2d: stride must be at least 1 but is 0"),
    (lambda: fn.AvgPool2d(3, pad=2), ValueError, r"AvgPool2d: pad must be at most half the window, but pad is \(2"),
    (lambda: fn.MaxPool2d(3).output_shape((2, 9, 4)), ValueError, "MaxPool2d: the kernel covers 3 places, more than"),
    (lambda: fn.GlobalAvgPool().output_shape((10,)), ValueError, r"GlobalAvgPool: the input is \(10,\), but feature"),
    (lambda: fn.ZeroPadShortcut(0, 3), ValueError, "ZeroPadShortcut: stride and out_channels must be at least 1 but"),
    (lambda: fn.ZeroPadShortcut(2, 3).output_shape((4, 4, 5)), ValueError, r"5 channels, more than out_channels \(3\)"),
    (lambda: fn.Concatenate([]), ValueError, "Concatenate: at least one branch is needed"),
    (lambda: fn.Residual([fn.Conv2d(3, 4, 1)]).output_shape((4, 4, 3)), ValueError,
     r"Residual: for an input of \(4, 4, 3\) main gives \(4, 4, 4\) but the shortcut \(4, 4, 3\)"),
    (lambda: fn.Residual([fn.ReLU()], shortcut="zero"), TypeError, "Residual: a layer is needed, got 'zero'"),
    (lambda: fn.Residual([("downsample", fn.ReLU())], fn.ReLU()), ValueError, "names must differ, but downsample"),
    (lambda: fn.Concatenate([fn.ReLU(), fn.MaxPool2d(2)]).output_shape((4, 4, 3)), ValueError,
     r"the branches give \(4, 4, 3\), \(2, 2, 3\), which differ in more than the last axis"),
    (lambda: fn.Fire(3, 2, 2, 2, activation="step"), ValueError, "activation 'step' is not known; choose from relu"),
])
def test_layers_say_what_does_not_fit(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_branches_that_do_not_fit_say_so_in_a_pass_too():
    x = normal(5, 4, 4, 3)
    with pytest.raises(ValueError, match=r"Residual: main gives \(5, 2, 2, 3\) but the shortcut \(5, 4, 4, 3\)"):
        model(fn.Residual([fn.MaxPool2d(2)]))(x, TRAINING)
    with pytest.raises(ValueError, match=r"Concatenate: the branches give \(5, 2, 2, 3\), \(5, 4, 4, 3\), which"):
        model(fn.Concatenate([fn.MaxPool2d(2), fn.ReLU()]))(x, TRAINING)


@pytest.mark.parametrize(("x", "message"), [
    (np.zeros((2, 3, 16, 16)), r"block\.conv: Conv2d: the input is \(3, 16, 16\), 16 channels \(the last axis\), but "
                               r"the layer takes 3; is it \(C, H, W\)\? Channels come last here"),
    (np.zeros((2, 768)), r"block\.conv: Conv2d: the input is \(768,\), but feature maps \(H, W, C\) are needed"),
    (np.zeros((2, 16, 16, 4)), r"block\.conv: Conv2d: .* but the layer takes 3$"),
    (np.zeros((2, 16, 8, 3)), r"linear1: Linear: the input is \(16, 8, 4\), 512 features a sample, but the layer"),
])
def test_predict_says_where_x_does_not_fit(x, message):
    net = model(("block", fn.Residual(unit(3, 4), projection(3, 4, 1))), fn.Linear(16 * 16 * 4, 3))
    for use in (lambda: net.predict(x), lambda: fn.loss_and_gradients(net, x, np.zeros(2, int))):
        with pytest.raises(ValueError, match=message):
            use()


# --- residual blocks ---

def test_residual_adds_both_branches_and_both_gradients():
    block = fn.Residual([("lin", fn.Linear(4, 4, bias=False))], fn.Linear(4, 4, bias=False), fn.ReLU())
    net, x, dy = model(("block", block)), normal(6, 4), normal(6, 4, seed=1)
    assert list(net.parameters()) == ["block.lin.w", "block.downsample.w"]
    a, b = net.parameters().values()
    y, back = net(x, TRAINING)
    np.testing.assert_allclose(y, np.maximum(x @ a + x @ b, 0), rtol=1e-13)
    masked = dy * (y > 0)
    np.testing.assert_allclose(back(dy), masked @ a.T + masked @ b.T, rtol=1e-12)
    np.testing.assert_allclose(net.gradients()["block.lin.w"], x.T @ masked, rtol=1e-12)
    np.testing.assert_allclose(net.gradients()["block.downsample.w"], x.T @ masked, rtol=1e-12)


def test_residual_changes_no_array_of_others():
    dropout = fn.Dropout(0.5)  # in inference it hands on x and dy themselves
    for net in (model(fn.Residual([dropout])), model(fn.Residual([fn.Flatten()], fn.Flatten()))):
        x, dy = normal(6, 4), normal(6, 4, seed=1)
        kept = x.copy(), dy.copy()
        y, back = net(x, INFERENCE)
        dx = back(dy)
        np.testing.assert_array_equal((y, dx), (2 * kept[0], 2 * kept[1]))
        np.testing.assert_array_equal((x, dy), kept)
        assert not any(np.shares_memory(new, old) for new in (y, dx) for old in (x, dy))


def test_zero_padding_takes_every_other_pixel_and_adds_channels_behind():
    x = normal(2, 5, 4, 3)
    y, back = fn.ZeroPadShortcut(2, 5)(x, INFERENCE)
    assert y.shape == (2, 3, 2, 5) and fn.ZeroPadShortcut(2, 5).output_shape((5, 4, 3)) == (3, 2, 5)
    np.testing.assert_array_equal(y[..., :3], x[:, ::2, ::2])
    assert not y[..., 3:].any()
    dy = normal(*y.shape)
    dx = back(dy)
    np.testing.assert_array_equal(dx[:, ::2, ::2], dy[..., :3])
    assert dx.sum() == pytest.approx(dy[..., :3].sum()) and back(dy, False) is None


def test_concatenate_joins_channels():
    x = normal(2, 4, 4, 3)
    net = model(("both", fn.Concatenate([("left", fn.Tanh()), ("right", fn.Sigmoid())])))
    y, back = net(x, INFERENCE)
    np.testing.assert_allclose(y[..., :3], np.tanh(x), rtol=1e-12)
    np.testing.assert_allclose(y[..., 3:], 1 / (1 + np.exp(-x)), rtol=1e-12)
    dy = normal(*y.shape, seed=1)
    s = y[..., 3:]
    np.testing.assert_allclose(back(dy), dy[..., :3] * (1 - np.tanh(x) ** 2) + dy[..., 3:] * s * (1 - s), rtol=1e-10)
    assert [path for path, _ in named_layers(net)] == ["both", "both.left", "both.right"]


@pytest.fixture
def convolutions_that_give_dx(monkeypatch):
    """For each convolution's backward pass whether dx was asked for, from the last layer to the first."""
    calls, run = [], backend.run

    def spy(name, *arrays, **options):
        y, back = run(name, *arrays, **options)

        def watched(dy, needs=None, into=None):
            if name == "conv2d":
                calls.append(needs[0])
            return back(dy, needs, into)

        return y, watched

    monkeypatch.setattr(backend, "run", spy)
    return calls


def test_dx_below_the_first_parameters_is_not_computed(convolutions_that_give_dx):
    def block():
        return fn.Residual([fn.Conv2d(3, 3, 3, pad=1), fn.Conv2d(3, 3, 3, pad=1)], fn.Conv2d(3, 3, 1))

    net = fn.Sequential([fn.Tanh(), block(), block(), fn.Linear(48, 3)])
    fn.loss_and_gradients(net, *images(size=4))
    # Of each block the main branch's second convolution, its first, the shortcut.
    assert convolutions_that_give_dx == [True, True, True, True, False, False]
    factors = [row.macs_backward / row.macs_forward for row in summarize(net, (4, 4, 3)) if row.kind == "Conv2d"]
    assert factors == [1, 2, 1, 2, 2, 2]  # and the summary knows
    convolutions_that_give_dx.clear()
    fn.loss_and_gradients(fn.Sequential([fn.Fire(3, 2, 2, 2), fn.Linear(64, 3)]), *images(size=4))
    assert convolutions_that_give_dx == [True, True, False]


# --- nested layers as parts of a model ---

def nested():
    """Everything that a container has to pass on: parameters, statistics, dropout, a block in a block."""
    inner = fn.Residual([fn.Conv2d(4, 4, 3, pad=1), fn.BatchNorm(4), fn.Dropout(0.3)], activation=fn.ReLU())
    return fn.Sequential([
        ("stem", fn.Sequential([fn.Conv2d(3, 4, 3, pad=1), fn.Dropout(0.2)])),
        ("stage", fn.Sequential([("0", inner), ("1", fn.Residual([("again", fn.Residual([fn.Dropout(0.4)]))],
                                                                 projection(4, 4, 1)))])),
        ("split", fn.Concatenate([("left", fn.MaxPool2d(2)),
                                  ("right", fn.Sequential([fn.AvgPool2d(2), fn.Dropout(0.1)]))])),
        fn.Linear(3 * 3 * 8, 3)], seed=4)


def test_names_of_nested_layers():
    net = nested()
    assert list(net.parameters()) == [
        "stem.conv2d1.w", "stem.conv2d1.b", "stage.0.conv2d1.w", "stage.0.conv2d1.b", "stage.0.batch_norm1.gamma",
        "stage.0.batch_norm1.beta", "stage.1.downsample.0.w", "stage.1.downsample.1.gamma",
        "stage.1.downsample.1.beta", "linear1.w", "linear1.b"]
    assert list(net.statistics()) == [f"stage.{name}.running_{what}" for name in ("0.batch_norm1", "1.downsample.1")
                                      for what in ("mean", "var")]
    names = [name for name, _ in named_layers(net)]
    assert len(set(names)) == len(names) == len(list(net.walk())) - 1
    assert [row.name for row in summarize(net, (6, 6, 3))] == [
        "stem.conv2d1", "stem.dropout1", "stage.0.conv2d1", "stage.0.batch_norm1", "stage.0.dropout1",
        "stage.0.activation", "stage.1.again.dropout1", "stage.1.downsample.0", "stage.1.downsample.1", "split.left",
        "split.right.avgpool2d1", "split.right.dropout1", "linear1"]


def test_a_tap_sees_every_nested_layer_once():
    net, (x, _), seen = nested(), images(), []
    assert net.store is not None
    net(x.astype("float32"), Context(training=True, samples=np.arange(6), tap=lambda layer, x, y: seen.append(layer)))
    layers = list(net.walk())[1:]
    assert len(seen) == len(layers) and {id(layer) for layer in seen} == {id(layer) for layer in layers}


def test_nested_dropouts_have_masks_of_their_own():
    net = nested()
    assert net.store is not None
    assert [layer.index for layer in net.walk() if isinstance(layer, fn.Dropout)] == [0, 1, 2, 3]


def test_nested_layers_are_copied_saved_and_trained():
    net, (x, labels) = nested(), images()
    x = x.astype("float32")
    step = fn.TrainStep(net, fn.SGD(lr=0.05, momentum=0.9), seed=1)
    first = step(x, labels)
    before = {name: a.tobytes() for name, a in net.state().items()}
    twin, restored = net.copy(), nested()
    restored.load_state(net.state())
    for other in (twin, restored):
        np.testing.assert_array_equal(other.predict(x), net.predict(x))
    np.testing.assert_allclose(net.copy("float64").predict(x), net.predict(x), rtol=1e-4, atol=1e-5)
    again = fn.TrainStep(twin, fn.SGD(lr=0.05, momentum=0.9), seed=1)
    for _ in range(30):
        last = again(x, labels)
    assert last < 0.7 * first
    assert {name: a.tobytes() for name, a in net.state().items()} == before
    assert all(twin.state()[name].tobytes() != bits for name, bits in before.items())


def test_a_layer_cannot_stand_in_two_branches():
    layer = fn.Linear(3, 3)
    for make in (lambda: fn.Residual([layer], layer), lambda: fn.Concatenate([layer, layer]),
                 lambda: fn.Sequential([layer, fn.Residual([fn.ReLU()], layer)])):
        with pytest.raises(ValueError, match="the same layer object stands in it twice"):
            make()


def test_a_block_belongs_to_its_model():
    block = fn.Residual([fn.Linear(3, 3)])
    with pytest.raises(ValueError, match="this Sequential is a part of another one"):
        block(normal(2, 3), INFERENCE)
    assert model(block)(normal(2, 3), INFERENCE)[0].shape == (2, 3)
    assert repr(block) == "Residual(Linear(in_features=3, out_features=3, bias=True))"


def test_gradients_of_nested_models():
    net = nested()
    assert net.num_parameters() == sum(p.size for p in net.parameters().values())
    proven(check_model(net, *images(), entries=30, raises=False), zero={"stage.0.conv2d1.b"})


# --- what a convolution runs as ---

def test_the_summary_says_what_each_convolution_runs_as(monkeypatch):
    net = fn.Sequential([fn.Conv2d(3, 4, 3, pad=1), fn.ReLU(), fn.Conv2d(4, 4, 1, bias=False), *head(4)])
    asked = []

    def algorithm(x, w, **options):
        asked.append((x.shape, x.dtype, w.shape, options["pad"]))
        return f"plan {len(asked)}"

    kernel = types.ModuleType("fastnet.kernels.cpu.conv2d")
    kernel.algorithm = algorithm
    with backend.use("reference"):
        assert [row.runs_as for row in summarize(net, (6, 6, 3))] == ["reference", "", "reference", "", ""]
    monkeypatch.setattr(backend, "pair", lambda *arrays, **options: kernel)
    text = format_summary(net, (6, 6, 3), 32)
    assert asked == [((32, 6, 6, 3), np.float32, (3, 3, 3, 4), (1, 1)),
                     ((32, 6, 6, 4), np.float32, (1, 1, 4, 4), (0, 0))]
    assert text.splitlines()[0].endswith("runs as") and text.splitlines()[4].endswith("plan 2")
    monkeypatch.delattr(kernel, "algorithm")
    assert summarize(net, (6, 6, 3))[0].runs_as == "cpu"
    assert net._store is None  # nothing was computed
