"""One arena for the large arrays of main memory, so that a training step finds the memory of the step before.

What malloc hands out in pieces this large comes from the system and goes back to it, and the system clears each page
when it is touched first: a third of a convolutional net's step. Here an address range as large as the machine's memory
is reserved once. An array gets the smallest free range that it fits into, and the range is free again, and joined to
its free neighbours, when the last view of the array is gone. So a step that asks for the same sizes in the same order
as the one before gets the same addresses, and the system is asked for nothing.

In rehearsed training steps and inference (8 models, batches of 16 to 500) the highest address in use is 0 to 5 % above
the most bytes in use at one time, 14 % in an MLP of 1 MiB, and 21 to 27 % where few images meet many weights (training
ResNet-18 on 16, VGG-A on 32). The lowest range that fits, or small and large ranges from opposite ends, need as much
or more. Huge pages (MADV_HUGEPAGE) gained nothing that could be measured, and took twice as long to touch first.
"""

import bisect
import contextlib
import ctypes
import functools
import mmap
import os
import sys
import threading
import tracemalloc
import weakref
from collections import deque

import numpy as np

PERIOD = 10_000  # arrays; thirty steps of a deep network, beside which taking the pages once more costs nothing
# Not counted as memory that is promised, without which a fork would be refused for want of as much again. Python knows
# the name from 3.13 on; the number is Linux's on x86, ARM and RISC-V.
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)

Range = tuple[int, int]  # start, stop; offsets in the arena


class Arena:
    """Memory for large arrays: `empty` hands it out, the end of the last view gives it back.

    Any number of threads may use it, and a forked process has a copy of its own. `tracemalloc` sees its arrays as it
    sees those of NumPy. After every `PERIOD` arrays, what lies above them all is handed back to the system: a program
    that went on to smaller things does not keep the memory of the large ones. Raises OSError where the system grants
    no reservation of `size` bytes (whole pages).
    """

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
        self._base = np.frombuffer(self._memory, np.uint8).ctypes.data
        self._is_tracing = tracemalloc.is_tracing  # at the end of the program the module's own names go first
        self._free: list[Range] = [(0, size)]  # by address; no two of them touch
        self._leases: dict[int, tuple[weakref.ref, Range]] = {}
        self._returned: deque[Range] = deque()
        self._busy = threading.Lock()
        self._made = 0
        self._top = 0  # of the ranges handed out in this period
        self.extent = 0  # bytes below which memory may have been touched and not handed back

    @property
    def in_use(self) -> int:
        """Bytes in the arrays that are alive, each rounded up to pages."""
        return sum(stop - start for _, (start, stop) in self._leases.copy().values())

    def empty(self, shape: int | tuple[int, ...], dtype: np.dtype, nbytes: int) -> np.ndarray | None:
        """An uninitialised array of `nbytes` > 0 that starts on a page.

        None where it does not fit, and where another thread, or what this very thread was doing when a signal or the
        garbage collector came in between, is at work in the arena: nobody waits.
        """
        if not self._busy.acquire(False):
            return None
        try:
            if self._returned:
                self._collect()
            place = self._take(-(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE)
        finally:
            self._busy.release()
        if place is None:
            return None
        # The views of an array hold on to the array itself as long as its own base is no array: its end is theirs.
        array = np.ndarray(shape, dtype, self._memory, place[0])
        lease = weakref.ref(array, self._give_back)
        self._leases[id(lease)] = lease, place
        if self._is_tracing():
            _track(_DOMAIN, self._base + place[0], nbytes)
        return array

    def release(self) -> None:
        """Hand all that is not in use back to the system; it is taken again as it is needed."""
        if self._busy.acquire(False):
            try:
                self._collect()
                self._hand_back(0)
                self._top = 0
            finally:
                self._busy.release()

    def _give_back(self, lease: weakref.ref) -> None:
        """Note that an array is gone; no more than that, as it happens in any thread at any moment."""
        place = self._leases.pop(id(lease))[1]
        if self._is_tracing():
            _untrack(_DOMAIN, self._base + place[0])
        self._returned.append(place)

    def _collect(self) -> None:
        """Put the ranges that came back among the free ones."""
        free = self._free
        while self._returned:
            start, stop = self._returned.popleft()
            first = last = bisect.bisect(free, (start, stop))
            if first and free[first - 1][1] == start:
                first -= 1
                start = free[first][0]
            if last < len(free) and free[last][0] == stop:
                stop = free[last][1]
                last += 1
            free[first:last] = [(start, stop)]

    def _take(self, size: int) -> Range | None:
        """`size` bytes from the beginning of the smallest free range that has them."""
        least, place = sys.maxsize, None
        for found in self._free:
            if size <= found[1] - found[0] < least:
                least, place = found[1] - found[0], found
        if place is None:
            return None
        i, (start, stop) = self._free.index(place), place
        place = start, start + size
        self._free[i : i + 1] = [(place[1], stop)] if size < least else []
        if place[1] > self._top:
            self._top = place[1]
            self.extent = max(self.extent, self._top)
        self._made += 1
        if self._made % PERIOD == 0:
            self._hand_back(self._top)
            self._top = 0
        return place

    def _hand_back(self, lowest: int) -> None:
        """Hand free memory from `lowest` on back to the system."""
        for start, stop in self._free:
            start, stop = max(start, lowest), min(stop, self.extent)
            if start < stop:
                with contextlib.suppress(OSError):  # pages that the program locked in memory stay there
                    self._memory.madvise(mmap.MADV_DONTNEED, start, stop - start)
        start, stop = self._free[-1] if self._free else (0, 0)
        if stop == len(self._memory):
            self.extent = min(self.extent, max(start, lowest))


@functools.cache
def arena() -> Arena | None:
    """The arena of this process; None where NumPy's own memory has to do.

    That is where memory cannot be reserved without being taken (Windows), where the system refuses (as Linux does with
    vm.overcommit_memory=2), and where the address space is limited (`ulimit -v`), which a reservation would use up.
    """
    try:
        import resource

        if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
            return None
        return Arena(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ImportError, OSError):
        return None


_DOMAIN = np.lib.tracemalloc_domain
_track, _untrack = ctypes.pythonapi.PyTraceMalloc_Track, ctypes.pythonapi.PyTraceMalloc_Untrack
_track.argtypes = ctypes.c_uint, ctypes.c_size_t, ctypes.c_size_t
_untrack.argtypes = ctypes.c_uint, ctypes.c_size_t
