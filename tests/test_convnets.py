"""The convolutional models: their parameters, products and shapes, the names of their layers, a step and a proof."""

from dataclasses import replace

import numpy as np
import pytest

import fastnet as fn
from fastnet import backend
from fastnet.check.catalogue import CATALOGUE, NAMED_ONLY
from fastnet.nn.layer import Context
from fastnet.nn.models import entry, fitting
from fastnet.nn.sequential import named_layers
from fastnet.nn.summary import summarize

# name -> (parameters, multiply-accumulates of one image): the reports' where they give them (their counts of ResNet-18,
# ResNet-34 and the doubled ResNet-18, and VGG-A's 9,750,922), else those of the networks' papers and reference code.
COUNTS = {
    "lenet5": (62_006, 651_720),
    "lenet5-bn": (62_006 + 2 * (6 + 16 + 120 + 84), 651_720),
    "lenet5-bn-swish": (62_006 + 2 * (6 + 16 + 120 + 84), 651_720),
    "vgg-a": (9_750_922, 153_293_824),
    "vgg-a-bn": (9_750_922 + 2 * (64 + 128 + 2 * 256 + 4 * 512), 153_293_824),
    "resnet18": (11_173_962, 555_422_720),
    "resnet18-dropout": (11_173_962, 555_422_720),
    "resnet18-x2": (44_595_786, 2_149_263_360),
    "resnet34": (21_282_122, 1_159_402_496),
    "resnet20": (269_722, 40_551_040),
    "resnet18-dw": (1_444_907, 71_503_872),
    "mobilenet": (3_217_226, 46_354_432),
    "squeezenet": (727_626, 23_511_040),
    "alexnet": (60_965_224, 724_406_816),
}
# Options that make a model small; all of them take 32x32 images but AlexNet.
NARROW = {name: {"filter_multiplier": 1 / 8} for name in COUNTS}
NARROW |= {name: {"filter_multiplier": 1 / 2} for name in COUNTS if name.startswith("lenet5")}
NARROW["alexnet"] = {"filter_multiplier": 1 / 8, "hidden": (16, 16), "classes": 10, "input_shape": (67, 67, 3)}
NARROW["resnet18-x2"] = {"filter_multiplier": 1 / 4, "stem_multiplier": 1 / 8}


def narrow(name, **options):
    return fn.build(name, seed=1, **{**NARROW[name], **options})


def batch(name, n=8):
    rng = np.random.default_rng(0)
    shape = NARROW[name].get("input_shape", (32, 32, 3))
    return rng.normal(size=(n, *shape)).astype(np.float32), np.arange(n) % 10


@pytest.fixture
def reference():
    """The plain NumPy ops: what is tested is the model, and nothing has to be compiled for its shapes."""
    with backend.use("reference"):
        yield


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_products_are_the_published_ones(name):
    model, row = fn.build(name), entry(name)
    assert (model.num_parameters(), model.macs(row.input_shape)) == COUNTS[name]
    assert model.output_shape(row.input_shape) == ((1000,) if name == "alexnet" else (10,))
    assert model._store is None  # nothing is drawn for counting
    rows = summarize(model, row.input_shape)
    assert (sum(r.parameters for r in rows), sum(r.macs_forward for r in rows)) == COUNTS[name]
    # Forward products twice, but for the first layer's dx.
    assert sum(r.macs_backward for r in rows) == 2 * COUNTS[name][1] - rows[0].macs_forward


@pytest.mark.parametrize(("name", "options", "parameters"), [
    ("resnet20", {"shortcut": "projection"}, 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64),
    ("resnet18", {"shortcut": "zero_pad"},
     11_173_962 - sum(a * b + 2 * b for a, b in ((64, 128), (128, 256), (256, 512)))),
    ("resnet18", {"filter_multiplier": 2}, 44_662_922),  # what all filters doubled would give
    ("resnet18", {"classes": 100}, 11_173_962 + 90 * 513),
    ("resnet18", {"input_shape": (32, 32, 1)}, 11_173_962 - 2 * 9 * 64),
    ("vgg-a", {"hidden": ()}, 9_220_480 + 5_130),
    ("vgg-a", {"input_shape": (64, 64, 3)}, 9_750_922 + 3 * 512 * 512),
    ("lenet5", {"pooling": "avg", "activation": "swish"}, 62_006),
    ("mobilenet", {"classes": 1000}, 4_231_976),  # the paper's 4.2 million
    ("squeezenet", {"classes": 1000}, 1_235_496),
])
def test_parameters_with_options(name, options, parameters):
    assert fn.build(name, **options).num_parameters() == parameters


def test_depthwise_separable_convolutions_save_what_the_formula_says():
    def products(**options):
        rows = {row.name: row.macs_forward for row in summarize(fn.build("resnet18", **options), (32, 32, 3))}
        return sum(n for name, n in rows.items() if name.startswith("layer4.1.conv2"))

    assert products() / products(separable=True) == pytest.approx(9 * 512 / (9 + 512), rel=1e-12)


def test_filter_multipliers_round_and_leave_a_filter():
    def widths(multiplier):
        model = fn.build("lenet5", filter_multiplier=multiplier)
        return [layer.out_channels for layer in model.walk() if isinstance(layer, fn.Conv2d)]

    assert [widths(m) for m in (0.75, 0.25, 1 / 64, 2)] == [[4, 12], [2, 4], [1, 1], [12, 32]]
    half = fn.build("resnet18", filter_multiplier=0.5)
    assert half.num_parameters() == pytest.approx(11_173_962 / 4, rel=0.01)
    assert half.parameters()["conv1.w"].shape == (3, 3, 3, 32)
    assert fn.build("resnet18", filter_multiplier=0.5, stem_multiplier=1).parameters()["conv1.w"].shape == (3, 3, 3, 64)


# Of PyTorch: the modules of torchvision's vgg11, vgg11_bn and resnet18 that have parameters, and what they are.
TORCHVISION = {
    "vgg-a": [*(f"features.{i}" for i in (0, 3, 6, 8, 11, 13, 16, 18)), *(f"classifier.{i}" for i in (0, 2, 4))],
    "vgg-a-bn": [f"features.{i + j}" for i in (0, 4, 8, 11, 15, 18, 22, 25) for j in (0, 1)]
    + [f"classifier.{i}" for i in (0, 2, 4)],
    "lenet5-bn": ["conv1", "bn1", "conv2", "bn2", "fc1", "bn3", "fc2", "bn4", "fc3"],
    "resnet18": ["conv1", "bn1", *(
        f"layer{stage}.{block}.{part}" for stage in (1, 2, 3, 4) for block in (0, 1)
        for part in ("conv1", "bn1", "conv2", "bn2",
                     *(("downsample.0", "downsample.1") if stage > 1 and block == 0 else ()))), "fc"],
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_layers_are_named_as_in_pytorch(name):
    model = narrow(name)
    with_parameters = [path for path, layer in named_layers(model) if layer.parameters_here]
    assert with_parameters == TORCHVISION[name]
    norms = [path for path, layer in named_layers(model) if isinstance(layer, fn.BatchNorm)]
    assert [path.rpartition(".")[0] for path in model.statistics()][::2] == norms


def kinds(model):
    return [layer.kind for _, layer in named_layers(model)]


def test_activations_pools_and_dropout_are_options():
    smooth = kinds(narrow("vgg-a-bn", activation="swish", pooling="avg"))
    assert smooth.count("Swish") == 10 and smooth.count("AvgPool2d") == 5
    assert not {"ReLU", "MaxPool2d"} & set(smooth)
    assert kinds(narrow("resnet18-dw", activation="gelu")).count("GELU") == 2 + 8 * 4
    assert kinds(narrow("resnet18")).count("ReLU") == 1 + 8 * 2
    assert kinds(narrow("resnet18-dropout"))[-3:] == ["GlobalAvgPool", "Dropout", "Linear"]
    assert kinds(narrow("resnet18-dropout", dropout_place="after"))[-3:] == ["GlobalAvgPool", "Linear", "Dropout"]
    assert narrow("resnet18-dropout").layers[-2].p == 0.5
    assert kinds(narrow("resnet20")).count("ZeroPadShortcut") == 2
    assert {layer.conv_algorithm for layer in narrow("resnet18", conv_algorithm="direct").walk()
            if isinstance(layer, fn.Conv2d)} == {"direct"}


def test_initialisers_of_convolutional_models():
    def spread(array, fan_in):
        return array.std() * np.sqrt(fan_in)

    resnet = fn.build("resnet18", filter_multiplier=0.5).parameters()
    assert spread(resnet["layer2.1.conv1.w"], 9 * 64) == pytest.approx(np.sqrt(2), rel=0.02)
    assert spread(resnet["fc.w"], 256) == pytest.approx(1, rel=0.05)
    lenet = fn.build("lenet5").parameters()
    assert np.abs(lenet["conv2.w"]).max() == pytest.approx(1 / np.sqrt(150), rel=0.01) and lenet["conv2.b"].any()
    vgg = fn.build("vgg-a", filter_multiplier=0.5).parameters()
    assert vgg["features.11.w"].std() == pytest.approx(np.sqrt(2 / (9 * (128 + 256))), rel=0.02)
    assert (fn.build("resnet20", init="zeros").parameters()["layer1.0.conv1.w"] == 0).all()
    assert fn.build("lenet5", init="normal:0.1").parameters()["fc1.w"].std() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize(("name", "options", "kind", "message"), [
    ("resnet18", {"width": 3}, TypeError, "^build: resnet18 got an unexpected keyword argument 'width'"),
    ("lenet5", {"norm_after": True}, TypeError, "^build: lenet5 got an unexpected keyword argument 'norm_after'"),
    ("resnet18", {"shortcut": "padding"}, ValueError, "shortcut 'padding' is not known; choose from projection, "),
    ("resnet18", {"dropout_place": "within"}, ValueError, "dropout_place 'within' is not known; choose from before, "),
    ("resnet18", {"blocks": (2, 2)}, ValueError, r"blocks \(2, 2\) and widths \(64, 128, 256, 512\) must be"),
    ("resnet18", {"stem_multiplier": -1}, ValueError, "stem_multiplier must be a positive number but is -1"),
    ("resnet18", {"filter_multiplier": 0}, ValueError, "filter_multiplier must be a positive number but is 0"),
    ("vgg-a", {"filter_multiplier": float("inf")}, ValueError, "filter_multiplier must be a positive number but is"),
    ("vgg-a", {"filter_multiplier": "2"}, ValueError, "filter_multiplier must be a positive number but is '2'"),
    ("vgg-a", {"pooling": "min"}, ValueError, "pooling 'min' is not known; choose from max, avg"),
    ("vgg-a", {"input_shape": (16, 16, 3)}, ValueError, "MaxPool2d: the kernel covers 2 places, more than"),
    ("squeezenet", {"activation": "step"}, ValueError, "activation 'step' is not known; choose from relu"),
    ("lenet5", {"init": "he"}, ValueError, "'he' is not known"),
    ("lenet5", {"conv_algorithm": "fft"}, ValueError, "conv_algorithm must be one of auto, winograd, direct but"),
    ("lenet5", {"input_shape": (8, 8, 1)}, ValueError, "conv2: Conv2d: the kernel covers 5 places, more than"),
])
def test_build_says_what_cannot_be(name, options, kind, message):
    with pytest.raises(kind, match=message):
        fn.build(name, **options)


def test_models_fit_other_data(reference):
    assert fitting("resnet18", (32, 32, 3), 10) == fitting("alexnet", (227, 227, 3), 1000) == {}
    assert fitting("resnet18", (8, 8, 1), 7) == {"input_shape": (8, 8, 1), "classes": 7}
    assert fitting("mlp2", (8, 8, 1), 10) == {"inputs": 64}
    model = fn.build("resnet18", filter_multiplier=1 / 16, **fitting("resnet18", (8, 8, 1), 7))
    assert model.predict(np.zeros((2, 8, 8, 1), np.float32)).shape == (2, 7)


@pytest.mark.parametrize("name", COUNTS)
def test_training_reaches_every_parameter(name, reference):
    model, (x, labels) = narrow(name), batch(name)
    assert model.predict(x).shape == (8, 10)
    before = {key: a.tobytes() for key, a in model.state().items()}
    step = fn.TrainStep(model, fn.SGD(lr=0.01, momentum=0.9), penalty=fn.L2(1e-4), seed=0)
    # Three, because as long as beta is 0 a gamma between two convolutions of single channels has no gradient.
    assert np.isfinite([step(x, labels) for _ in range(3)]).all()
    assert np.isfinite(model.store.vector).all()
    same = {key for key, a in model.state().items() if a.tobytes() == before[key]}
    if model.statistics():
        same -= {key for key in same if key.endswith(".b")}  # before batch norm they have a gradient of rounding alone
    assert not same
    assert np.isfinite(model.predict(x)).all()


@pytest.mark.parametrize("name", ["lenet5", "vgg-a-bn", "resnet18"])
def test_nchw_images_are_refused_with_a_guess(name):
    x = np.zeros((2, 3, 32, 32), np.float32)
    with pytest.raises(ValueError, match=r"but the layer takes 3; is it \(C, H, W\)\? Channels come last here"):
        narrow(name).predict(x)
    with pytest.raises(ValueError, match=r"feature maps \(H, W, C\) are needed"):
        narrow(name).predict(x.reshape(2, -1))


@pytest.mark.parametrize("name", COUNTS)
def test_taps_see_every_layer_once_and_summaries_know_its_shape(name, reference):
    model, (x, _), seen = narrow(name), batch(name, 2), []
    assert model.store is not None

    def tap(layer, x, y):
        seen.append((id(layer), y.shape[1:]))

    model(x, Context(training=True, samples=np.arange(2), tap=tap))
    layers = dict(named_layers(model))
    assert sorted(key for key, _ in seen) == sorted(map(id, layers.values()))
    rows, shapes = summarize(model, x.shape[1:]), dict(seen)
    assert [row.name for row in rows] == [path for path, layer in layers.items() if not layer.children()]
    assert [row.shape for row in rows] == [shapes[id(layers[row.name])] for row in rows]


@pytest.mark.parametrize("name", ["lenet5-bn", "resnet18-dropout", "squeezenet"])
def test_state_and_copies_of_nested_models(name, reference):
    model, (x, labels) = narrow(name), batch(name)
    fn.TrainStep(model, fn.SGD(lr=0.01))(x, labels)
    other = narrow(name)
    other.load_state(model.state())
    np.testing.assert_array_equal(other.predict(x), model.predict(x))
    np.testing.assert_array_equal(model.copy().predict(x), model.predict(x))
    state = model.state()
    first, second, third = list(state)[:3]
    del state[first]
    state |= {second: np.zeros((2, 2)), "layer9.0.w": np.zeros(3)}
    with pytest.raises(ValueError) as caught:
        other.load_state(state)
    text = str(caught.value)
    assert f"{first} is missing" in text and f"{second} is (2, 2) but the model has" in text
    assert "layer9.0.w is not in the model" in text and third not in text


# --- proofs of whole models ---

WHOLE = {f"{whole.name}, {whole.label}": whole for whole in CATALOGUE
         if whole.name in ("lenet5", "vgg-a-bn", "resnet18", "resnet20")}


@pytest.mark.parametrize("label", WHOLE)
def test_gradients_of_whole_models(label):
    whole = replace(WHOLE[label], entries=min(WHOLE[label].entries, 12))
    report = whole.check()
    assert report.passed, report.failures
    for row in report.rows:
        assert row.differences <= 1e-7 and row.complex_step <= 1e-12 and row.adjoint <= 1e-12, row
        assert row.sharp and row.entries > 0, row
    # Only what stands right before a batch norm has no gradient.
    assert {row.name for row in report.rows if row.zero} == (
        {name for name in fn.build(whole.name).parameters() if name.startswith("features") and name.endswith(".b")}
        if whole.name == "vgg-a-bn" else set())


def test_kinks_of_the_smooth_models_are_none():
    for label, whole in WHOLE.items():
        if "swish" in label:
            kinked = {"ReLU", "MaxPool2d", "LeakyReLU", "ELU"} & set(kinds(fn.build(whole.name, **whole.options)))
            assert not kinked, label


@pytest.mark.parametrize("broken", ["shortcut", "stem"])
def test_a_mistake_deep_in_a_resnet_is_found(broken, monkeypatch):
    call = fn.Residual.__call__ if broken == "shortcut" else fn.BatchNorm.__call__

    def forgetful(self, x, context):
        y, back = call(self, x, context)
        # The last block alone, or the first batch norm alone.
        if y.shape[1:3] != ((1, 1) if broken == "shortcut" else (8, 8)) or self.name not in ("1", "bn1"):
            return y, back
        return y, lambda dy, needs_dx=True: 1.0001 * back(dy, needs_dx)

    monkeypatch.setattr(fn.Residual if broken == "shortcut" else fn.BatchNorm, "__call__", forgetful)
    whole = next(whole for whole in WHOLE.values() if whole.name == "resnet18")
    report = replace(whole, entries=1).check()
    assert any("dconv1.w is wrong" in line for line in report.failures)
    assert not any("dfc.w is wrong" in line for line in report.failures)


def test_every_model_can_be_checked():
    assert {whole.name for whole in (*CATALOGUE, *NAMED_ONLY)} == set(fn.MODELS)
