"""Matrix products from inside compiled kernels, on blocks of larger arrays.

Numba compiles `np.dot` to its own routine `numba_xxgemm`, which calls SciPy's BLAS. Calling that routine directly
takes pointers and leading dimensions, so a block of a row-major array needs no copy, and unlike a ctypes function
it can be cached on disk. BLAS itself is kept on one thread: the loops around it are parallel.
"""

import numpy as np
from numba import types

from fastnet.kernels.cpu._jit import kernel

NORMAL, TRANSPOSED = ord("N"), ord("T")
_POINTER = types.intp
_xxgemm = types.ExternalFunction("numba_xxgemm", types.int32(
    types.char, types.char, types.char, types.intp, types.intp, types.intp, _POINTER, _POINTER, types.intp,
    _POINTER, types.intp, _POINTER, _POINTER, types.intp))


@kernel(inline="always")
def address(x, offset):
    """The address of entry `offset` (counted in entries) of a contiguous array."""
    return x.ctypes.data + offset * x.itemsize


@kernel()
def gemm(trans_a, trans_b, m, n, k, a, lda, b, ldb, accumulate, c, ldc, scalars):
    """C = op(A) op(B), plus C if `accumulate`: row-major blocks at addresses a, b, c; C is (m, n), k is summed.

    `scalars` is the array [0, 1] in the blocks' type, which gives the routine its type and its constants.
    """
    kind = 115 if scalars.itemsize == 4 else 100  # 's' or 'd'
    # A row-major matrix is the column-major matrix of its transpose: C^T = B^T A^T.
    _xxgemm(kind, trans_b, trans_a, n, m, k, address(scalars, 1), b, ldb, a, lda,
            address(scalars, 1 if accumulate else 0), c, ldc)


SCALARS = {np.dtype(t): np.array([0, 1], t) for t in (np.float32, np.float64)}

