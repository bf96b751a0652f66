"""Launches that are recorded instead of run, and replayed later: what a CUDA graph is on a card.

Nothing but kernels can be recorded. Whatever else would compute, copy or be read on the host is refused, so that what
was recorded is known to be all of it. What a kernel was given is kept as addresses: memory made in the recording lives
as long as its replay, other memory does not, and touching it when it is gone is a fault.
"""

from collections.abc import Callable

from fastnet.graphs import UnrecordableError

# What may be asked of arrays: these give views, or new memory that a kernel will fill.
VIEWS = {"__getitem__", "reshape", "astype", "ascontiguousarray", "ravel"}
ALLOWED = VIEWS | {"__len__", "empty", "empty_like"}


class RecordingError(UnrecordableError):
    """What a recording cannot hold."""


class _Recording:
    def __init__(self) -> None:
        self.launches: list[Callable[[], None]] = []
        self.memory: list = []


_now: _Recording | None = None


def active() -> bool:
    return _now is not None


def keep(memory) -> None:
    """Memory that was made: what is recorded may use it."""
    if _now is not None:
        _now.memory.append(memory)


def launched(launch: Callable[[], None]) -> bool:
    """Record a launch, where there is a recording."""
    if _now is not None:
        _now.launches.append(launch)
    return _now is not None


def refuse(name: str) -> None:
    """Raise RecordingError in a recording, unless `name` is of what computes nothing."""
    if _now is not None and name not in ALLOWED:
        raise RecordingError(f"{name} is computed outside the kernels")


class Recorder:
    """As `fastnet.graphs.CupyRecorder`, on the emulator."""

    def warm_up(self, work):
        return work()

    def record(self, work):
        global _now
        made = _now = _Recording()
        try:
            result = work()
        finally:
            _now = None

        def replay(made=made):  # which holds the memory
            for launch in made.launches:
                launch()

        replay.launches = len(made.launches)
        return result, replay
