"""Timing of rivals in turn, A B A B, so that whatever else the machine does falls on all of them alike."""

import gc
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

TURN = 0.03  # seconds, of short calls one after the other
PAUSE = 0.02  # seconds before a turn, in which the threads of the rival before go to sleep


class Timing(NamedTuple):
    """Seconds of one call: the median over the rounds, the quartiles, and how many rounds there were."""

    median: float
    low: float
    high: float
    rounds: int


def alternate(rivals: Mapping[str, Callable[[], object]], seconds: float = 2.0, least: int = 5,
              most: int = 200) -> dict[str, Timing]:
    """Call all rivals in turn until they have had `seconds` each on average, from `least` to `most` times.

    Calls shorter than `TURN` are repeated within their turn. Before a turn is a pause: a library's threads go on
    looking for work for a while after its call, and would take the cores from the next one's. Short calls have one more
    at the beginning of a turn, uncounted, which wakes their own threads. Two calls of each come before all: the first
    compiles, allocates and fills caches, the second says how long it takes, and counts where all are long.
    """
    for call in rivals.values():
        call()
    first = {name: _timed(call, 1) for name, call in rivals.items()}
    repeats = {name: max(1, int(TURN / max(seconds, 1e-7))) for name, seconds in first.items()}
    found = {name: [seconds] if set(repeats.values()) == {1} else [] for name, seconds in first.items()}
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        while True:
            rounds = len(next(iter(found.values())))
            spent = sum(sum(times) * repeats[name] for name, times in found.items())
            if rounds >= most or (rounds >= least and spent >= seconds * len(rivals)):
                break
            for name, call in rivals.items():
                time.sleep(PAUSE)
                if repeats[name] > 1:
                    call()
                found[name].append(_timed(call, repeats[name]))
    finally:
        if enabled:
            gc.enable()
    return {name: Timing(float(np.median(times)), float(np.quantile(times, 0.25)), float(np.quantile(times, 0.75)),
                         len(times)) for name, times in found.items()}


def _timed(call: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats
