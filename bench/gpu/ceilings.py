"""What the card can do at best: copies, matrix products, launches."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.arrays import floating
from fastnet.bench.gpu.card import Card
from fastnet.bench.gpu.watchdog import Report
from fastnet.kernels.cuda._launch import Kernel

SIZE = 8192  # of the square matrices
LARGE, SMALL = 4 << 30, 8 << 20  # bytes that are copied: far larger than the caches, and such that both ends fit in L2
LAUNCHES = 1000
TYPES = ("float32", "float16", "bfloat16")


def run(report: Report, settings: dict[str, Any]) -> None:
    """A row for each ceiling: `rate` in operations or bytes a second, or `seconds` a launch."""
    card = Card(settings["device"])
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "copy": lambda: copy(card, LARGE), "copy within L2": lambda: copy(card, SMALL, 100),
        **{f"product {name}": (lambda name=name: product(card, name)) for name in TYPES},
        "launch": lambda: launches(card)}
    if card.has_events:
        parts |= {"launch in a graph": lambda: graph(card)}
    for name, measure in parts.items():
        if report.begin(name):
            report.row(ceiling=name, **measure())


def copy(card: Card, nbytes: int, times: int = 1) -> dict[str, float]:
    """Bytes read and written a second by copies in a row."""
    a = card.library.ones(nbytes // 4, "float32")
    b = card.library.empty_like(a)

    def copies() -> None:
        for _ in range(times):
            b[...] = a

    return {"rate": 2 * nbytes * times / card.time(copies).warm}


def product(card: Card, dtype: str) -> dict[str, float]:
    """Operations a second of a product of random matrices: on zeros a card draws less power and is faster."""
    rng = np.random.default_rng(0)
    a, b = (card.library.asarray(rng.standard_normal((SIZE, SIZE), np.float32).astype(floating(dtype)))
            for _ in range(2))
    out = card.library.empty_like(a)
    return {"rate": 2 * SIZE**3 / card.time(lambda: card.library.dot(a, b, out=out)).warm}


def launches(card: Card) -> dict[str, float]:
    """Seconds a launch of a kernel of ours with nothing to do: what the host needs, and in all."""
    kernel, x = Kernel("relu", "relu_forward"), card.library.ones(1, "float32")
    y = card.library.empty_like(x)
    kernel(1, x, y, 1)
    card.synchronize()
    started = time.perf_counter()
    for _ in range(LAUNCHES):
        kernel(1, x, y, 1)
    handed_over = time.perf_counter()
    card.synchronize()
    return {"host": (handed_over - started) / LAUNCHES, "seconds": (time.perf_counter() - started) / LAUNCHES}


def graph(card: Card) -> dict[str, float]:
    """The same where the launches have been captured into one graph."""
    cuda, kernel, x = card.library.cuda, Kernel("relu", "relu_forward"), card.library.ones(1, "float32")
    y = card.library.empty_like(x)
    kernel(1, x, y, 1)
    card.synchronize()
    with cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        for _ in range(LAUNCHES):
            kernel(1, x, y, 1)
        captured = stream.end_capture()
        captured.launch()
        stream.synchronize()
        started = time.perf_counter()
        for _ in range(10):
            captured.launch()
        stream.synchronize()
    return {"seconds": (time.perf_counter() - started) / 10 / LAUNCHES}
