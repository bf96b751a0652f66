"""Our training steps, as `fit` runs them: each is one CUDA graph, and no loss is read before the end."""

from typing import Any

import numpy as np

import fastnet as fn
from fastnet.arrays import array_module, to_numpy
from fastnet.bench.gpu.card import DTYPES, WORKLOADS, Card, step_time
from fastnet.bench.gpu.watchdog import Report
from fastnet.bench.workload import Workload
from fastnet.train.sums import Sums

OURS = "fastnet"


def run(report: Report, settings: dict[str, Any]) -> None:
    """A row for each workload and type."""
    card = Card(settings["device"])
    for workload in WORKLOADS:
        for dtype in DTYPES:
            if report.begin(f"{workload.label} {workload.batch_size} {dtype}"):
                report.row(**measure(card, workload, dtype, settings["device"]))


def measure(card: Card, workload: Workload, dtype: str, device: str, seconds: float = 1.0) -> dict[str, Any]:
    """The time of a step, its first loss, and whether two runs have the same bits."""
    card.release()
    found = []
    for _ in range(2):
        model = workload.build(dtype, device)
        step = fn.TrainStep(model, fn.SGD(lr=1e-3, momentum=0.9), graph=True)
        x, labels = (model.prepare(workload.batch()[0]), model.accept("labels", workload.batch()[1]))
        losses = [float(step(x, labels)) for _ in range(3)]
        found.append((losses, to_numpy(model.store.vector).tobytes()))
    samples, sums = array_module(x).arange(len(x)), Sums()
    timing = step_time(lambda: step.launch(x, labels, samples, 0, sums), card.synchronize, seconds)
    last = step.read().loss
    return {"workload": workload.label, "batch_size": workload.batch_size, "dtype": dtype, "rival": OURS,
            "seconds": timing._asdict(), "first_loss": found[0][0][0],
            "finite": bool(np.isfinite([*found[0][0], last]).all()), "same_bits": found[0] == found[1],
            "operations": workload.operations, "memory": card.memory()}
