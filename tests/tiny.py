"""Small data sets, models and runs for the tests of training and of the command line."""

import json
import signal

import numpy as np

import fastnet as fn
from fastnet.data import Dataset, Split
from fastnet.optim import schedules
from fastnet.optim.schedules import Schedule
from fastnet.train import checkpoint, record

CLASSES = 10
EPOCHS, BATCH = 3, 25  # 60 images: three batches an epoch, the last of 10


def split(n, seed=0, shape=(8, 8, 3), classes=CLASSES):
    """Noise over a picture that each class has, so that a loss can fall."""
    pictures = np.random.default_rng(99).integers(0, 100, (classes, *shape))
    labels = np.arange(n, dtype=np.int64) % classes
    images = pictures[labels] + np.random.default_rng(seed).integers(0, 150, (n, *shape))
    return Split(images.astype(np.uint8), labels, np.arange(n, dtype=np.int64))


def dataset(train=60, validation=20, test=30, shape=(8, 8, 3)):
    """Random images; `identity` is JSON, as a run's record needs it."""
    return Dataset("tiny", tuple("abcdefghij"), split(train, 1, shape), split(validation, 2, shape),
                   split(test, 3, shape), {"name": "tiny", "sha256": "0", "split": f"{train}/{validation}"})


def model(seed=3, dtype="float32"):
    """All that a run has to bring back: parameters, running statistics and keyed masks."""
    return fn.Sequential([fn.Linear(192, 16), fn.BatchNorm(16), fn.ReLU(), fn.Dropout(0.3), fn.Linear(16, CLASSES)],
                         seed=seed, dtype=dtype)


def bits(arrays):
    """{name: bytes}, to compare arrays bit by bit."""
    return {name: a.tobytes() for name, a in arrays.items()}


def files(out):
    return {p.name for p in out.iterdir() if not p.name.startswith(".")}


def fit(out=None, optimizer=None, schedule=None, **changed):
    settings = {"epochs": EPOCHS, "batch_size": BATCH, "penalty": fn.L2(0.01), "seed": 5, "verbose": False,
                "model": model(), "data": dataset()} | changed
    return fn.fit(settings.pop("model"), settings.pop("data"), optimizer or fn.SGD(momentum=0.9),
                  schedule or schedules.triangular(1e-3, 0.05, half_cycle_steps=4), out=out, **settings)


def untimed(history):
    return [{key: value for key, value in line.items() if not key.endswith("seconds")} for line in history]


def interrupting(*stops, times=1):
    """The usual schedule, which presses Ctrl-C once during each of these updates."""
    usual, left = schedules.triangular(1e-3, 0.05, half_cycle_steps=4), set(stops)

    def rate(t):
        if t in left:
            left.discard(t)
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return usual(t)

    return Schedule(usual.name, usual.settings, rate)


def scribbled():
    """A model of which everything that training changes is wrong."""
    net = model()
    net.load_state({name: np.full_like(a, 7) for name, a in net.state().items()})
    return net


def saved(out):
    """All that a run leaves, without times."""
    arrays, meta = checkpoint.load(out / "checkpoint.safetensors")
    result = json.loads((out / "result.json").read_text())
    return (bits(arrays), meta["step"], untimed(meta["history"]), untimed(record.read_history(out)),
            {k: v for k, v in result.items() if not k.endswith("seconds")},
            json.loads((out / "config.json").read_text()))
