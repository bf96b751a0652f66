"""Functions run over blocks on all threads, under one parallel loop that is compiled once for all of them.

What stands inside a `prange` loop goes through the optimiser several times, for the loop's body, its wrapper and the
function around them, on top of every helper by itself: 2.5 s for a convolution that takes 1.0 s without the loop. Here
the loop calls an address, so the function behind it is compiled once, and only for what is used. Its helpers should be
`kernel(inline="always")`, or they are optimised twice.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from fastnet.arrays import rehearsing
from fastnet.kernels.cpu._jit import native, parallel_kernel


def block_kernel(numbers: Any) -> Callable:
    """Make a `BlockKernel` of `function(a, b, c, d, numbers, rows, vectors, block)`; `numbers` is a class of tuples."""
    return lambda function: BlockKernel(function, numbers)


class BlockKernel:
    """A function of four arrays of one type, some whole numbers, the shape of its tiles, and the block to work on.

    It gets pointers, which `numba.carray(pointer, 1)` turns into flat arrays, and a pointer to a record of the numbers,
    `numba.carray(pointer, 1)[0]`. An array that it does not use may be None. The rows and vectors of a tile are
    constants, for which it is compiled anew.
    """

    def __init__(self, function: Callable, numbers: Any) -> None:
        self._function = function
        self._record = np.dtype([(name, np.int64) for name in numbers._fields])
        self._compiled: dict[tuple, Any] = {}

    def __call__(self, blocks: int, work: int, arrays: Any, numbers: Any, tile: tuple[int, int]) -> None:
        """Run the blocks, on all threads where there is `work` (simple operations) enough for that."""
        if rehearsing():
            return
        kind = arrays[0].dtype, tile
        if kind not in self._compiled:
            pointer = types.CPointer(numba.from_dtype(arrays[0].dtype))
            record_pointer = types.CPointer(numba.from_dtype(self._record))
            self._compiled[kind] = native(self._function, *[pointer] * 4, record_pointer,
                                          *map(types.literal, tile), types.intp)
        record = np.array([tuple(numbers)], self._record)
        places = [0 if array is None else array.ctypes.data for array in arrays]
        _loop.sized(work)(blocks, self._compiled[kind].address, *places, record.ctypes.data, *tile)


@parallel_kernel()
def _loop(blocks, function, a, b, c, d, numbers, rows, vectors):
    for block in prange(blocks):
        _call(function, a, b, c, d, numbers, rows, vectors, block)


@intrinsic
def _call(typing, function, a, b, c, d, numbers, rows, vectors, block):
    def generate(context, builder, signature, values):
        integer = ir.IntType(64)
        pointer = ir.FunctionType(ir.VoidType(), [integer] * 8).as_pointer()
        builder.call(builder.inttoptr(values[0], pointer), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9), generate
