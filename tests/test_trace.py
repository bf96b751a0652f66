"""`fn.trace`: every intermediate value of a pass, by name."""

import numpy as np
import pytest
from placed import strict_device  # noqa: F401
from strict_arrays import StrictArray, strict

import fastnet as fn
from fastnet.nn.sequential import named_layers


def x(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def net():
    return fn.Sequential([fn.Conv2d(3, 4, 3, pad=1), fn.BatchNorm(4), fn.ReLU(),
                          fn.Residual([fn.Conv2d(4, 4, 3, pad=1)], None, fn.ReLU()), fn.Flatten(), fn.Dropout(0.5),
                          fn.Linear(4 * 36, 5)], seed=1)


def test_every_layer_is_there_in_the_order_of_the_pass_containers_behind_their_layers():
    model = net()
    found = fn.trace(model, x(3, 6, 6, 3))
    assert list(found) == ["conv2d1", "batch_norm1", "relu1", "residual1.conv2d1", "residual1.activation", "residual1",
                           "flatten1", "dropout1", "linear1"]
    assert set(found) == {name for name, _ in named_layers(model)}
    assert found["residual1.conv2d1"].shape == (3, 6, 6, 4)


def test_the_values_are_those_of_the_layers():
    model, given = net(), x(3, 6, 6, 3)
    found = fn.trace(model, given)
    p = model.parameters()
    np.testing.assert_array_equal(found["relu1"], np.maximum(found["batch_norm1"], 0))
    np.testing.assert_array_equal(found["residual1"],
                                  np.maximum(found["residual1.conv2d1"] + found["relu1"], 0))
    np.testing.assert_allclose(found["linear1"], found["dropout1"] @ p["linear1.w"] + p["linear1.b"], rtol=1e-5,
                               atol=1e-5)
    np.testing.assert_allclose(found["linear1"], model.predict(given), rtol=1e-4, atol=1e-5)


def test_training_normalises_by_the_batch_drops_units_and_changes_nothing():
    model, given = net(), x(8, 6, 6, 3)
    before = model.state()
    found = fn.trace(model, given, training=True)
    np.testing.assert_allclose(found["batch_norm1"].mean(axis=(0, 1, 2)), 0, atol=1e-5)
    kept = found["dropout1"] != 0
    np.testing.assert_array_equal(found["dropout1"][kept], 2 * found["flatten1"][kept])
    assert (~kept & (found["flatten1"] != 0)).any()
    for name, value in model.state().items():
        np.testing.assert_array_equal(value, before[name])
    loss, _ = fn.loss_and_gradients(model, given, np.arange(8) % 5)
    logits = found["linear1"].astype(float)
    picked = logits[np.arange(8), np.arange(8) % 5]
    assert loss == pytest.approx((np.log(np.exp(logits).sum(1)) - picked).mean(), rel=1e-5)


def test_the_arrays_are_copies_of_their_own():
    """In inference dropout hands on its input, and flatten a view of it."""
    found = fn.trace(net(), x(3, 6, 6, 3))
    arrays = list(found.values())
    assert all(type(y) is np.ndarray for y in arrays)
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_a_fused_model_is_traced_layer_by_layer():
    model, given = net(), x(3, 6, 6, 3)
    before = fn.trace(model, given)
    model.predict(given)  # which fuses
    for name, y in fn.trace(model, given).items():
        np.testing.assert_array_equal(y, before[name])


def test_bad_images_are_refused():
    with pytest.raises(TypeError, match="normalise the images first"):
        fn.trace(net(), np.zeros((2, 6, 6, 3), np.uint8))
    with pytest.raises(ValueError, match="linear1"):
        fn.trace(net(), x(2, 8, 8, 3))


def test_on_a_device_the_arrays_live_where_x_does(strict_device):  # noqa: F811
    model, given = fn.build("mlp3-bn", seed=0, inputs=12, hidden=(4,), device="strict"), x(5, 12)
    here, there = fn.trace(model, given), fn.trace(model, strict(given))
    assert all(type(y) is np.ndarray for y in here.values())
    assert all(isinstance(y, StrictArray) for y in there.values())
