"""`fastnet lab`: what each subject prints and writes, of small runs, and one line for what cannot be done."""

import json
import math

import numpy as np
import pytest

import fastnet as fn
from fastnet import lab
from fastnet.train import record


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs: a small convolutional network with batch norm, and a perceptron without."""
    out = tmp_path_factory.mktemp("runs")
    data = fn.data.load("shapes10", split="200/50", seed=3)
    small = fn.data.Dataset(data.name, data.classes, data.train, data.validation, data.test, data.identity)
    for name, model in (("conv", fn.build("lenet5-bn", seed=0)), ("mlp", fn.build("mlp2"))):
        fn.fit(model, small, fn.SGD(0.05), epochs=1, batch_size=50, out=out / name, verbose=False)
    return out


def numbers(path):
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def fails(result, text):
    status, out, err = result
    assert (status, out) == (2, "") and err.count("\n") == 1 and err.startswith("fastnet lab") and text in err


def test_statistics(run, runs, tmp_path):
    status, out, err = run("lab", "statistics", runs / "conv", "--out", tmp_path)
    found = numbers(tmp_path / "statistics.json")
    trained, data = fn.load_run(runs / "conv"), lab.run_data(runs / "conv")
    own = fn.evaluate(trained.model, data.test, trained.standardization)
    exact = lab.bn_statistics(trained.model, data.train, trained.standardization)
    lab.set_statistics(trained.model, exact)
    measured = fn.evaluate(trained.model, data.test, trained.standardization)
    assert (status, err) == (0, "") and found["images"] == 200 and found["of"] == "train" and not found["transductive"]
    assert found["statistics"] == lab.plain(exact.arrays)
    labels = list(found["evaluations"])
    assert labels == ["the run's own", "layerwise, 200 train images"]
    assert [e["accuracy"] for e in found["evaluations"].values()] == [own.accuracy, measured.accuracy]
    right, now = own.predictions == data.test.labels, measured.predictions == data.test.labels
    lost, won = int((right & ~now).sum()), int((now & ~right).sum())
    assert (found["lost"], found["won"]) == (lost, won)
    n, k = lost + won, min(lost, won)  # the exact test, as its sum
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    assert found["p"] == pytest.approx(min(1.0, 2 * tail)) and f"p = {found['p']:.3g}" in out
    error = 100 * math.sqrt(own.accuracy * (1 - own.accuracy) / 2000)
    assert f"{own.accuracy * 100:.2f} %" in out and f"{error:.2f} pp" in out
    assert (runs / "conv" / "model.safetensors").exists() and not (runs / "conv" / "lab").exists()


def test_statistics_of_the_test_images_have_to_be_wanted(run, runs, tmp_path):
    fails(run("lab", "statistics", runs / "conv", "--of", "test"), "say --transductive if that is meant")
    status, out, _ = run("lab", "statistics", runs / "conv", "--of", "test", "--transductive", "--method", "one_pass",
                         "--batch-size", 500, "--out", tmp_path)
    found = numbers(tmp_path / "statistics.json")
    assert status == 0 and "; transductive" in out and "one_pass, 2,000 test images" in out
    assert found["transductive"] and found["batch_size"] == 500


@pytest.mark.parametrize(("arguments", "points"), [(["--points", 5], (5,)),
                                                   (["--points", 3, "--dimensions", 2, "--split", "test"], (3, 3))])
def test_surface(run, runs, tmp_path, arguments, points):
    status, out, _ = run("lab", "surface", runs / "mlp", "--images", 60, "--reach", 0.5, "--seed", 4, *arguments,
                         "--out", tmp_path)
    found = numbers(tmp_path / "surface.json")
    trained, split = fn.load_run(runs / "mlp"), lab.run_data(runs / "mlp")
    split = split.test if len(points) == 2 else split.train
    offsets = np.linspace(-0.5, 0.5, points[0])
    expected = lab.loss_surface(trained.model, split, trained.standardization, a=offsets, images=60, seed=4,
                                b=offsets if len(points) == 2 else None)
    assert status == 0 and is_png(tmp_path / "surface.png") and found == lab.plain(expected)
    assert np.shape(found["losses"]) == points
    assert out.split() == [str(tmp_path / "surface.png"), str(tmp_path / "surface.json")]


def test_features(run, runs, tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    status, out, _ = run("lab", "features", runs / "conv", tmp_path / "a.png")
    assert status == 0 and is_png(runs / "conv" / "lab" / "features.png") and "ends" not in out
    status, out, _ = run("lab", "features", runs / "conv", tmp_path / "a.png", "--whole", "--longest", 32, "--layers",
                         "conv1", "bn1", "--out", tmp_path)
    assert status == 0 and is_png(tmp_path / "features.png") and "ends" not in out
    status, out, _ = run("lab", "features", runs / "conv", tmp_path / "a.png", "--whole", "--layers", "conv*", "f*",
                         "--out", tmp_path)
    assert status == 0 and "at 40x64x3 the network ends there: fc1: Linear: the input is (7, 13, 16)" in out
    for arguments, text in ((["gone.png"], "gone.png: No such file"),
                            ([runs / "conv" / "config.json"], "it is none of BMP, GIF"),
                            ([tmp_path / "a.png", "--layers", "conv7"], "'conv7' matches no layer"),
                            ([tmp_path / "a.png", "--longest", 5], "--longest is for --whole"),
                            ([tmp_path / "a.png", "--channels", 0], "must be at least 1")):
        fails(run("lab", "features", runs / "conv", *arguments), text)
    fails(run("lab", "features", runs / "mlp", tmp_path / "a.png"), "mlp2 has no convolutions")


def test_histograms(run, runs, tmp_path):
    status, out, _ = run("lab", "histograms", runs / "mlp", "--beside", runs / "conv", "--tolerance", 0.01, "--bins", 9,
                         "--out", tmp_path)
    found = numbers(tmp_path / "histograms.json")
    expected = lab.weight_histograms(fn.load_run(runs / "mlp").model, bins=9, tolerance=0.01)
    assert status == 0 and is_png(tmp_path / "histograms.png") and len(found) == 2
    assert found[str(runs / "mlp")] == lab.plain(expected)
    row = next(line.split() for line in out.splitlines() if line.startswith("linear1.w"))
    assert row[:3] == ["linear1.w", "153,600", "0.00"] and row[4] == f"{100 * expected[0].near_zero / 153_600:.2f}"


def test_mistakes(run, runs, tmp_path):
    fails(run("lab", "statistics", runs / "mlp"), "the model has no BatchNorm layer")
    fails(run("lab", "surface", tmp_path / "gone"), "does not exist")
    fails(run("lab", "surface", runs / "mlp", "--points", 1), "--points must be at least 2")
    fails(run("lab"), "SUBJECT")
    fails(run("lab", "surface", runs / "mlp", "--method", "x"), "unrecognized arguments: --method x")


def test_the_images_are_those_of_the_run(runs, tmp_path):
    data = lab.run_data(runs / "mlp")
    assert (len(data.train), len(data.validation)) == (200, 50)
    assert data.identity == record.read_json(runs / "mlp" / "config.json")["data"]
    config = record.read_json(runs / "mlp" / "config.json")
    for change, text in (({"sha256": "0" * 64}, "these are other images than the run's: sha256 "),
                         ({"name": "folder:x"}, "say where that is: folder:DIR")):
        record.write_json(tmp_path / "config.json", config | {"data": config["data"] | change})
        with pytest.raises(ValueError, match=text):
            lab.run_data(tmp_path)
    record.write_json(tmp_path / "config.json", config | {"data": {"name": "tiny"}})
    with pytest.raises(ValueError, match=r"none that fastnet\.data\.load made"):
        lab.run_data(tmp_path)
    record.write_json(tmp_path / "config.json", config | {"loss": {"name": "huber", "delta": 2.0}})
    assert lab.run_loss(tmp_path) == {"loss": "huber", "loss_options": {"delta": 2.0}}
