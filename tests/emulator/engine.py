"""The engine that runs kernels on emulated arrays."""

import contextlib
import ctypes
import threading

import numpy as np

from emulator import build
from emulator.arrays import EmulatedArray
from fastnet import backend
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


def engine(source, name, storage):
    """A kernel compiled with g++. What is returned raises EmulationError for what a card would not forgive."""
    library = build.kernels(source, storage)
    call = getattr(library, f"call_{name}")
    parameters = _launch.declarations(source)[name].parameters

    def function(grid, threads, arguments, shared):
        global _launches
        with _lock:
            _launches += 1
            seed = _forced.get("seed", _launches)
            copies = _forced.get("copies", list(COPIES)[_launches % 3])
            how = build.Launch((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(threads, 1, 1), seed, COPIES[copies],
                               shared)
            held = [np.uintp(a.pointer) if isinstance(a, EmulatedArray) else np.uintp(0) if a is None else a
                    for a in arguments]
            boxes = [np.array(value) for value in held]
            pointers = (ctypes.c_void_p * max(1, len(boxes)))(*[box.ctypes.data for box in boxes])
            wrong = build.emulator().fn_launch(ctypes.byref(how), call, pointers)
            before = ctypes.c_int()
            touched = build.emulator().fn_overrun(ctypes.byref(before))
            after = f"(seed {seed}, copies {copies})"
            if wrong:
                raise EmulationError(f"{name}: {wrong.decode()}{_fault(how, library, arguments, parameters)} {after}")
            if touched:
                raise EmulationError(f"{name}: a store {'before' if before.value else 'behind'} "
                                     f"{_named(touched, arguments, parameters)} {after}")

    return function


def _fault(how, library, arguments, parameters):
    """Where the fault was, and which array is the nearest."""
    if how.fault_at is None or not (line := build.line_of(library, how.fault_at)):
        return ""
    arrays = [(abs(how.fault_address - edge), how.fault_address - a.pointer, a, p) for a, p in
              zip(arguments, parameters, strict=True) if isinstance(a, EmulatedArray)
              for edge in (a.pointer, a.pointer + a.nbytes)] if how.fault_address else []
    if not arrays:
        return f" at {line}"
    _, offset, array, parameter = min(arrays, key=lambda row: row[0])
    return f" at {line}: byte {offset} of {parameter.name}, which has {array.nbytes}"


def _named(address, arguments, parameters):
    for a, p in zip(arguments, parameters, strict=True):
        if isinstance(a, EmulatedArray) and a.pointer <= address < a.pointer + max(1, a.nbytes):
            return p.name
    return "an array that is no argument"


def install() -> None:
    """Make the CUDA kernels run on emulated arrays."""
    _launch.ENGINES["emulated"] = engine
    backend.ORDER["emulated"] = ("cuda", "reference")
