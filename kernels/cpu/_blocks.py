"""Functions run over blocks on all threads, under one parallel loop that is compiled once for all of them.

What stands inside a `prange` loop goes through the optimiser several times, for the loop's body, its wrapper and the
function around them, on top of every helper by itself: 2.5 s for a convolution that takes 1.0 s without the loop. Here
the loop calls an address, so the function behind it is compiled once, and only for what is used. Its helpers should be
`kernel(inline="always")`, or they are optimised twice.
"""

import ctypes
import functools
import itertools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from fastnet.arrays import rehearsing
from fastnet.kernels.cpu._jit import native, parallel_kernel

MOST_NUMBERS = 64  # of a call: arrays, or numbers


def block_kernel(*numbers: Any) -> Callable:
    """Make a `BlockKernel` of `function(arrays, numbers, rows, vectors, block, thread)`; `numbers` are NamedTuples."""
    return lambda function: BlockKernel(function, numbers)


class BlockKernel:
    """A function of some arrays of one type, some whole numbers, the shape of its tiles, and the block to work on.

    `numba.carray(arrays[i], shape)` is array number i, and `numba.carray(numbers, 1)[0]` one record of all numbers. An
    array that it does not use may be None. The rows and vectors of a tile are constants, for which it is compiled anew.
    `thread` tells the threads apart that work at the same time: for scratch memory, never for results.
    """

    def __init__(self, function: Callable, numbers: Any) -> None:
        self._function = function
        self._record = np.dtype([(name, np.int64) for kind in numbers for name in kind._fields])
        self._compiled: dict[tuple, Any] = {}

    def __call__(self, blocks: int, work: int, arrays: Any, numbers: Any, tile: tuple[int, int] = (0, 0)) -> None:
        """Run the blocks, on all threads where there is `work` (simple operations) enough for that."""
        if rehearsing():
            return
        address, places, record = self.address(arrays[0].dtype, tile), _places(arrays), _record(numbers)
        loop = _loop.sized(work if blocks > 1 else 0)  # threads would start for a single block too
        loop(blocks, address, ctypes.addressof(places), ctypes.addressof(record), *tile)

    def address(self, dtype: np.dtype, tile: tuple[int, int]) -> int:
        """Where the function compiled for arrays of this type and this shape of tiles starts."""
        kind = dtype, tile
        if kind not in self._compiled:
            numba.get_num_threads()  # starts them: numbering them crashes before that
            pointers = types.CPointer(types.CPointer(numba.from_dtype(dtype)))
            record_pointer = types.CPointer(numba.from_dtype(self._record))
            self._compiled[kind] = native(self._function, pointers, record_pointer, *map(types.literal, tile),
                                          types.intp, types.intp)
        return self._compiled[kind].address


def run_in_order(steps: Any, work: int, arrays: Any, numbers: Any) -> None:
    """Run (block kernel, tile, blocks) after (block kernel, tile, blocks), on the same arrays and numbers, in one call.

    Each step sees all that the one before it wrote; one of a single block runs on the thread that calls.
    """
    if rehearsing():
        return
    functions, places, record = _functions(tuple(steps), arrays[0].dtype), _places(arrays), _record(numbers)
    _steps.sized(work)(functions, ctypes.addressof(places), ctypes.addressof(record))


@functools.lru_cache(maxsize=1024)
def _functions(steps: Any, dtype: np.dtype) -> np.ndarray:
    return np.array([(kernel.address(dtype, tile), *tile, blocks) for kernel, tile, blocks in steps], np.intp)


def in_turn(stages: Any, blocks: int, row: int, work: int, arrays: Any, numbers: Any) -> None:
    """Run several block kernels for one block after another, so that what they hand on stays in a core's cache.

    `stages` are (kernel, tile, units): for block b it runs the kernel's blocks from b `units` to (b + 1) `units`. All
    get the same arrays and numbers. So many blocks as `row` says are run by the same thread, in order.
    """
    if rehearsing():
        return
    functions, places, record = _functions(tuple(stages), arrays[0].dtype), _places(arrays), _record(numbers)
    _loop_in_turn.sized(work)(blocks, row, functions, ctypes.addressof(places), ctypes.addressof(record))


_Numbers = ctypes.c_int64 * MOST_NUMBERS


def _record(numbers: Any) -> ctypes.Array:
    """The numbers as the functions read them."""
    return _Numbers(*itertools.chain(*numbers))


def _places(arrays: Any) -> ctypes.Array:
    return _Numbers(*(0 if array is None else _address(array) for array in arrays))


def _address(array: np.ndarray) -> int:
    """Where the array's numbers are. NumPy's own `array.ctypes.data` takes four times as long."""
    if array.size and array.flags.writeable:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    return array.ctypes.data


@parallel_kernel()
def _loop(blocks, function, arrays, numbers, rows, vectors):
    for block in prange(blocks):
        _call(function, arrays, numbers, rows, vectors, block, numba.get_thread_id())


@parallel_kernel()
def _steps(functions, arrays, numbers):
    for step in range(len(functions)):
        function, rows, vectors, blocks = functions[step]
        if blocks == 1:
            _call(function, arrays, numbers, rows, vectors, 0, 0)
        else:
            for block in prange(blocks):
                _call(function, arrays, numbers, rows, vectors, block, numba.get_thread_id())


@parallel_kernel()
def _loop_in_turn(blocks, row, functions, arrays, numbers):
    for part in prange((blocks + row - 1) // row):
        for block in range(part * row, min(blocks, (part + 1) * row)):
            for stage in range(len(functions)):
                function, rows, vectors, units = functions[stage]
                for unit in range(block * units, (block + 1) * units):
                    _call(function, arrays, numbers, rows, vectors, unit, numba.get_thread_id())


@intrinsic(prefer_literal=True)
def constant(typing, number):
    """A literal, such as the rows and vectors of a tile, as a number that the compiler knows: branches on it go."""
    if not isinstance(number, types.IntegerLiteral):
        return None
    return types.intp(number), lambda context, builder, signature, values: ir.Constant(
        ir.IntType(64), number.literal_value)


@intrinsic
def _call(typing, function, arrays, numbers, rows, vectors, block, thread):
    def generate(context, builder, signature, values):
        integer = ir.IntType(64)
        pointer = ir.FunctionType(ir.VoidType(), [integer] * 6).as_pointer()
        builder.call(builder.inttoptr(values[0], pointer), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), generate
