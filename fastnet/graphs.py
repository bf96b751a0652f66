"""Work on a device that is recorded once and then launched as a whole: a CUDA graph.

Launching kernels one by one takes the host some microseconds each, which is longer than many of them run.

What is recorded are kernels and the addresses and numbers that they were given. So arrays that come from outside must
stay where they are, and whatever number changes must stand in one of them. Python itself is not run again.
"""

import contextlib
from collections.abc import Callable
from typing import Any, Protocol


class Recorder(Protocol):
    """Records work on the arrays of one library. All of it is in order with the library's usual work."""

    def warm_up(self, work: Callable[[], Any]) -> Any:
        """Do the work now, and have ready what a recording of it needs. Returns its result."""

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """(result, replay): the arrays that `replay()` will fill each time, which does all the work.

        `work` is called once, in which nothing is computed, and its arrays stay where they are while `replay` lives.
        Raises UnrecordableError for work that does more than launch kernels.
        """


class UnrecordableError(RuntimeError):
    """Work that cannot be recorded; says why in one line."""


class CupyRecorder:
    """Records by CuPy's stream capture.

    CuPy captures in the relaxed mode, in which allocating memory passes silently although no replay repeats it. So
    there is a pool of memory for this alone, filled by the warm-ups, and in a recording it asks the system for nothing.
    """

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._stream = cupy.cuda.Stream()  # not `non_blocking`: it and the default stream wait for each other
        self._pool = cupy.cuda.MemoryPool(self._allocate)
        self._recording = False

    def _allocate(self, size: int) -> Any:
        if self._recording:
            raise MemoryError(f"{size} bytes more than in the warm-ups are needed while a CUDA graph is recorded")
        return self._cupy.cuda.MemoryPointer(self._cupy.cuda.Memory(size), 0)

    def warm_up(self, work: Callable[[], Any]) -> Any:
        with self._stream, self._cupy.cuda.using_allocator(self._pool.malloc):
            return work()

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        with self._stream, self._cupy.cuda.using_allocator(self._pool.malloc):
            self._stream.begin_capture()
            self._recording = True
            try:
                result = work()
                graph = self._stream.end_capture()
            except BaseException as error:
                self._abandon()
                if isinstance(error, Exception):
                    raise UnrecordableError(next(iter(str(error).splitlines()), type(error).__name__)) from error
                raise
            finally:
                self._recording = False
        pool, stream = self._pool, self._stream

        def replay() -> None:
            assert pool is not None  # its memory is the graph's
            graph.launch(stream)

        return result, replay

    def _abandon(self) -> None:
        """End a capture that failed; that it failed is known."""
        with contextlib.suppress(self._cupy.cuda.runtime.CUDARuntimeError):
            self._stream.end_capture()


RECORDERS: dict[str, Callable[[], Recorder]] = {"cupy": CupyRecorder}
