"""What can be done with a finished run: load it, ask it about images, hand its weights on, start another from them."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import bits, dataset, fit, model

import fastnet as fn
from fastnet.data.images import FORMATS, read_image
from fastnet.nn import interop
from fastnet.train import checkpoint

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (pip install 'fastnet[images]')")

SHAPE = (16, 16, 3)
LENET = {"filters": (2, 3), "hidden": (8,), "input_shape": SHAPE}
DATA = dataset(60, 20, 30, SHAPE)


def lenet(**options):
    return fn.build("lenet5", **{**LENET, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(directory, Run) of a small network that has learned something."""
    out = tmp_path_factory.mktemp("runs") / "a"
    return out, fit(out, model=lenet(), data=DATA, epochs=1)


@pytest.fixture
def changed(finished, tmp_path):
    """The same run with its model file written anew after `change(arrays, metadata)`; returns the directory."""
    def write(change):
        arrays, metadata = checkpoint.load(finished[0] / "model.safetensors")
        change(arrays, metadata)
        checkpoint.save(tmp_path / "model.safetensors", arrays, metadata)
        return tmp_path
    return write


@pytest.fixture
def images(tmp_path):
    """Three test images as files of the size that the model takes."""
    for k in range(3):
        Image.fromarray(DATA.test.images[k]).save(tmp_path / f"{k}.png")
    return [tmp_path / f"{k}.png" for k in range(3)]


def fails(result, message, out=""):
    status, printed, err = result
    assert (status, printed) == (2, out) and err.startswith("fastnet ") and message in err
    assert err.endswith("\n") and err.count("\n") == 1


def softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


# --- load_run ---

def test_a_run_comes_back_from_disk(finished):
    out, made = finished
    found = fn.load_run(out)
    assert bits(found.model.state()) == bits(made.model.state()) and found.model.dtype == made.model.dtype
    assert bits(found.standardization.arrays()) == bits(made.standardization.arrays())
    assert (found.classes, found.input_shape, found.loss) == (DATA.classes, SHAPE, "softmax_cross_entropy")
    x = made.standardization.apply(DATA.test.images)
    expected = softmax(made.model.predict(x))
    assert found.score == "probability" and found.scores(DATA.test.images).dtype == np.float64
    np.testing.assert_allclose(found.scores(DATA.test.images), expected, rtol=1e-13)
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-12)


def test_probabilities_do_not_overflow(changed):
    def louder(arrays, metadata):
        arrays["model/fc2.b"] = arrays["model/fc2.b"] + np.arange(10, dtype=np.float32) * 1e6

    probabilities = fn.load_run(changed(louder)).scores(DATA.test.images)
    assert (probabilities[:, -1] == 1).all() and (probabilities[:, :-1] == 0).all()


@pytest.mark.parametrize(("loss", "score"), [("sigmoid_cross_entropy", "probability"), ("soft_margin", "probability"),
                                             ("mean_squared_error", "output"), ("huber", "output")])
def test_scores_are_what_the_loss_means(finished, changed, loss, score):
    def other(arrays, metadata):
        metadata["config"]["loss"] = {"name": loss}

    found, made = fn.load_run(changed(other)), finished[1]
    logits = made.model.predict(made.standardization.apply(DATA.test.images)).astype(np.float64)
    expected = logits if score == "output" else 1 / (1 + np.exp(-logits))
    assert found.score == score
    np.testing.assert_allclose(found.scores(DATA.test.images), expected, rtol=1e-12)


@pytest.mark.parametrize("wrong", [DATA.test.images[:, :8], DATA.test.images / 255])
def test_scores_of_other_arrays(finished, wrong):
    with pytest.raises(ValueError, match=r"scores: images are .* but uint8 \(N, 16, 16, 3\) is needed"):
        fn.load_run(finished[0]).scores(wrong)


@pytest.mark.parametrize("name", [name for name in fn.MODELS if name not in ("alexnet", "resnet18-x2")])
def test_every_model_of_the_table_is_built_again(name, tmp_path):
    small = {} if name.startswith("mlp") else {"filter_multiplier": 1 / 16}
    net = fn.build(name, seed=3, **small)
    settings = {"name": name, "dtype": "float32", **net.settings, "layers": []}
    arrays = {f"model/{key}": a for key, a in net.state().items()}
    arrays |= {"standardization/mean": np.zeros(3), "standardization/std": np.ones(3)}
    config = json.loads(json.dumps({"model": settings, "loss": {"name": "softmax_cross_entropy"}}))
    checkpoint.save(tmp_path / "model.safetensors", arrays, {"config": config, "classes": ["yes", "no"]})
    found = fn.load_run(tmp_path)
    assert bits(found.model.state()) == bits(net.state()) and found.input_shape == (32, 32, 3)
    assert found.classes == ("yes", "no", *"23456789")  # outputs without a name have a number


def test_initialisers_of_ones_own_do_not_matter(tmp_path):
    net = lenet(init=fn.initializers.Initializer("my own", "normal", lambda fan_in, fan_out: 0.1))
    made = fit(tmp_path / "a", model=net, data=DATA, epochs=1)
    assert bits(fn.load_run(tmp_path / "a").model.state()) == bits(made.model.state())


# --- runs that were written before class names and shapes were kept ---

def older(arrays, metadata):
    del metadata["classes"], metadata["input_shape"]


def test_older_runs_have_numbers_for_classes(changed):
    found = fn.load_run(changed(older))
    assert found.classes == tuple("0123456789") and found.input_shape == SHAPE


@pytest.mark.parametrize("normalization", ["pixel", "channel"])
def test_older_runs_of_mlps(normalization, tmp_path):
    out = tmp_path / "a"
    fit(out, model=fn.build("mlp2", inputs=192), data=dataset(), epochs=1, normalization=normalization)
    arrays, metadata = checkpoint.load(out / "model.safetensors")
    assert fn.load_run(out).input_shape == (8, 8, 3)
    older(arrays, metadata)
    checkpoint.save(out / "model.safetensors", arrays, metadata)
    if normalization == "pixel":
        assert fn.load_run(out).input_shape == (8, 8, 3)
    else:
        with pytest.raises(ValueError, match="written by an older fastnet, which did not keep the shape of the images"):
            fn.load_run(out)


# --- predict ---

def test_predict(run, finished, images):
    out, made = finished
    status, printed, err = run("predict", out, *images)
    assert (status, err) == (0, "")
    lines = printed.splitlines()
    assert lines[0].split() == ["image", "class", "probability", "2.", "class", "probability", "3.", "class",
                                "probability"]
    expected = softmax(made.model.predict(made.standardization.apply(DATA.test.images[:3])))
    for line, path, row in zip(lines[2:], images, expected, strict=True):
        best = np.argsort(-row)[:3]
        assert line.split() == [str(path), *(c for k in best for c in (DATA.classes[k], f"{row[k]:.4f}"))]


def test_predict_as_many_as_wanted(run, finished, images):
    out, _ = finished
    header = run("predict", out, images[0], "--top", 1)[1].splitlines()[0]
    assert header.split() == ["image", "class", "probability"]
    assert len(run("predict", out, images[0], "--top", 50)[1].splitlines()[-1].split()) == 1 + 2 * 10
    fails(run("predict", out, images[0], "--top", 0), "--top must be at least 1 but is 0")


def test_predict_as_json(run, finished, images):
    out, _ = finished
    found = json.loads(run("predict", out, *images, "--json")[1])
    scores = fn.load_run(out).scores(DATA.test.images[:3])
    assert [row["image"] for row in found] == [str(path) for path in images]
    for row, expected in zip(found, scores, strict=True):
        assert row["probability"] == dict(zip(DATA.classes, expected.tolist(), strict=True))
        assert row["class"] == DATA.classes[expected.argmax()]


def test_one_image_that_cannot_be_read_does_not_hide_the_others(run, finished, images, tmp_path):
    out, _ = finished
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "half.png").write_bytes(images[0].read_bytes()[:200])
    others = run("predict", out, images[0], images[2])[1]
    bad = [tmp_path / "absent.png", tmp_path / "text.png", tmp_path, tmp_path / "half.png"]
    fails(run("predict", out, images[0], *bad, images[2]),
          f"4 of 6 images cannot be read: {bad[0]}: No such file or directory; {bad[1]}: it is none of "
          f"{', '.join(FORMATS)}; {bad[2]}: Is a directory; {bad[3]}: ", others)


def test_no_image_at_all_can_be_read(run, finished, tmp_path):
    fails(run("predict", finished[0], tmp_path / "absent.png"), "1 of 1 images cannot be read: ")
    fails(run("predict", finished[0]), "the following arguments are required: IMAGE")


@pytest.mark.parametrize("limit", [200, 100])  # of pixels: Pillow warns above it and refuses above twice that
def test_images_above_pillows_limit(run, finished, images, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    fails(run("predict", finished[0], images[0]), "0.png: Image size (256 pixels) exceeds limit of ")


def test_without_pillow(run, finished, images, without):
    without("PIL")
    fails(run("predict", finished[0], images[0]),
          "fastnet predict: Pillow is needed to read images: pip install 'fastnet[images]'")


def test_directories_that_hold_no_finished_run(run, finished, images, tmp_path):
    fails(run("predict", tmp_path / "absent", images[0]), "absent does not exist")
    fails(run("predict", images[0], images[0]), "0.png is a file, but the directory of a run is needed")
    fails(run("predict", tmp_path, images[0]), f"there is no model.safetensors in {tmp_path}: it is not the")
    (tmp_path / "checkpoint.safetensors").write_bytes((finished[0] / "checkpoint.safetensors").read_bytes())
    fails(run("predict", tmp_path, images[0]), f"no model.safetensors in {tmp_path}: its run has not finished")


def delete(*path):
    def change(arrays, metadata):
        inner = metadata
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
    return change


def put(*path, value):
    def change(arrays, metadata):
        inner = metadata
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
    return change


OPTIONS = ("config", "model", "options")


@pytest.mark.parametrize(("change", "message"), [
    (delete("config"), "is not the model of a run (KeyError: 'config')"),
    (put("config", value=[1]), "is not the model of a run (TypeError: "),
    (delete("config", "loss"), "is not the model of a run (KeyError: 'loss')"),
    (lambda arrays, metadata: arrays.pop("standardization/mean"), "(KeyError: 'standardization/mean')"),
    (put("config", "model", "name", value="custom"), "its model (custom) is none of the table's; the script that"),
    (delete(*OPTIONS), "its model (lenet5) is none of the table's"),
    (delete("config", "model", "dtype"), "does not fit the model lenet5 of this fastnet: 'dtype'"),
    (put(*OPTIONS, "depth", value=3), "does not fit the model lenet5 of this fastnet: build: lenet5 got an unexpected"),
    (put(*OPTIONS, "filters", value=[2, 4]), "does not fit the model lenet5 of this fastnet: load_state: conv2.w is ("),
    (put("input_shape", value=[20, 20, 3]), "does not fit the model lenet5 of this fastnet: fc1: Linear: the input is"),
    (put("input_shape", value=[16, 16]), "does not fit the model lenet5 of this fastnet: not enough values"),
    (put("input_shape", value="large"), "does not fit the model lenet5 of this fastnet: invalid literal"),
    (lambda arrays, metadata: [arrays.pop(key) for key in list(arrays) if key.startswith("model/")],
     "does not fit the model lenet5 of this fastnet: there is no model in it"),
    (lambda arrays, metadata: arrays.update({"standardization/mean": np.zeros(4), "standardization/std": np.ones(4)}),
     "does not fit the model lenet5 of this fastnet: Standardization: the images are (16, 16, 3)"),
])
def test_model_files_that_do_not_fit(run, changed, images, change, message):
    fails(run("predict", changed(change), images[0]), message)


def test_a_model_file_that_is_damaged(run, changed, images):
    path = changed(lambda arrays, metadata: None) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    fails(run("predict", path.parent, images[0]), "model.safetensors is damaged: what it holds does not")
    path.write_bytes(content[:-9])
    fails(run("predict", path.parent, images[0]), "model.safetensors is not a whole fastnet checkpoint")


def test_models_of_a_script(run, images, tmp_path):
    fit(tmp_path / "a", epochs=1)
    fails(run("predict", tmp_path / "a", images[0]),
          "its model (custom) is none of the table's; the script that trained it can build it again and fill it with "
          "fastnet.load_weights")
    twin = model(seed=9)
    fn.load_weights(twin, tmp_path / "a" / "model.safetensors")  # as it says


def test_images_of_a_number_of_channels_that_files_do_not_have(run, images, tmp_path):
    data = dataset(60, 20, 30, (8, 8, 2))
    fit(tmp_path / "a", model=fn.build("mlp2", inputs=128), data=data, epochs=1)
    fails(run("predict", tmp_path / "a", images[0]), "a: its images have 2 channels; files have 1 or 3")


# --- how a file becomes an image ---

def test_the_widest_part_of_the_wanted_aspect_in_the_middle(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (8, 4, 3)), pixels[:, 4:8])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (4, 12, 3)), pixels[2:6])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (8, 8, 3)), pixels[:, 2:10])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (8, 12, 3)), pixels)
    assert read_image(tmp_path / "a.png", (1, 64, 3)).shape == (1, 64, 3)  # one row is the least
    assert read_image(tmp_path / "a.png", (64, 1, 3)).shape == (64, 1, 3)


def test_grey_images_for_models_of_one_channel(run, tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (8, 8, 1))[..., 0], pixels)
    Image.fromarray(np.stack([pixels] * 3, axis=2)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png", (8, 8, 1))[..., 0], pixels)
    fit(tmp_path / "a", model=fn.build("mlp2", inputs=64), data=dataset(60, 20, 30, (8, 8, 1)), epochs=1)
    lines = run("predict", tmp_path / "a", tmp_path / "a.png", tmp_path / "b.png")[1].splitlines()
    assert lines[2].split()[1:] == lines[3].split()[1:]


def test_photographs_are_turned_before_they_are_looked_at(run, finished, images, tmp_path):
    turned = Image.fromarray(np.rot90(DATA.test.images[0]).copy())
    exif = turned.getexif()
    exif[0x0112] = 6  # "turn right to show"
    turned.save(tmp_path / "turned.png", exif=exif)
    lines = run("predict", finished[0], images[0], tmp_path / "turned.png")[1].splitlines()
    assert lines[2].split()[1:] == lines[3].split()[1:]


# --- export, and a start from weights ---

def test_export(run, finished, tmp_path):
    out, made = finished
    file = tmp_path / "w.safetensors"
    assert run("export", out, file) == (0, f"lenet5: {made.model.num_parameters():,} parameters -> {file}\n", "")
    twin = lenet(seed=8)
    fn.load_weights(twin, file)
    assert bits(twin.state()) == bits(made.model.state())
    fails(run("export", out, tmp_path), f"{tmp_path} is a folder; a file is needed")
    fails(run("export", tmp_path / "absent", file), "absent does not exist")


def test_export_knows_the_shape_of_an_mlps_images(run, tmp_path):
    made = fit(tmp_path / "a", model=fn.build("mlp2", inputs=192), data=dataset(), epochs=1)
    assert run("export", tmp_path / "a", tmp_path / "w.safetensors")[0] == 0
    twin = fn.build("mlp2", inputs=192, seed=1)
    fn.load_weights(twin, tmp_path / "w.safetensors", input_shape=(8, 8, 3))
    assert bits(twin.state()) == bits(made.model.state())


@pytest.fixture
def train(run, monkeypatch, tmp_path):
    """`fastnet train lenet5 ...`, small, in a folder of its own."""
    monkeypatch.setattr("fastnet.data.load", lambda *_, **__: DATA)
    monkeypatch.chdir(tmp_path)
    options = [f"--option={name}={value}" for name, value in LENET.items() if name != "input_shape"]
    return lambda *more: run("train", "lenet5", "--epochs", 1, "--batch-size", 60, *options, *more)


def test_training_starts_from_weights(train, finished):
    out, made = finished
    fn.save_torch_weights(made.model, "theirs.safetensors")
    loss, _ = fn.loss_and_gradients(made.model, made.standardization.apply(DATA.train.images), DATA.train.labels)
    for number, file in enumerate((out / "model.safetensors", "theirs.safetensors")):
        assert train("--crop", 0, "--no-flip", "--weights", file, "--out", f"run{number}")[0] == 0
        result = json.loads(Path(f"run{number}/result.json").read_text())
        assert result["first_loss"] == pytest.approx(float(loss), 1e-5)
        kept = json.loads(Path(f"run{number}/config.json").read_text())["model"]["weights"]
        assert kept["file"] == Path(file).name and len(kept["sha256"]) == 64
    assert bits(fn.load_run("run0").model.state()) == bits(fn.load_run("run1").model.state())
    assert train("--out", "without")[0] == 0
    assert "weights" not in json.loads(Path("without/config.json").read_text())["model"]


def test_a_run_from_weights_goes_on_with_the_same_ones(train, finished):
    file = finished[0] / "model.safetensors"
    assert train("--weights", file, "--out", "a")[0] == 0
    assert train("--weights", file, "--out", "a", "--resume", "--epochs", 2)[0] == 0
    fn.save_torch_weights(lenet(seed=4), "model.safetensors")
    result = train("--weights", "model.safetensors", "--out", "a", "--resume", "--epochs", 3)
    fails((result[0], "", result[2]), "the settings are not the run's: model.weights.sha256 was ")
    result = train("--out", "a", "--resume", "--epochs", 3)
    fails((result[0], "", result[2]), "the settings are not the run's: model.weights was {'file': 'model.safeten")


def test_weights_that_training_cannot_start_from(train, finished, tmp_path):
    fails(train("--weights", "absent"), "fastnet train: absent: No such file or directory")
    fails(train("--weights", tmp_path), "Is a directory")
    Path("text").write_text("no weights")
    fails(train("--weights", "text"), "text is not a whole safetensors file (")
    fn.save_torch_weights(lenet(hidden=(9,)), "wide.safetensors")
    fails(train("--weights", "wide.safetensors"),
          "fc1.bias is (9,) but the model has (8,); fc1.weight is (9, 3) but the model has (8, 3); fc2.weight is "
          "(10, 9) but the model has (10, 8)")
    assert not Path("runs").exists()


def test_an_mlps_weights_meet_images_in_pytorchs_order(run, monkeypatch, tmp_path):
    """What is said to `fastnet train` is enough: the shape comes from the data."""
    monkeypatch.setattr("fastnet.data.load", lambda *_, **__: dataset())
    monkeypatch.chdir(tmp_path)
    net = fn.build("mlp2", inputs=192, seed=6)
    fn.save_torch_weights(net, "w.safetensors", input_shape=(8, 8, 3))
    assert run("train", "mlp2", "--epochs", 1, "--batch-size", 60, "--weights", "w.safetensors", "--out", "a")[0] == 0
    x = fn.data.Standardization.fit(dataset().train.images, "pixel").apply(dataset().train.images)
    loss, _ = fn.loss_and_gradients(net, x, dataset().train.labels)
    assert json.loads(Path("a/result.json").read_text())["first_loss"] == pytest.approx(float(loss), 1e-5)
    assert interop.to_torch(net, (8, 8, 3))["linear1.weight"].shape == (50, 192)
