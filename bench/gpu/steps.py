"""Our training steps: each is one CUDA graph, and no loss is read before the end.

On one batch, which lies on the card, as PyTorch's; and as `fit` runs them, on batches of a data set of bytes, shuffled,
cropped and flipped.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.arrays import array_module, to_numpy
from fastnet.bench.epoch import PAD, random_images
from fastnet.bench.gpu.card import DTYPES, WORKLOADS, Card, step_time
from fastnet.bench.gpu.watchdog import Report
from fastnet.bench.workload import Workload
from fastnet.data.batches import Batch
from fastnet.nn.layer import Shape
from fastnet.train.sums import Sums

OURS = "fastnet"
IMAGES = 50_000  # of the data set


@functools.cache
def _split(shape: Shape) -> fn.data.Split:
    return random_images(IMAGES, shape)


def batches(workload: Workload, dtype: str, device: str) -> Iterator[tuple[Batch, int]]:
    """(batch, its epoch) as in `fit`, without end and without the smaller last ones."""
    split = _split(workload.image)
    made = fn.data.Batches(split, fn.data.Standardization.fit(split.images), workload.batch_size, dtype=dtype,
                           device=device, augmentation=fn.data.Augmentation(pad=PAD, horizontal_flip=True), unmade=True)
    return ((batch, epoch) for epoch in itertools.count() for batch in made.epoch(epoch)
            if len(batch.labels) == workload.batch_size)


def run(report: Report, settings: dict[str, Any]) -> None:
    """A row for each workload and type."""
    card = Card(settings["device"])
    for workload in WORKLOADS:
        for dtype in DTYPES:
            if report.begin(f"{workload.label} {workload.batch_size} {dtype}"):
                report.row(**measure(card, workload, dtype, settings["device"]))


def measure(card: Card, workload: Workload, dtype: str, device: str, seconds: float = 1.0) -> dict[str, Any]:
    """The times of a step, its first loss, and whether two runs have the same bits."""
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
    handed_out = batches(workload, dtype, device)

    def on_the_next() -> None:
        batch, epoch = next(handed_out)
        step.launch(batch.x, batch.labels, batch.samples, epoch, sums)

    from_bytes = step_time(on_the_next, card.synchronize, seconds)
    last = step.read().loss
    return {"workload": workload.label, "batch_size": workload.batch_size, "dtype": dtype, "rival": OURS,
            "seconds": timing._asdict(), "from_bytes": from_bytes._asdict(), "first_loss": found[0][0][0],
            "finite": bool(np.isfinite([*found[0][0], last]).all()), "same_bits": found[0] == found[1],
            "operations": workload.operations, "memory": card.memory()}
