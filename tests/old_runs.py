"""Runs whose checkpoints are kept, to be continued by every fastnet to come: tests/data/format-N/NAME.safetensors.

    python tests/old_runs.py        writes those of today's format where there are none

Between them they hold every kind of state: of each optimizer, of a schedule that waits, of a weight average, of early
stopping, of the scale of a float16 loss, and the sums of an epoch that was broken off. A folder is never written again:
what is in it is what that format was.
"""

import shutil
import signal
import sys
import tempfile
from pathlib import Path

import tiny

import fastnet as fn
from fastnet.optim.optimizers import OPTIMIZERS
from fastnet.train import checkpoint
from fastnet.train.record import CHECKPOINT
from fastnet.train.stopping import EarlyStopping

FOLDER = Path(__file__).parent / "data"
STOP = 7  # updates: in the middle of the second epoch
RUNS = {name: {"optimizer": name} for name in OPTIMIZERS} | {
    "momentum-stopping-average": {"momentum": 0.9, "early_stopping": EarlyStopping(2), "average": 0.9},
    "adam-plateau": {"optimizer": "adam", "schedule": True},
    "float16": {"dtype": "float16"}}


def fit(name, out, **changed):
    """The run of that name in the folder `out`."""
    given = dict(RUNS[name])
    kind, momentum = given.pop("optimizer", "sgd"), given.pop("momentum", None)
    schedule = fn.schedules.reduce_on_plateau(0.01, patience=0) if given.pop("schedule", False) else None
    model = fn.Sequential([fn.Linear(12, 3), fn.BatchNorm(3), fn.ReLU(), fn.Linear(3, tiny.CLASSES)], seed=3,
                          dtype=given.pop("dtype", "float32"))
    optimizer = OPTIMIZERS[kind](0.01, **({} if momentum is None else {"momentum": momentum}))
    return fn.fit(model, tiny.dataset(20, 10, 10, (2, 2, 3)), optimizer, schedule, penalty=fn.L2(0.01), seed=5,
                  verbose=False, out=out, **{"epochs": 3, "batch_size": 4, **given, **changed})


def _stopping(step, x, labels, samples, epoch):
    if step.count == STOP - 1:
        signal.raise_signal(signal.SIGINT)
    return step(x, labels, samples, epoch)


def main():
    folder = FOLDER / f"format-{checkpoint.FORMAT}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in RUNS:
        if (folder / f"{name}.safetensors").exists():
            continue
        with tempfile.TemporaryDirectory() as out:
            try:
                fit(name, out, observer=_stopping)
            except KeyboardInterrupt:
                shutil.copy(Path(out) / CHECKPOINT, folder / f"{name}.safetensors")
            else:
                sys.exit(f"{name} was not stopped")


if __name__ == "__main__":
    main()
