"""Every op of some training steps on images as `fit` has them, at its shapes, pass by pass."""

from typing import Any

import fastnet as fn
from fastnet import backend
from fastnet.bench.gpu.card import DTYPES, Card, Span
from fastnet.bench.gpu.steps import batches
from fastnet.bench.gpu.watchdog import Report
from fastnet.bench.profile import Watch
from fastnet.bench.workload import Workload

WORKLOADS = (Workload("resnet18", 128), Workload("lenet5", 128), Workload("vgg-a-bn", 128))


def run(report: Report, settings: dict[str, Any]) -> None:
    """A row for each op, shape and pass, as soon as it is timed."""
    card = Card(settings["device"])
    for workload in WORKLOADS:
        for dtype in DTYPES:
            if report.begin(f"{workload.label} {dtype}"):
                take_apart(report, card, workload, dtype, settings["device"])


def take_apart(report: Report, card: Card, workload: Workload, dtype: str, device: str) -> None:
    """The rows of one workload in one type of the activations."""
    model = workload.build(dtype, device)
    step = fn.TrainStep(model, fn.SGD(lr=1e-3, momentum=0.9))
    batch, epoch = next(batches(workload, dtype, device))
    step(*batch, epoch)
    watch = _DeviceWatch(report, card, {"workload": workload.label, "batch_size": workload.batch_size, "dtype": dtype})
    with backend.observed(watch.around):
        step(*batch, epoch)
    report.row(**watch.common, op="calls of a step", calls=watch.calls)


class _DeviceWatch(Watch):
    """Runs what it meets for the first time many times over."""

    def __init__(self, report: Report, card: Card, common: dict[str, Any]) -> None:
        super().__init__()
        self.common = common
        self._report, self._card, self._spans, self._run_by = report, card, dict[str, Span](), dict[str, str]()

    def around(self, name: str, module: Any, arrays: tuple[Any, ...], options: dict[str, Any]) -> Any:
        self._run_by[name] = "cuda" if module.__name__.startswith("fastnet.kernels.") else "reference"
        return super().around(name, module, arrays, options)

    def timed(self, name: str, function: Any, *arguments: Any, **options: Any) -> Any:
        self.calls[name] = self.calls.get(name, 0) + 1
        if name not in self._spans:
            print(name)  # the last line tells at what a process died
            self._spans[name] = self._card.time(lambda: function(*arguments, **options))
        return function(*arguments, **options)

    def need(self, name: str, operations: int, nbytes: int) -> None:
        if name not in self.needed:
            self._report.row(**self.common, op=name, run_by=self._run_by[name.partition(" ")[0]],
                             **self._spans[name]._asdict(), operations=operations, bytes=nbytes)
        super().need(name, operations, nbytes)
