"""Feature maps, weight histograms, activity while training: layer by layer, against the layers run by hand."""

import json

import numpy as np
import pytest
from tiny import dataset, fit, model

import fastnet as fn
from fastnet import backend, lab
from fastnet.data import Batches, Standardization
from fastnet.data.images import read_whole_image
from fastnet.nn.layer import INFERENCE, Context
from fastnet.nn.sequential import named_layers

RNG = np.random.default_rng(7)


@pytest.fixture
def reference():
    with backend.use("reference"):
        yield


# --- feature maps ---

def convnet():
    return fn.Sequential([("conv1", fn.Conv2d(3, 4, 3, pad=1)), ("bn1", fn.BatchNorm(4)), ("act1", fn.ReLU()),
                          ("pool1", fn.MaxPool2d(2)),
                          ("block", fn.Residual([fn.Conv2d(4, 4, 3, pad=1)], None, fn.ReLU())),
                          ("fc", fn.Linear(64, 10))], seed=1, dtype="float64")


def test_feature_maps_are_what_each_layer_gives(reference):
    net, image = convnet(), RNG.normal(size=(8, 8, 3))
    expected, x = {}, image[None]
    net.store  # noqa: B018
    for layer in net.layers:
        if layer.name == "block":
            expected["block.conv2d1"], _ = layer.children()[0](x, INFERENCE)
            expected["block.activation"] = np.maximum(expected["block.conv2d1"] + x, 0)
        x, _ = layer(x, INFERENCE)
        expected[layer.name] = x
    found = lab.feature_maps(net, image)
    assert list(found.maps) == list(expected) and found.ended_by is None and found.image is image
    assert found.kinds["act1"] == "ReLU" and found.kinds["block"] == "Residual"
    for name, value in expected.items():
        np.testing.assert_array_equal(found.maps[name], value[0])
    some = lab.feature_maps(net, image, layers=["*1", "block.act*"])
    assert list(some.maps) == ["conv1", "bn1", "act1", "pool1", "block.conv2d1", "block.activation"]


def test_feature_maps_of_a_model_that_runs_fused_are_of_single_layers():
    net, image = fn.build("lenet5", seed=0), RNG.normal(size=(32, 32, 3)).astype(np.float32)
    before = lab.feature_maps(net, image)
    logits = net.predict(image[None])  # fuses
    after = lab.feature_maps(net, image)
    assert [*after.maps] == [*before.maps] and "conv1" in after.maps
    np.testing.assert_allclose(after.maps["fc3"], logits[0], atol=1e-5)


def test_native_size_goes_as_far_as_the_network_does(reference):
    net, image = convnet(), RNG.integers(0, 256, (20, 12, 3)).astype(np.uint8)
    standardization = Standardization(np.full(3, 100.0), np.full(3, 64.0), "channel")
    found = lab.feature_maps(net, image, standardization)
    assert found.maps["conv1"].shape == (20, 12, 4) and found.maps["block"].shape == (10, 6, 4)
    assert "fc" not in found.maps and "240 features a sample, but the layer takes 64" in found.ended_by
    np.testing.assert_array_equal(found.maps["conv1"], lab.feature_maps(net, (image - 100.0) / 64).maps["conv1"])
    early = lab.feature_maps(net, image, standardization, layers="conv1")
    assert list(early.maps) == ["conv1"] and early.ended_by is None
    with pytest.raises(ValueError, match=r"fc cannot be reached with an image of \(20, 12, 3\): fc: Linear: the input"):
        lab.feature_maps(net, image, standardization, layers=["conv1", "fc"])


def test_a_pass_ends_at_the_last_layer_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(fn.Residual, "__call__", lambda *_: pytest.fail("the block was run"))
    lab.feature_maps(convnet(), RNG.normal(size=(8, 8, 3)), layers=["conv1", "pool1"])


@pytest.mark.parametrize(("image", "change", "error", "text"), [
    (np.zeros((8, 8)), {}, ValueError, r"one image \(H, W, C\) is needed, got \(8, 8\)"),
    (np.zeros((8, 8, 3), np.uint8), {}, TypeError, "a uint8 image needs the standardization"),
    (np.zeros((8, 8, 3)), {"standardization": Standardization(np.zeros(3), np.ones(3), "channel")}, TypeError, "given"),
    (np.zeros((8, 8, 3)), {"layers": "conv9"}, ValueError, "'conv9' matches no layer; there are conv1, bn1"),
    (np.zeros((8, 8, 2)), {}, ValueError, r"cannot be reached with an image of \(8, 8, 2\): conv1: "),
])
def test_feature_map_errors(image, change, error, text):
    with pytest.raises(error, match=text):
        lab.feature_maps(convnet(), image, **change)


def test_whole_images(tmp_path):
    """A file in its own size; made smaller, never larger, by its longer side; turned as the camera says."""
    from PIL import Image

    pixels = RNG.integers(0, 256, (6, 9, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_whole_image(tmp_path / "a.png", 3), pixels)
    np.testing.assert_array_equal(read_whole_image(tmp_path / "a.png", 3, 100), pixels)
    assert read_whole_image(tmp_path / "a.png", 1, 3).shape == (2, 3, 1)
    turned = Image.Exif()
    turned[0x112] = 6  # a quarter turn
    Image.fromarray(pixels).save(tmp_path / "b.png", exif=turned)
    np.testing.assert_array_equal(read_whole_image(tmp_path / "b.png", 3), np.rot90(pixels, -1))


# --- histograms ---

def sparse():
    net = model()
    w = net.parameters()["linear2.w"]
    w[...] = RNG.normal(size=w.shape)
    w[:3] = 0
    w[3] = 9e-4
    w[4, 0], w[4, 1] = 7.0, -2.5
    return net


def test_histograms_by_counting():
    net = sparse()
    first, found = lab.weight_histograms(net, bins=5, limit=2.0, tolerance=1e-3)
    w = net.parameters()["linear2.w"].ravel().tolist()
    assert (first.name, found.name, found.size) == ("linear1.w", "linear2.w", 160)
    for low, high, count in zip(found.edges, found.edges[1:], found.counts, strict=False):
        assert count == sum(low <= value < high or value == high == 2.0 for value in w)
    assert found.outside == sum(abs(value) > 2.0 for value in w) >= 2
    assert found.near_zero >= 40
    assert (found.zeros, found.near_zero) == (30, sum(abs(value) <= 1e-3 for value in w))
    assert found.zeros / found.size == fn.sparsity(net)["linear2.w"]
    assert found.near_zero / found.size == fn.sparsity(net, 1e-3)["linear2.w"]
    assert (found.mean, found.std, found.largest) == (pytest.approx(np.mean(w)), pytest.approx(np.std(w)), 7.0)


def test_histograms_reach_as_far_as_the_weights():
    net = sparse()
    found = lab.weight_histograms(net)[1]
    assert found.edges[0] == -7.0 and found.edges[-1] == 7.0 and found.outside == 0 and found.counts.sum() == 160
    assert found.counts[50] >= 40  # the bin in the middle
    chosen = lab.weight_histograms(net, parameters=["*.b", "batch_norm*.gamma"])
    assert [row.name for row in chosen] == ["linear1.b", "batch_norm1.gamma", "linear2.b"]
    assert chosen[0].zeros == 16 and chosen[0].edges[-1] == 1.0  # biases start at zero


@pytest.mark.parametrize(("change", "text"), [
    ({"bins": 0}, "bins must be at least 1"), ({"limit": 0.0}, "limit positive"), ({"limit": np.nan}, "limit positive"),
    ({"tolerance": -1.0}, "tolerance at least 0"), ({"parameters": "conv*"}, r"'conv\*' matches no parameter"),
])
def test_histogram_errors(change, text):
    with pytest.raises(ValueError, match=text):
        lab.weight_histograms(sparse(), **change)


def test_histograms_of_broken_weights_are_refused():
    net = sparse()
    net.parameters()["linear1.w"][3, 4] = np.inf
    with pytest.raises(ValueError, match=r"linear1\.w is not finite"):
        lab.weight_histograms(net)


# --- activity ---

def test_activity_by_definition():
    """Every figure of each epoch, from the same training step by step, run on the side."""
    data, activity = dataset(), lab.Activity(every=2)
    with backend.use("reference"):
        fit(observer=activity, optimizer=fn.SGD(momentum=0.9), schedule=fn.schedules.constant(0.05))
        net = model()
        step = fn.TrainStep(net, fn.SGD(0.05, momentum=0.9), penalty=fn.L2(0.01), seed=5)
        batches = Batches(data.train, Standardization.fit(data.train.images, "channel"), 25, seed=5)
        names = {id(layer): name for name, layer in named_layers(net)}
        for epoch, found in enumerate(activity.epochs()):
            outputs, rows, images = {}, [], 0
            for x, labels, samples in batches.epoch(epoch):
                before = {name: value.astype(float) for name, value in net.parameters().items()}
                looked = step.count % 2 == 0
                if looked:
                    images += len(x)
                    net(x, Context(True, 5, epoch, samples, False, lambda layer, _, y, outputs=outputs: (
                        outputs.setdefault(names[id(layer)], []).append(y.astype(float)))))
                step(x, labels, samples, epoch)
                if looked:
                    rows.append({name: (np.linalg.norm(net.gradients()[name].astype(float)),
                                        np.linalg.norm(before[name]), np.linalg.norm(value - before[name]))
                                 for name, value in net.parameters().items()})
            assert (found.epoch, found.steps, found.images) == (epoch, len(rows), images)
            assert [row.name for row in found.layers] == list(outputs) == [layer.name for layer in net.layers]
            for row in found.layers:
                y = np.concatenate(outputs[row.name])
                np.testing.assert_allclose(row.channel_means, y.mean(axis=0), atol=1e-12)
                np.testing.assert_allclose(row.channel_stds, y.std(axis=0), rtol=1e-9, atol=1e-12)
                assert (row.mean, row.std) == (pytest.approx(y.mean(), abs=1e-12), pytest.approx(y.std()))
                dead = int((y <= 0).all(axis=0).sum())
                assert (row.units, row.dead) == (y.shape[1], dead if row.kind == "ReLU" else None)
            for row in found.parameters:
                gradient, weight, update = np.array([r[row.name] for r in rows]).T
                assert row.gradient_norm == pytest.approx(gradient.mean(), rel=1e-6)
                assert row.weight_norm == pytest.approx(weight[-1], rel=1e-6)
                ratios = [u / w for u, w in zip(update, weight, strict=True) if w > 0]
                assert row.update_ratio == pytest.approx(np.mean(ratios), rel=1e-4)
    assert json.dumps(lab.plain(activity.epochs()), allow_nan=False)


def test_dead_units_are_dead_on_every_image_of_the_epoch(reference):
    """Channel 0 is never active, channel 1 on the first batch alone, channel 2 always."""
    net = fn.Sequential([fn.Conv2d(1, 3, 1), fn.ReLU(), fn.GlobalAvgPool(), fn.Linear(3, 2)])
    net.parameters()["conv2d1.w"][...] = [[[[0, 1, 0]]]]
    net.parameters()["conv2d1.b"][...] = [-1, 0, 1]
    step, activity = fn.TrainStep(net, fn.SGD(1e-30)), lab.Activity()
    for epoch, sign in ((0, 1), (0, -1), (1, -1)):
        activity(step, np.full((2, 4, 4, 1), sign, np.float32), np.array([0, 1]), None, epoch)
    found = [{row.name: (row.units, row.dead) for row in epoch.layers} for epoch in activity.epochs()]
    assert [row["relu1"] for row in found] == [(3, 1), (3, 2)] and found[0]["conv2d1"] == (3, None)


def test_a_bias_that_was_zero_has_no_ratio_yet():
    step, activity = fn.TrainStep(model(), fn.SGD(0.1)), lab.Activity()
    x, labels = RNG.normal(size=(20, 192)).astype(np.float32), np.arange(20) % 10
    activity(step, x, labels)
    (first,) = activity.epochs()
    assert np.isnan({row.name: row.update_ratio for row in first.parameters}["linear2.b"])
    activity(step, x, labels)
    (both,) = activity.epochs()  # no epoch was named
    assert both.steps == 2 and {row.name: row.update_ratio for row in both.parameters}["linear2.b"] > 0
    with pytest.raises(ValueError, match="every must be at least 1"):
        lab.Activity(every=0)


def test_batch_norm_brings_the_means_of_activations_to_zero():
    """And its standard deviations to one, as gamma and beta start."""
    activity = lab.Activity()
    fit(observer=activity, schedule=fn.schedules.constant(1e-30))
    rows = {row.name: row for row in activity.epochs()[0].layers}
    assert abs(rows["batch_norm1"].channel_means).max() < 1e-6 < 0.01 < abs(rows["linear1"].channel_means).max()
    np.testing.assert_allclose(rows["batch_norm1"].channel_stds, 1, atol=1e-4)


