"""Objectives for the tests of searches, where processes of their own find them.

    python tests/searched.py JOURNAL WORKERS LEASE waiting|training

runs the sweep that tests/test_sweep.py disturbs and prints its table. Trials 3 and 11 of `waiting` wait, the first time
they are tried, to be killed: the file `PID.waiting` in their folder is named by who tries them.
"""

import math
import os
import sys
import time
from pathlib import Path

from tiny import dataset, model

import fastnet as fn
from fastnet.optim import schedules
from fastnet.optim.schedules import Schedule

SPACE = {"l2": fn.lab.Log(1e-5, 1e-1), "kind": ["a", "b"]}
TRIALS, WAITING = 20, (3, 11)


def bowl(trial):
    """Best at l2 = 1e-3 and kind b."""
    return -abs(math.log10(trial["l2"]) + 3) + (trial["kind"] == "b")


def unlucky(trial):
    if trial.number == 5:
        raise RuntimeError("no\nluck")
    return bowl(trial)


def waiting(trial):
    """`unlucky`, which waits to be killed in some trials; never the second time."""
    if trial.number in WAITING and not any(trial.folder.glob("*.waiting")):
        trial.folder.mkdir(parents=True, exist_ok=True)
        (trial.folder / f"{os.getpid()}.waiting").touch()
        time.sleep(60)
    return unlucky(trial)


def dying(trial):
    if trial.number == 1:
        os._exit(7)
    return bowl(trial)


def training(trial):
    """A run whose second epoch takes half a minute; without compiled kernels, which take long to load."""
    usual = schedules.constant(0.01)

    def rate(t):
        time.sleep(t >= 30)
        return usual(t)

    with fn.backend.use("reference"):
        return trial.fit(model(), dataset(), fn.SGD(momentum=0.9), Schedule(usual.name, usual.settings, rate),
                         epochs=2, batch_size=2, penalty=fn.L2(trial["l2"])).result["validation_accuracy"]


def search(objective, journal=None, **options):
    return fn.Tuner(objective, SPACE, journal=journal, **options).coarse(12).fine_window(4).fine_factor(4)


if __name__ == "__main__":
    sys.modules["searched"] = sys.modules["__main__"]
    import searched

    objective = getattr(searched, sys.argv[4])
    print(search(objective, Path(sys.argv[1]), workers=int(sys.argv[2]), lease=float(sys.argv[3])).table(False))
