"""Batch norm's statistics over many images: exact, by hand, as the methods say, and nothing but what they say."""

import dataclasses
import math

import numpy as np
import pytest
from tiny import bits, dataset, model

import fastnet as fn
from fastnet import backend, lab
from fastnet.data import Standardization
from fastnet.lab.moments import Moments
from fastnet.nn.layer import Context
from fastnet.nn.layers import BatchNorm
from fastnet.nn.sequential import named_layers

RNG = np.random.default_rng(5)
X = RNG.normal(2.0, 3.0, (50, 7))
BY_BATCHES = ("one_pass", "wu_johnson", "moving")


def perceptron(dtype="float64", **norm):
    return fn.Sequential([fn.Linear(7, 5), fn.BatchNorm(5, **norm), fn.ReLU(), fn.Dropout(0.4), fn.Linear(5, 4),
                          fn.BatchNorm(4, **norm), fn.Linear(4, 3)], seed=2, dtype=dtype)


def residual():
    """Two branches with batch norm each; gamma 1 and beta 0, as they start."""
    body = [("conv1", fn.Conv2d(3, 4, 3, pad=1)), ("bn1", fn.BatchNorm(4)), ("act", fn.ReLU()),
            ("conv2", fn.Conv2d(4, 6, 3, 2, pad=1)), ("bn2", fn.BatchNorm(6))]
    shortcut = fn.Sequential([fn.Conv2d(3, 6, 1, 2), fn.BatchNorm(6)])
    return fn.Sequential([("block", fn.Residual(body, shortcut, fn.ReLU())), fn.BatchNorm(6), fn.GlobalAvgPool(),
                          fn.Linear(6, 10)], seed=1, dtype="float64")


def linear(net, number, x):
    p = net.parameters()
    return x @ p[f"linear{number}.w"] + p[f"linear{number}.b"]


def arrays_of(mean1, var1, mean2, var2):
    return {"batch_norm1.running_mean": mean1, "batch_norm1.running_var": var1, "batch_norm2.running_mean": mean2,
            "batch_norm2.running_var": var2}


def close(found, expected, rtol=1e-12):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=1e-13, err_msg=name)


def test_layerwise_by_hand():
    net = perceptron()
    z1 = linear(net, 1, X)
    h1 = np.maximum((z1 - z1.mean(axis=0)) / np.sqrt(z1.var(axis=0) + 1e-5), 0)
    z2 = linear(net, 2, h1)
    found = lab.bn_statistics(net, X, batch_size=8)
    close(found.arrays, arrays_of(z1.mean(axis=0), z1.var(axis=0), z2.mean(axis=0), z2.var(axis=0)))
    assert found.settings() == {"method": "layerwise", "images": 50, "batch_size": 8, "transductive": False}


def batchwise(net, batch_size):
    """(inputs of the first norm, inputs of the second) of each batch, normalised by batches; Dropout left out."""
    for start in range(0, len(X), batch_size):
        z1 = linear(net, 1, X[start : start + batch_size])
        yield z1, linear(net, 2, np.maximum((z1 - z1.mean(axis=0)) / np.sqrt(z1.var(axis=0) + 1e-5), 0))


def test_one_pass_by_hand():
    net = perceptron()
    z1, z2 = (np.concatenate(parts) for parts in zip(*batchwise(net, 8), strict=True))
    found = lab.bn_statistics(net, X, method="one_pass", batch_size=8)
    close(found.arrays, arrays_of(z1.mean(axis=0), z1.var(axis=0), z2.mean(axis=0), z2.var(axis=0)))
    assert abs(lab.bn_statistics(net, X).arrays["batch_norm2.running_var"] / z2.var(axis=0) - 1).max() > 1e-3


def test_wu_johnson_by_hand():
    """Every batch counts the same, the last one of 2 images too, and variances are unbiased."""
    net = perceptron()
    z1, z2 = zip(*batchwise(net, 8), strict=True)
    expected = [np.mean([part.mean(axis=0) for part in z] if not unbiased else [part.var(axis=0, ddof=1) for part in z],
                        axis=0) for z in (z1, z2) for unbiased in (False, True)]
    close(lab.bn_statistics(net, X, method="wu_johnson", batch_size=8).arrays, arrays_of(*expected))


def test_moving_by_hand():
    """The layers' own averages go on from the model's."""
    net = perceptron(stat_decay=0.7)
    net.running[...] = 0.5
    expected = [np.full(5, 0.5), np.full(5, 0.5), np.full(4, 0.5), np.full(4, 0.5)]
    for parts in batchwise(net, 8):
        new = [f for z in parts for f in (z.mean(axis=0), z.var(axis=0, ddof=1))]
        expected = [0.7 * old + 0.3 * value for old, value in zip(expected, new, strict=True)]
    close(lab.bn_statistics(net, X, method="moving", batch_size=8).arrays, arrays_of(*expected))


def test_layerwise_leaves_every_layer_normalised():
    """In a network with branches: what comes out of a norm has mean 0 and variance var/(var + eps) over all images."""
    net, x = residual(), RNG.normal(1.0, 2.0, (30, 8, 8, 3))
    found = lab.bn_statistics(net, x, batch_size=7)
    lab.set_statistics(net, found)
    norms = {id(layer): name for name, layer in named_layers(net) if isinstance(layer, BatchNorm)}
    seen = {}

    def tap(layer, before, y):
        if id(layer) in norms:
            seen[norms[id(layer)]] = y.reshape(-1, y.shape[-1])

    net(x, Context(tap=tap))
    assert sorted(seen) == ["batch_norm1", "block.bn1", "block.bn2", "block.downsample.batch_norm1"]
    for name, y in seen.items():
        var = found.arrays[f"{name}.running_var"]
        np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(y.var(axis=0), var / (var + 1e-5), rtol=1e-11)


def test_layerwise_does_not_depend_on_the_batches():
    net, x = residual(), RNG.normal(size=(30, 8, 8, 3))
    first, *others = (lab.bn_statistics(net, x, batch_size=size).arrays for size in (30, 1, 7))
    for other in others:
        close(other, first)


def test_a_split_is_standardised_and_its_order_does_not_matter():
    data = dataset()
    standardization = Standardization.fit(data.train.images, "channel")
    net = model(dtype="float64")
    expected = lab.bn_statistics(net, standardization.apply(data.train.images, "float64"), batch_size=60)
    for seed in (0, 1):
        close(lab.bn_statistics(net, data.train, standardization, batch_size=25, seed=seed).arrays, expected.arrays)
    by_batches = [lab.bn_statistics(net, data.train, standardization, batch_size=25, seed=seed, method="wu_johnson")
                  for seed in (0, 0, 1)]
    assert bits(by_batches[0].arrays) == bits(by_batches[1].arrays) != bits(by_batches[2].arrays)


def test_float32_loses_nothing_to_cancellation():
    """The mean is 3000 times the deviation: a difference of mean squares would have no digit left in float32."""
    x = (RNG.normal(size=(4000, 3)) + 3000).astype(np.float32)
    moments = Moments()
    for start in range(0, 4000, 333):
        moments.add(x[start : start + 333])
    columns = [[float(value) for value in column] for column in x.T]
    means = [math.fsum(column) / 4000 for column in columns]
    np.testing.assert_allclose(moments.mean, means, rtol=1e-14)
    exact = [math.fsum((v - mean) ** 2 for v in column) / 4000 for column, mean in zip(columns, means, strict=True)]
    np.testing.assert_allclose(moments.variance, exact, rtol=1e-12)


def test_large_arrays_go_in_chunks(monkeypatch):
    monkeypatch.setattr("fastnet.lab.moments.CHUNK", 20)
    moments = Moments()
    for part in (X[:13], X[13:]):
        moments.add(part.reshape(len(part), 1, 7))
    np.testing.assert_allclose(moments.variance, X.var(axis=0), rtol=1e-13)
    assert moments.count == 50


@pytest.mark.parametrize("method", lab.METHODS)
def test_the_model_is_not_changed(method):
    net = perceptron("float32")
    fn.TrainStep(net, fn.SGD(0.1))(X, np.arange(50) % 3)  # gradients and fused layers are there
    before, gradient = net.state(), net.store.gradient.copy()
    fused = net._fused
    lab.bn_statistics(net, X, method=method)
    assert bits(net.state()) == bits(before) and net.store.gradient.tobytes() == gradient.tobytes()
    assert net._fused is fused and all(layer.p == 0.4 for layer in net.walk() if layer.kind == "Dropout")


def test_statistics_are_put_in_and_taken_back():
    net = perceptron("float32")
    original = bits(net.statistics())
    found = lab.bn_statistics(net, X)
    before = lab.set_statistics(net, found)
    assert bits(net.statistics()) == {name: a.astype(np.float32).tobytes() for name, a in found.arrays.items()}
    lab.set_statistics(net, before)
    assert bits(net.statistics()) == original


def test_adaptive_statistics_are_of_the_images_to_be_classified():
    net = perceptron()
    with pytest.raises(ValueError, match="say transductive=True if that is meant"):
        lab.adaptive_bn_statistics(net, X)
    with pytest.raises(ValueError, match="transductive=True"):
        lab.adaptive_bn_statistics(net, X, transductive=1)
    found = lab.adaptive_bn_statistics(net, X, transductive=True, method="one_pass", batch_size=8)
    same = lab.bn_statistics(net, X, method="one_pass", batch_size=8)
    assert found.transductive and not same.transductive and found.settings()["transductive"]
    assert bits(found.arrays) == bits(same.arrays)


@pytest.mark.parametrize("method", BY_BATCHES)
def test_methods_differ(method):
    net = perceptron()
    exact = lab.bn_statistics(net, X, batch_size=8).arrays
    found = lab.bn_statistics(net, X, batch_size=8, method=method).arrays
    assert any(abs(found[name] - exact[name]).max() > 1e-3 for name in exact)


@pytest.mark.parametrize(("change", "error", "text"), [
    ({"method": "exact"}, ValueError, "method 'exact' is not known; choose from layerwise, one_pass, wu_johnson, mov"),
    ({"batch_size": 0}, ValueError, "batch size 0 is not at least 1"),
    ({"data": X[:0]}, ValueError, "there are no images"),
    ({"data": X[:, :5]}, ValueError, "linear1: Linear: the input is"),
    ({"data": X[:9], "method": "wu_johnson", "batch_size": 8}, ValueError, "one value a channel, which has no var"),
    ({"data": X[:1], "method": "one_pass"}, ValueError, "one value a channel"),
    ({"model": fn.Sequential([fn.Linear(7, 3)])}, ValueError, "the model has no BatchNorm layer"),
    ({"data": dataset().train}, TypeError, "say how they are standardised"),
    ({"standardization": Standardization.fit(dataset().train.images)}, TypeError, "an array is taken as it is"),
    ({"data": X.astype(int)}, TypeError, "floating-point numbers are needed"),
])
def test_errors(change, error, text):
    arguments = {"model": perceptron(), "data": X} | change
    with pytest.raises(error, match=text):
        lab.bn_statistics(**arguments)


def test_set_statistics_takes_all_or_nothing():
    net = perceptron()
    good, before = lab.bn_statistics(net, X), bits(net.statistics())
    name = "batch_norm1.running_var"
    for wrong in ({}, {name: good.arrays[name]}, good.arrays | {name: np.ones(4)},
                  good.arrays | {name: np.full(5, np.nan)}, good.arrays | {"other": np.ones(5)}):
        with pytest.raises(ValueError, match="set_statistics: "):
            lab.set_statistics(net, wrong)
        assert bits(net.statistics()) == before


def test_inference_with_exact_statistics_is_training_with_one_batch_of_everything():
    net, x, labels = residual(), RNG.normal(size=(20, 8, 8, 3)), np.arange(20) % 10
    with backend.use("reference"):
        whole, _ = fn.loss_and_gradients(net, x, labels)
        lab.set_statistics(net, lab.bn_statistics(net, x, batch_size=6))
        found, _ = backend.run("softmax_cross_entropy", net.predict(x), labels)
    assert abs(found / whole - 1) < 1e-12


def test_results_are_json():
    import json

    found = lab.bn_statistics(perceptron(), X)
    plain = lab.plain(dataclasses.replace(found, arrays={**found.arrays, "odd": np.array([np.nan, np.inf, 1.0])}))
    assert json.loads(json.dumps(plain, allow_nan=False))["arrays"]["odd"] == [None, None, 1.0]
