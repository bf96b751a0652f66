"""Functions run over blocks on all threads, under one parallel loop that is compiled once for all of them.

What stands inside a `prange` loop goes through the optimiser several times, for the loop's body, its wrapper and the
function around them, on top of every helper by itself: 2.5 s for a convolution that takes 1.0 s without the loop. Here
the loop calls an address, so the function behind it is compiled once, and only for what is used. Its helpers should be
`kernel(inline="always")`, or they are optimised twice.
"""

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
        record, places = self.record(numbers), _places(arrays)
        _loop.sized(work)(blocks, self.address(arrays[0].dtype, tile), places.ctypes.data, record.ctypes.data, *tile)

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

    def record(self, numbers: Any) -> np.ndarray:
        """The numbers as the function reads them."""
        return np.array([*itertools.chain(*numbers)], np.int64)


def run_in_order(steps: Any, work: int, arrays: Any, numbers: Any, tile: tuple[int, int] = (0, 0)) -> None:
    """Run (block kernel, blocks) after (block kernel, blocks), on the same arrays and numbers, in one call.

    Each step sees all that the one before it wrote; one of a single block runs on the thread that calls.
    """
    if rehearsing():
        return
    dtype = arrays[0].dtype
    addresses = np.array([(step.address(dtype, tile), blocks) for step, blocks in steps], np.intp)
    record, places = steps[0][0].record(numbers), _places(arrays)
    _steps.sized(work)(addresses, places.ctypes.data, record.ctypes.data, *tile)


def _places(arrays: Any) -> np.ndarray:
    return np.array([0 if array is None else array.ctypes.data for array in arrays], np.intp)


@parallel_kernel()
def _loop(blocks, function, arrays, numbers, rows, vectors):
    for block in prange(blocks):
        _call(function, arrays, numbers, rows, vectors, block, numba.get_thread_id())


@parallel_kernel()
def _steps(addresses, arrays, numbers, rows, vectors):
    for step in range(len(addresses)):
        function, blocks = addresses[step]
        if blocks == 1:
            _call(function, arrays, numbers, rows, vectors, 0, 0)
        else:
            for block in prange(blocks):
                _call(function, arrays, numbers, rows, vectors, block, numba.get_thread_id())


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
