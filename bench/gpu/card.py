"""The device under test, and its clocks."""

import gc
import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from fastnet import devices
from fastnet.bench.workload import Workload
from fastnet.timer import Timing, alternate

# In order of value: what a hang of a later one cannot take.
WORKLOADS = (Workload("resnet18", 128), Workload("lenet5", 128), Workload("mlp3", 100), Workload("vgg-a-bn", 128),
             Workload("resnet18", 512), Workload("resnet34", 128))
DTYPES = ("bfloat16", "float32")
BUSY = 4 << 30  # bytes whose filling takes a card so long that a call is on its way to it meanwhile
MOST_ROUNDS, SECONDS = 20, 0.3  # of one measurement


class Span(NamedTuple):
    """Seconds of a call on the card: its data not in the caches, and right after an equal one; and on the host."""

    cold: float
    warm: float
    host: float


class Card:
    """A device by its name. One whose library has no events of its own (the emulator) is timed by the host's clock."""

    def __init__(self, device: str = "cuda") -> None:
        self.library = devices.library(device)
        self.has_events = self.library.__name__ == "cupy"
        self._busy: Any = None

    def synchronize(self) -> None:
        """Wait until everything that was asked for is done."""
        if self.has_events:
            self.library.cuda.get_current_stream().synchronize()

    def memory(self) -> int:
        """Bytes that CuPy has taken on the card since `release`; 0 elsewhere."""
        return self.library.get_default_memory_pool().total_bytes() if self.has_events else 0

    def release(self) -> None:
        """Give back what no array needs."""
        gc.collect()
        if self.has_events:
            self.library.get_default_memory_pool().free_all_blocks()

    def time(self, call: Callable[[], object]) -> Span:
        """Medians over some rounds, after a call that warms up.

        Before every round the card overwrites a buffer far larger than its caches. That keeps it busy until the two
        calls of the round have been handed over, or the gaps between their launches would be timed too.
        """
        call()
        self.synchronize()
        started = time.perf_counter()
        call()
        self.synchronize()
        rounds = max(3, min(MOST_ROUNDS, int(SECONDS / (time.perf_counter() - started))))
        spans = [self._round(call) for _ in range(rounds)]
        return Span(*(sorted(column)[rounds // 2] for column in zip(*spans, strict=True)))

    def _round(self, call: Callable[[], object]) -> tuple[float, float, float]:
        if not self.has_events:
            times = [time.perf_counter()]
            for _ in range(2):
                call()
                times.append(time.perf_counter())
            return times[1] - times[0], times[2] - times[1], times[1] - times[0]
        cuda = self.library.cuda
        if self._busy is None:
            self._busy = self.library.empty(BUSY, "uint8")
        self._busy.fill(1)
        events, host = [cuda.Event() for _ in range(3)], 0.0
        events[0].record()
        for event in events[1:]:
            started = time.perf_counter()
            call()
            host = time.perf_counter() - started
            event.record()
        events[-1].synchronize()
        cold, warm = (cuda.get_elapsed_time(*pair) / 1e3 for pair in itertools.pairwise(events))
        return cold, warm, host


def step_time(step: Callable[[], object], synchronize: Callable[[], object], seconds: float = 1.5) -> Timing:
    """Seconds of a step in a row of many: the host waits for the card only at the end of each row."""
    for _ in range(3):  # a compiled step is compiled in the first, recorded in the second and replayed in the third
        step()
    synchronize()
    started = time.perf_counter()
    step()
    synchronize()
    count = max(1, min(200, int(0.05 / (time.perf_counter() - started))))

    def row() -> None:
        for _ in range(count):
            step()
        synchronize()

    found = alternate({"row": row}, seconds)["row"]
    return Timing(found.median / count, found.low / count, found.high / count, found.rounds)
