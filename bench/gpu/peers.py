"""PyTorch's training steps on the card, at their best, on twins of our models with the same weights and batch.

    eager     kernel by kernel
    graph     the whole step captured into one CUDA graph, which every step replays
    compile   model and loss through torch.compile(mode="reduce-overhead"), which captures graphs itself

All have channels_last maps, cuDNN's benchmark, fused SGD, gradients set to None, the batch on the card; nothing is
read from it. `bfloat16` is autocast; `tf32` is float32 with products on tensor cores, ten bits of mantissa; `float32`
without.
"""

import contextlib
import gc
from collections.abc import Callable
from typing import Any, NamedTuple

from fastnet import backend
from fastnet.bench import steps
from fastnet.bench.gpu.card import WORKLOADS, step_time
from fastnet.bench.gpu.watchdog import Report
from fastnet.bench.workload import Workload

PRECISIONS = ("bfloat16", "tf32", "float32")
VARIANTS = ("graph", "eager", "compile")
ONLY = {"float32": ("graph",)}  # of a precision that is never the best one, its best
LOSS_APART = {"bfloat16": 5e-2, "tf32": 1e-2, "float32": 1e-4}  # of the loss, from that of the twin on the CPU
WARM_UP = 5  # steps before a capture: cuDNN tries its algorithms, and the optimizer makes its state


_losses: dict[tuple[str, int], float] = {}


class Peer(NamedTuple):
    """A step, its first loss and the wait for its end."""

    step: Callable[[], Any]
    first_loss: float
    synchronize: Callable[[], object]


def run(report: Report, settings: dict[str, Any]) -> None:
    """Whether the libraries agree, then a row for each variant; those that have to be compiled come last."""
    import torch

    for workload in {workload.label: workload for workload in WORKLOADS}.values():
        if report.begin(f"agreement of {workload.label}"):
            report.row(workload=workload.label, disagreement=agreement(workload))
    quick = [(workload, precision, variant) for workload in WORKLOADS for precision in PRECISIONS
             for variant in ONLY.get(precision, VARIANTS) if variant != "compile"]
    compiled = [(workload, precision, "compile") for precision in PRECISIONS for workload in WORKLOADS
                if "compile" in ONLY.get(precision, VARIANTS)]
    for workload, precision, variant in quick + compiled:
        if report.begin(f"{workload.label} {workload.batch_size} {precision} {variant}"):
            report.row(**measure(workload, precision, variant, settings["device"]))
            torch.compiler.reset()
            gc.collect()


def agreement(workload: Workload) -> float:
    """How far loss and gradients are apart, in float64. Raises AssertionError where they are not the same."""
    with backend.use("reference"):
        apart = steps.disagreement(workload)
    if not apart <= steps.AGREEMENT:
        raise AssertionError(f"{workload.label}: the gradients differ from PyTorch's by {apart:.1e}")
    return apart


def measure(workload: Workload, precision: str, variant: str, device: str, seconds: float = 0.7) -> dict[str, Any]:
    """The time of a step. Raises AssertionError where its loss is not that of the same step on the CPU."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    peer = prepared(workload, precision, variant, device)
    expected = loss_on_the_cpu(workload)
    apart = abs(peer.first_loss / expected - 1)
    if not apart <= LOSS_APART[precision]:
        raise AssertionError(f"{workload.label}, {precision}, {variant}: the first loss is {peer.first_loss} but "
                             f"{expected} on the CPU")
    timing = step_time(peer.step, peer.synchronize, seconds)
    return {"workload": workload.label, "batch_size": workload.batch_size, "dtype": precision, "rival": variant,
            "seconds": timing._asdict(), "first_loss": peer.first_loss, "loss_apart": apart,
            "memory": torch.cuda.max_memory_allocated() if device == "cuda" else 0}


def loss_on_the_cpu(workload: Workload) -> float:
    """The loss of the twin in float32."""
    import torch

    key = workload.label, workload.batch_size
    if key not in _losses:
        module, inputs, labels = _twin(workload, "cpu")
        with torch.no_grad():
            _losses[key] = float(torch.nn.functional.cross_entropy(module(inputs), labels))
    return _losses[key]


def prepared(workload: Workload, precision: str, variant: str, device: str) -> Peer:
    """The step of one variant, which has been taken at least once."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    module, inputs, labels = _twin(workload, device)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9, fused=True)
    criterion = torch.nn.CrossEntropyLoss()

    def loss_of(inputs: Any, labels: Any) -> Any:
        # Weights cast once and kept would be those of another step where the step is captured.
        with (torch.autocast(device, torch.bfloat16, cache_enabled=False) if precision == "bfloat16"
              else contextlib.nullcontext()):
            return criterion(module(inputs), labels)

    forward = torch.compile(loss_of, mode="reduce-overhead") if variant == "compile" else loss_of

    def step() -> Any:
        if variant == "compile":
            torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad(set_to_none=True)
        loss = forward(inputs, labels)
        loss.backward()
        optimizer.step()
        return loss

    def synchronize() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    if variant == "graph":
        return Peer(*_captured(step, optimizer), synchronize)
    return Peer(step, step().item(), synchronize)


def _captured(step: Callable[[], Any], optimizer: Any) -> tuple[Callable[[], Any], float]:
    """A function that replays the step, and the first loss. The warm-up is on another stream, as a capture wants it."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        first = step().item()
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)  # so that the gradients of the capture lie in the graph's own memory
    with torch.cuda.graph(graph, stream=side):
        loss = step()
    graph.replay()
    if not torch.isfinite(loss).item():
        raise AssertionError(f"the loss of the replayed step is {loss.item()}")
    return graph.replay, first


def _twin(workload: Workload, device: str) -> tuple[Any, Any, Any]:
    import torch

    from fastnet.bench import peer

    x, labels = workload.batch()
    module = peer.twin(workload.build(), x.shape[1:])
    module, inputs = peer.prepared(module, "channels_last", x)
    return module.to(device), inputs.to(device), torch.from_numpy(labels).to(device)
