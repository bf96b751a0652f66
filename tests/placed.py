"""What the tests of devices share: a device of strict arrays, small models, a run."""

import numpy as np
import pytest
from strict_arrays import NAMESPACE
from tiny import BATCH, dataset

import fastnet as fn
from fastnet import devices, plots
from fastnet.arrays import to_numpy
from fastnet.data import Augmentation
from fastnet.optim import schedules


@pytest.fixture
def strict_device(monkeypatch):
    """A device called "strict", and no figures, which take longer than these runs."""
    monkeypatch.setitem(devices.LIBRARIES, "strict", lambda: NAMESPACE)
    monkeypatch.setattr(plots, "training_curves", lambda history, rates, path, *, title: path.write_bytes(b"figure"))


def batch(n=6, shape=(32, 32, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, *shape)).astype(np.float32), rng.integers(0, 10, n)


def dropout_net(**options):
    return fn.Sequential([fn.Linear(192, 16), fn.BatchNorm(16), fn.ReLU(), fn.Dropout(0.3), fn.Linear(16, 10)], seed=3,
                         **options)


def blocks_net(**options):
    """The containers that no model of the table has all of."""
    return fn.Sequential([
        fn.Conv2d(3, 4, 3, pad=1), fn.Residual([fn.Conv2d(4, 6, 3, 2, 1), fn.BatchNorm(6)], fn.ZeroPadShortcut(2, 6)),
        fn.Fire(6, 2, 3, 3, activation="gelu"), fn.DepthwiseSeparable(6, 4, activation="elu"),
        fn.MaxPool2d(2), fn.AvgPool2d(2), fn.Flatten(), fn.Linear(4, 10)], seed=4, **options)


SMALL = (8, 8, 3)
MODELS = {
    "mlp3-bn": (lambda **o: fn.build("mlp3-bn", seed=1, **o), (32, 32, 3)),
    "lenet5": (lambda **o: fn.build("lenet5", seed=1, **o), (32, 32, 3)),
    "resnet18": (lambda **o: fn.build("resnet18", seed=1, filter_multiplier=1 / 16, input_shape=SMALL, **o), SMALL),
    "dropout": (dropout_net, SMALL),
    "blocks": (blocks_net, SMALL),
}


def host(named):
    """{name: array} in main memory."""
    return {name: to_numpy(a) for name, a in named.items()}


def fit(out, device, *, make=dropout_net, schedule=None, **changed):
    settings = {"epochs": 3, "batch_size": BATCH, "penalty": fn.L2(0.01), "seed": 5, "verbose": False, "average": 0.9,
                "early_stopping": fn.EarlyStopping(5), "augmentation": Augmentation(pad=1, horizontal_flip=True)}
    return fn.fit(make(device=device), dataset(), fn.SGD(momentum=0.9),
                  schedule or schedules.triangular(1e-3, 0.05, half_cycle_steps=4), out=out, **(settings | changed))
