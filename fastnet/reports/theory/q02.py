"""Every intermediate value of a pass is a plain array that can be read at any time: `fastnet.trace`."""

from pathlib import Path
from typing import Any

import numpy as np

from fastnet.arrays import single_threaded_blas
from fastnet.nn.layer import INFERENCE
from fastnet.nn.models import build
from fastnet.nn.sequential import named_layers
from fastnet.nn.trace import trace
from fastnet.reports.experiment import Results
from fastnet.reports.task import Task
from fastnet.reports.theory import question
from fastnet.reports.theory.question import Finding, Question, line
from fastnet.reports.training import Place


def replayed(folder: Path, place: Place, *, data: str, model: str, images: int) -> dict[str, Any]:
    """Trace a model on some images, and run each simple layer of its outermost chain again on what was read."""
    given = question.dataset(data, place, images, 60, seed=0)
    net = build(model, seed=0)
    x = (given.train.images / np.float32(255)).astype(np.float32)
    found = trace(net, x)
    layers, worst, below, again = dict(named_layers(net)), 0.0, x, 0
    with single_threaded_blas():
        for layer in net.children():
            y, _ = layer(below, INFERENCE)
            below, again = found[layer.name], again + 1
            worst = max(worst, float(np.max(np.abs(y - below))))
    return {"layers": len(layers), "arrays": sum(type(y) is np.ndarray for y in found.values()),
            "bytes": sum(y.nbytes for y in found.values()), "again": again, "worst": worst,
            "predict": float(np.max(np.abs(net.predict(x) - below)) / np.max(np.abs(below))),
            "shapes": {name: list(y.shape) for name, y in found.items()}}


def tasks(results: Results) -> list[Task]:
    return [Task("fastnet.reports.theory.q02:replayed", {"model": model, "images": question.images(results, 100)},
                 data="cifar10") for model in ("lenet5", "resnet20")]


def find(answers: list[Any]) -> Finding:
    rows = []
    for one, name in zip(answers, ("lenet5", "resnet20"), strict=True):
        rows += [line(name, "layers, plain arrays read", f"{one['layers']}, {one['arrays']}",
                      note=f"{one['bytes'] / 2**20:.1f} MiB for {next(iter(one['shapes'].values()))[0]} images"),
                 line(name, "largest difference of a layer run again on what was read", f"{one['worst']:.1g}",
                      note=f"{one['again']} layers of the outermost chain"),
                 line(name, "largest relative difference from predict", f"{one['predict']:.1g}")]
    whole = all(one["arrays"] == one["layers"] and one["worst"] == 0 and one["predict"] < 1e-4 for one in answers)
    first = answers[0]
    return Finding(rows, whole, "trace(model, x) gives the output of every layer as a NumPy array, and a layer that is "
                                f"run again on what was read gives it to the last bit; {first['arrays']} in LeNet-5")


QUESTION = Question(
    "Q02", "in a dynamic graph tensors can be read at any time", True,
    "`fastnet.trace` on LeNet-5 and ResNet-20: how many of the layers' outputs it gives, whether layers run again on "
    "them give the same bits, and whether the last is what `predict` says, where layers run fused. About 3 s.",
    tasks, find)
