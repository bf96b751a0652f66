"""Weights to and from PyTorch without PyTorch: recorded outputs, names, layouts, types, and files that are wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from tiny import bits, fit

import fastnet as fn
from fastnet.nn import interop
from fastnet.train import checkpoint

RECORDED = safetensors.numpy.load_file(Path(__file__).with_name("torch_outputs.safetensors"))
NARROW = {  # as record_torch.py makes them
    "lenet5": {"filters": (3, 8), "hidden": (24, 16)},
    "vgg-a-bn": {"filter_multiplier": 1 / 32, "hidden": (16, 12)},
    "resnet18": {"filter_multiplier": 1 / 32},
}


def recorded(name):
    """(PyTorch's state dict, images (N, H, W, C), logits)."""
    state = {key.partition("/")[2]: a for key, a in RECORDED.items() if key.startswith(f"{name}/")}
    logits = state.pop("logits")
    return state, RECORDED["x"].transpose(0, 2, 3, 1).astype(np.float64), logits


def narrow(name, dtype="float64", **options):
    return fn.build(name, dtype=dtype, **{**NARROW[name], **options})


def by_hand(path, entries):
    """A safetensors file of {name: (type, shape, bytes)}: a length, a JSON header, the data."""
    header, offset = {}, 0
    for key, (dtype, shape, data) in entries.items():
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for *_, data in entries.values()))
    return path


def write(path, arrays, metadata=None):
    safetensors.numpy.save_file({key: np.ascontiguousarray(a) if a.ndim else a for key, a in arrays.items()}, path,
                                metadata)
    return path


# --- recorded outputs ---

@pytest.mark.parametrize("conv_algorithm", ["auto", "direct"])
@pytest.mark.parametrize("name", NARROW)
def test_the_outputs_are_pytorchs(name, conv_algorithm, tmp_path):
    state, x, logits = recorded(name)
    model = narrow(name, conv_algorithm=conv_algorithm)
    fn.load_weights(model, write(tmp_path / "w.safetensors", state, {"format": "pt"}))
    error = np.abs(model.predict(x) - logits).max() / np.abs(logits).max()
    assert error < 1e-10
    model.load_state({**model.state(), "conv1.w" if name != "vgg-a-bn" else "features.0.w":
                      next(iter(model.parameters().values())) * (1 + 1e-6)})
    assert np.abs(model.predict(x) - logits).max() / np.abs(logits).max() > 1e-10  # the comparison can fail


@pytest.mark.parametrize("name", NARROW)
def test_what_was_recorded_comes_back_bit_by_bit(name, tmp_path):
    state, _, _ = recorded(name)
    model = narrow(name, dtype="float32")
    fn.load_weights(model, state)
    fn.save_torch_weights(model, tmp_path / "w.safetensors")
    written = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    assert bits(written) == bits(state) and {a.dtype for a in written.values()} <= {np.dtype("f4"), np.dtype("i8")}
    assert [written[key].shape for key in written if key.endswith("num_batches_tracked")] == [()] * (
        sum(key.endswith("running_var") for key in state))
    header = (tmp_path / "w.safetensors").read_bytes()[8:]
    assert header.startswith(b'{"__metadata__":{"format":"pt"}')  # which other libraries look for


# --- round trips ---

@pytest.mark.parametrize("name", [name for name in fn.MODELS if name not in ("alexnet", "resnet18-x2")])
def test_saved_and_loaded_again_every_model_has_the_same_bits(name, tmp_path):
    small = {} if name.startswith("mlp") else {"filter_multiplier": 1 / 16}
    model = fn.build(name, seed=1, **small)
    rng = np.random.default_rng(0)
    model.load_state({key: rng.standard_normal(a.shape).astype(a.dtype) for key, a in model.state().items()})
    fn.save_torch_weights(model, tmp_path / "w.safetensors")
    twin = fn.build(name, seed=2, **small)
    fn.load_weights(twin, tmp_path / "w.safetensors")
    assert bits(twin.state()) == bits(model.state())


def test_layouts_by_hand():
    model = fn.Sequential([("conv", fn.Conv2d(2, 3, (1, 2))), ("flat", fn.Flatten()), ("norm", fn.BatchNorm(12)),
                           ("act", fn.ReLU()), ("fc", fn.Linear(12, 5)), ("out", fn.Linear(5, 2))])
    arrays = interop.to_torch(model, (2, 3, 2))
    own = model.state()
    assert all(a.flags.c_contiguous for a in arrays.values())
    for o, c, kw in np.ndindex(3, 2, 2):
        assert arrays["conv.weight"][o, c, 0, kw] == own["conv.w"][0, kw, c, o]
    assert (arrays["out.weight"] == own["out.w"].T).all()  # no map comes into it
    for c, row, column in np.ndindex(3, 2, 2):  # of the map (H, W, C) = (2, 2, 3) that is flattened
        there, here = c * 4 + row * 2 + column, (row * 2 + column) * 3 + c
        assert (arrays["fc.weight"][:, there] == own["fc.w"][here]).all()
        assert arrays["norm.weight"][there] == own["norm.gamma"][here]
    assert arrays["norm.num_batches_tracked"] == 0 and arrays["norm.num_batches_tracked"].shape == ()
    assert list(arrays) == ["conv.weight", "conv.bias", "norm.weight", "norm.bias", "norm.running_mean",
                            "norm.running_var", "norm.num_batches_tracked", "fc.weight", "fc.bias", "out.weight",
                            "out.bias"]


def test_an_mlp_takes_images_in_pytorchs_order_and_features_in_theirs():
    model = fn.build("mlp2")
    images, flat = interop.to_torch(model), interop.to_torch(model, (3072,))
    own = model.state()["linear1.w"]
    assert (flat["linear1.weight"] == own.T).all()
    assert (images["linear1.weight"][:, 1] == own[3]).all()  # the next pixel, not the next channel
    twin = fn.build("mlp2", seed=5)
    fn.load_weights(twin, flat, input_shape=(3072,))
    assert bits(twin.state()) == bits(model.state())


def flat(*layers):
    return fn.Sequential([("conv", fn.Conv2d(1, 2, 1)), ("flat", fn.Flatten()), *layers])


def test_branches_behind_a_flattened_map():
    joined = flat(("join", fn.Concatenate([("a", fn.ReLU()), ("b", fn.Linear(8, 3)), ("c", fn.Tanh())])),
                  ("fc", fn.Linear(19, 2)))
    orders = {place.ours: place.order for place in interop.places(joined, (2, 2, 1))}
    swapped = [0, 2, 4, 6, 1, 3, 5, 7]
    assert orders["join.b.w"].tolist() == swapped and orders["join.b.b"] is None
    assert orders["fc.w"].tolist() == [*swapped, 8, 9, 10, *(11 + k for k in swapped)]
    added = flat(("add", fn.Residual(fn.Linear(8, 3), fn.Linear(8, 3))), ("fc", fn.Linear(3, 2)))
    orders = {place.ours: place.order for place in interop.places(added, (2, 2, 1))}
    assert orders["add.linear1.w"].tolist() == orders["add.downsample.w"].tolist() == swapped
    assert orders["fc.w"] is None


class Odd(fn.Layer):
    def __init__(self, shape=None):
        super().__init__()
        self.shape = shape
        if shape is None:
            self.parameters_here["w"] = fn.Linear(2, 2).parameters_here["w"]

    def output_shape(self, shape):
        return self.shape or shape


@pytest.mark.parametrize(("model", "message"), [
    (flat(("add", fn.Residual(fn.Linear(8, 8)))), "add: in PyTorch's order of features its two branches do not fit"),
    (flat(("odd", Odd())), "odd is a Odd: it is not known how PyTorch keeps its weights"),
    (flat(("odd", Odd((4,)))), "odd is a Odd: it is not known in which order its features come in PyTorch"),
    (fn.Sequential([("odd", Odd((4,)))]), "odd is a Odd: it is not known in which order its features come in PyTorch"),
    (fn.Sequential([("fc", fn.Linear(5, 2))]), "fc: Linear: the input is (2, 2, 1), 4 features a sample"),
])
def test_what_has_no_known_twin(model, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        interop.to_torch(model, (2, 2, 1))


@pytest.mark.parametrize("model", [fn.Sequential([fn.Linear(4, 2)]), fn.build("mlp2", inputs=784)])
def test_the_shape_of_the_input_is_never_guessed(model):
    with pytest.raises(ValueError, match=r"is not known; give input_shape, \(H, W, C\) or \(D,\)"):
        interop.to_torch(model)


def test_other_images_are_known_from_the_options():
    wide = interop.to_torch(fn.build("lenet5", input_shape=(16, 24, 1)))
    assert wide["fc1.weight"].shape == (120, 16 * 1 * 3) and wide["conv1.weight"].shape == (6, 1, 5, 5)


def test_complex_models_have_no_twin():
    with pytest.raises(ValueError, match="the model is complex128; PyTorch's weights are real"):
        interop.to_torch(fn.build("mlp2", dtype="complex128"))


# --- names ---

def test_the_names_of_other_cifar_networks():
    state, x, logits = recorded("resnet18")
    theirs = {f"module.{key}".replace("downsample.", "shortcut.").replace("module.fc.", "module.linear."): a
              for key, a in state.items() if "num_batches_tracked" not in key}
    assert {"module.linear.weight", "module.layer2.0.shortcut.1.running_var"} <= set(theirs)
    model = narrow("resnet18")
    fn.load_weights(model, theirs)
    assert np.abs(model.predict(x) - logits).max() < 1e-10 * np.abs(logits).max()


def test_a_layer_of_that_very_name_is_meant():
    model = fn.Sequential([("linear", fn.Linear(2, 3)), ("fc", fn.Linear(3, 2)), ("module", fn.Linear(2, 2))])
    twin = model.copy()
    twin.store.vector[...] = 0
    fn.load_weights(twin, interop.to_torch(model, (2,)), input_shape=(2,))
    assert bits(twin.state()) == bits(model.state())


# --- types ---

def bfloat16(array):
    """The upper halves of float32 numbers, cut; and what they stand for."""
    cut = (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return cut, (cut.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("stored", ["float16", "float64", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_types_are_converted(stored, dtype, tmp_path):
    state, _, _ = recorded("lenet5")
    if stored == "bfloat16":
        expected = {key: bfloat16(a)[1] for key, a in state.items()}
        path = by_hand(tmp_path / "w.safetensors",
                       {key: ("BF16", a.shape, bfloat16(a)[0].tobytes()) for key, a in state.items()})
    else:
        expected = {key: a.astype(stored) for key, a in state.items()}
        path = write(tmp_path / "w.safetensors", expected)
    model = narrow("lenet5", dtype)
    fn.load_weights(model, path)
    twin = narrow("lenet5", dtype)
    fn.load_weights(twin, {key: a.astype(dtype) for key, a in expected.items()})
    assert bits(model.state()) == bits(twin.state()) and model.store.vector.dtype == dtype
    for place in interop.places(model):
        exact = place.from_torch(state[place.theirs])
        np.testing.assert_allclose(model.parameters()[place.ours], exact, rtol=2**-7, atol=1e-7)
        assert (model.parameters()[place.ours] == exact).all() == (stored == "float64")  # what was stored was shorter


def test_types_that_are_not_read(tmp_path):
    by_hand(tmp_path / "w.safetensors", {"conv1.weight": ("F8_E4M3", (2,), b"ab"), "x": ("F32", (1,), b"\0" * 4)})
    with pytest.raises(ValueError, match=r"w\.safetensors has entries of types that are not read here: conv1\.weight$"):
        fn.load_weights(narrow("lenet5"), tmp_path / "w.safetensors")


# --- what is wrong with a file ---

def test_everything_that_is_wrong_is_said_at_once_and_nothing_is_loaded(tmp_path):
    state, _, _ = recorded("vgg-a-bn")
    model = narrow("vgg-a-bn", "float32")
    before = bits(model.state())
    state.pop("features.0.bias")
    state["features.0.weight"] = state["features.0.weight"].transpose(2, 3, 1, 0)
    state["classifier.9.weight"] = np.zeros(3, np.float32)
    state["features.1.weight"] = state["features.1.weight"].astype(np.int32)
    state["features.1.bias"] = np.array([np.nan, np.inf], np.float32)
    state["classifier.0.bias"] = np.full(16, 1e300)  # finite in the file, not in the model
    state["module.classifier.4.bias"] = state["classifier.4.bias"]
    with pytest.raises(ValueError) as error:
        fn.load_weights(model, write(tmp_path / "w.safetensors", state))
    start = f"{tmp_path / 'w.safetensors'}: the weights do not fit the model: "
    assert str(error.value).startswith(start) and str(error.value).removeprefix(start).split("; ") == [
        "features.0.bias is missing", "classifier.9.weight is not in the model",
        "classifier.4.bias and module.classifier.4.bias are both classifier.4.bias",
        "classifier.0.bias holds 16 entries that are not finite in float32",
        "features.0.weight is (3, 3, 3, 2) but the model has (2, 3, 3, 3)",
        "features.1.bias holds 2 entries that are not finite in float32",
        "features.1.weight is int32, but floating-point numbers are needed"]
    assert bits(model.state()) == before


def test_a_state_dict_may_hold_arrays_only():
    state, _, _ = recorded("lenet5")
    with pytest.raises(ValueError, match=r"fit the model: conv1\.bias must be an array but is a list$"):
        fn.load_weights(narrow("lenet5"), {**state, "conv1.bias": [0, 1, 2]})


@pytest.mark.parametrize(("damage", "message"), [
    (lambda content: content[:-1], r"is not a whole safetensors file \("),
    (lambda content: content[: len(content) // 2], r"is not a whole safetensors file \("),
    (lambda content: content[:5], r"is not a whole safetensors file \("),
    (lambda content: b"", r"is not a whole safetensors file \("),
    (lambda content: b"PK\x03\x04" + content, r"looks like a pickle of torch\.save, .* here: safetensors\.torch\.save"),
    (lambda content: b"\x80\x02}q\x00" + content, r"looks like a pickle of torch\.save"),
    (lambda content: b"\xff" * 8 + content, r"is not a whole safetensors file \("),
])
def test_files_that_are_no_safetensors(damage, message, tmp_path):
    path = write(tmp_path / "w.safetensors", recorded("lenet5")[0])
    path.write_bytes(damage(path.read_bytes()))
    model = narrow("lenet5")
    before = bits(model.state())
    with pytest.raises(ValueError, match=message) as error:
        fn.load_weights(model, path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path)) and bits(model.state()) == before


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        fn.load_weights(narrow("lenet5"), tmp_path / "absent.safetensors")
    with pytest.raises(IsADirectoryError):
        fn.load_weights(narrow("lenet5"), tmp_path)


# --- writing ---

def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    model, path = narrow("lenet5"), tmp_path / "w.safetensors"
    path.write_bytes(b"before")
    monkeypatch.setattr(checkpoint.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="the disk is full"):
        fn.save_torch_weights(model, path)
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    monkeypatch.undo()
    fn.save_torch_weights(model, path)
    assert len(safetensors.numpy.load_file(path)) == 10


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; a file is needed"):
        fn.save_torch_weights(narrow("lenet5"), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*absent to write w\.safetensors in"):
        fn.save_torch_weights(narrow("lenet5"), tmp_path / "absent" / "w.safetensors")


# --- a run's own files ---

@pytest.mark.parametrize("file", ["model.safetensors", "checkpoint.safetensors"])
def test_a_runs_weights(file, tmp_path):
    run = fit(tmp_path / "a", epochs=1)
    twin = fn.Sequential([fn.Linear(192, 16), fn.BatchNorm(16), fn.ReLU(), fn.Dropout(0.3), fn.Linear(16, 10)],
                         dtype="float64")
    fn.load_weights(twin, tmp_path / "a" / file)  # no shape is needed: nothing is turned round
    ours, theirs = run.model.state(), twin.state()
    assert all((ours[name] == theirs[name]).all() for name in theirs) and theirs["linear1.w"].dtype == np.float64


def test_a_runs_weights_that_do_not_fit(tmp_path):
    fit(tmp_path / "a", epochs=1)
    path = tmp_path / "a" / "model.safetensors"
    other = fn.Sequential([fn.Linear(192, 8), ("extra", fn.Linear(8, 10))])
    with pytest.raises(ValueError, match=r"model\.safetensors: load_state: extra\.w is missing; extra\.b is missing; "
                                         r"batch_norm1\.beta is not in the model; .*linear1\.w is \(192, 16\) but"):
        fn.load_weights(other, path)
    arrays, metadata = checkpoint.load(path)
    checkpoint.save(path, {"x": arrays["standardization/mean"]}, metadata)
    with pytest.raises(ValueError, match=r"model\.safetensors: there is no model in it$"):
        fn.load_weights(other, path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^\S*model\.safetensors is damaged"):
        fn.load_weights(other, path)
