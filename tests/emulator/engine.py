"""The engine that runs kernels on emulated arrays."""

import contextlib
import ctypes
import functools
import threading
from typing import NamedTuple

import numpy as np

from emulator import build, recording
from emulator.arrays import EmulatedArray
from fastnet import backend, graphs
from fastnet.kernels.cuda import _launch

COPIES = {"late": 0, "early": 1, "random": 2}


class EmulationError(Exception):
    """What a kernel did that it must not do."""


_lock = threading.Lock()  # there is one emulator
_forced: dict = {}
_launches = 0


@contextlib.contextmanager
def schedule(seed: int, copies: str):
    """Inside the block `seed` sets the order of threads, and asynchronous copies arrive `late`, `early` or at `random`.

    Outside every launch has the next seed, and the three ways take turns.
    """
    _forced.update(seed=seed, copies=copies)
    try:
        yield
    finally:
        _forced.clear()


class Region(NamedTuple):
    """The memory of an array that a kernel was given."""

    name: str
    pointer: int
    nbytes: int


def engine(source, name, storage):
    """A kernel compiled with g++. What is returned raises EmulationError for what a card would not forgive."""
    library = build.kernels(source, storage)
    call = getattr(library, f"call_{name}")
    parameters = _launch.declarations(source)[name].parameters

    def function(grid, threads, arguments, shared):
        regions = [Region(p.name, a.pointer, a.nbytes) for a, p in zip(arguments, parameters, strict=True)
                   if isinstance(a, EmulatedArray)]
        held = [np.uintp(a.pointer) if isinstance(a, EmulatedArray) else np.uintp(0) if a is None else a
                for a in arguments]
        launch = functools.partial(_run, name, library, call, grid, threads, held, shared, regions)
        if not recording.launched(launch):
            launch()

    return function


def _run(name, library, call, grid, threads, held, shared, regions):
    """Run a kernel on arguments that are NumPy numbers, addresses among them."""
    global _launches
    with _lock:
        _launches += 1
        seed = _forced.get("seed", _launches)
        copies = _forced.get("copies", list(COPIES)[_launches % 3])
        how = build.Launch((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(threads, 1, 1), seed, COPIES[copies], shared)
        boxes = [np.array(value) for value in held]
        pointers = (ctypes.c_void_p * max(1, len(boxes)))(*[box.ctypes.data for box in boxes])
        wrong = build.emulator().fn_launch(ctypes.byref(how), call, pointers)
        before = ctypes.c_int()
        touched = build.emulator().fn_overrun(ctypes.byref(before))
        after = f"(seed {seed}, copies {copies})"
        if wrong:
            raise EmulationError(f"{name}: {wrong.decode()}{_fault(how, library, regions)} {after}")
        if touched:
            raise EmulationError(f"{name}: a store {'before' if before.value else 'behind'} "
                                 f"{_named(touched, regions)} {after}")


def _fault(how, library, regions):
    """Where the fault was, and which array is the nearest."""
    if how.fault_at is None or not (line := build.line_of(library, how.fault_at)):
        return ""
    if how.fault_address is None or not regions:
        return f" at {line}"
    nearest = min(regions, key=lambda r: min(abs(how.fault_address - r.pointer),
                                             abs(how.fault_address - r.pointer - r.nbytes)))
    return f" at {line}: byte {how.fault_address - nearest.pointer} of {nearest.name}, which has {nearest.nbytes}"


def _named(address, regions):
    return next((r.name for r in regions if r.pointer <= address < r.pointer + max(1, r.nbytes)),
                "an array that is no argument")


def install() -> None:
    """Make the CUDA kernels run on emulated arrays."""
    _launch.ENGINES["emulated"] = engine
    backend.ORDER["emulated"] = ("cuda", "reference")
    graphs.RECORDERS["emulated"] = recording.Recorder
