"""One input at a time, under watch: which exception comes out, how long it takes, how much memory at its peak."""

import contextlib
import ctypes
import signal
import time
import tracemalloc
from typing import NamedTuple

SECONDS = 1.0  # of the processor: what others do on the machine does not count
MB = 1 << 20


class TooLong(BaseException):
    """Not an Exception: readers that turn whatever goes wrong into a ValueError must not take it for damage."""


class Seen(NamedTuple):
    """`error` is None where the input was taken; `fault` says what must not happen, None where all is well."""

    error: BaseException | None
    seconds: float
    peak: int
    fault: str | None


def _alarm(number, frame):
    raise TooLong


@contextlib.contextmanager
def _clock():
    before = signal.signal(signal.SIGPROF, _alarm)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def watched(call, documented, most, *, traced):
    """Run `call()`; faults are other exceptions than `documented`, more than `SECONDS`, a peak of `most` bytes.

    With `traced` the peak is of what Python, NumPy and zlib ask for, touched or not; else of the memory that the
    process really holds, Pillow's too, as Linux counts it.
    """
    error = None
    before = _start(traced)
    began = time.process_time()
    try:
        with _clock():
            call()
    except (Exception, SystemExit, TooLong) as caught:
        error = caught
    seconds = time.process_time() - began
    peak = _stop(traced) - before
    fault = None
    if isinstance(error, TooLong) or seconds > SECONDS:
        fault = f"takes {seconds:.1f} s"
    elif peak > most:
        fault = f"takes {peak / MB:.0f} MB, more than {most / MB:.0f} MB"
    elif error is not None and not isinstance(error, documented):
        fault = f"{type(error).__name__}: {str(error)[:200]}"
    return Seen(error, seconds, peak, fault)


def _start(traced):
    if traced:
        tracemalloc.start()
        return 0
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here
    return _resident("VmRSS")


def _stop(traced):
    if not traced:
        return _resident("VmHWM")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def _resident(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(field))


def give_back_at_once():
    """Let the C library return large blocks to the system once they are free, so that a peak is seen each time."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-3, 1 << 17)
