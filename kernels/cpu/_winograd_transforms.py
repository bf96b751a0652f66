"""The transforms of Winograd's F(4x4, 3x3) (see `_winograd`): M d M^T for a square d of vectors of channels.

Transformed tiles lie as (36 points, vectors of channels, tiles, vector), `step` entries from one point to the next.
Where the entries of d and of the result lie is a table of addresses, made once for all channels of a tile. So a pixel
outside the image needs no test in the inner loops: it is read from `zeros` or written to `rest`.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastnet.kernels.cpu._gemm import address
from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._vector import BYTES, Vector, llvm_constant, llvm_fma, llvm_vector, load, splat

POINTS = 36

INPUT = ((4, 0, -5, 0, 1, 0),  # B^T
         (0, -4, -4, 1, 1, 0),
         (0, 4, -4, -1, 1, 0),
         (0, -2, -1, 2, 1, 0),
         (0, 2, -1, -2, 1, 0),
         (0, 4, 0, -5, 0, 1))
FILTER = ((1 / 4, 0, 0),  # G
          (-1 / 6, -1 / 6, -1 / 6),
          (-1 / 6, 1 / 6, -1 / 6),
          (1 / 24, 1 / 12, 1 / 6),
          (1 / 24, -1 / 12, 1 / 6),
          (0, 0, 1))
OUTPUT = ((1, 1, 1, 1, 1, 0),  # A^T
          (0, 1, -1, 2, -2, 0),
          (0, 1, 1, 4, 4, 0),
          (0, 1, -1, 8, -8, 1))


def _transposed(matrix):
    return tuple(zip(*matrix, strict=True))


def _sandwich(matrix, biased=False):
    """The function (array, sources, at, targets, to, plus) that writes M d M^T + plus to `targets`, d from `sources`.

    These are tables of addresses, to which `at` and `to` bytes are added; `array` gives the type; `plus` is a vector
    that is ignored unless `biased`.
    """
    size = len(matrix[0])

    @intrinsic
    def apply(typing, array, sources, at, targets, to, plus):
        def generate(context, builder, signature, values):
            kind = llvm_vector(array.dtype)
            _, sources_, at_, targets_, to_, plus_ = values

            def place(table, index, offset):
                data = context.make_array(types.Array(types.intp, 1, "C"))(context, builder, table).data
                found = builder.load(builder.gep(data, [ir.Constant(ir.IntType(64), index)]))
                return builder.inttoptr(builder.add(found, offset), kind.as_pointer())

            def line(coefficients, vectors):
                """The sum of both halves, which rows of opposite sign in one of them share as common subexpressions."""
                halves = [_combined(builder, kind, coefficients[h::2], vectors[h::2]) for h in (0, 1)]
                (even, even_sign), (odd, odd_sign) = halves
                if odd is None:
                    return _signed(builder, even, even_sign)
                if even is None:
                    return _signed(builder, odd, odd_sign)
                if even_sign < 0:
                    return (builder.fsub(odd, even) if odd_sign > 0
                            else builder.fneg(builder.fadd(even, odd)))
                return builder.fadd(even, odd) if odd_sign > 0 else builder.fsub(even, odd)

            align = array.dtype.bitwidth // 8
            d = [[builder.load(place(sources_, i * size + j, at_), align=align) for j in range(size)]
                 for i in range(size)]
            across = [[line(row, d[i]) for row in matrix] for i in range(size)]  # d M^T
            for j in range(len(matrix)):
                column = [across[i][j] for i in range(size)]
                for i, row in enumerate(matrix):
                    result = line(row, column)
                    if biased:
                        result = builder.fadd(result, plus_)
                    builder.store(result, place(targets_, i * len(matrix) + j, to_), align=align)
            return context.get_dummy_value()

        return types.void(array, sources, types.intp, targets, types.intp, Vector(array.dtype)), generate

    return apply


def _combined(builder, kind, coefficients, vectors):
    """(sum of coefficient times vector, sign) with the first coefficient made positive; (None, 1) for all zeros."""
    total, sign = None, 1
    for coefficient, vector in zip(coefficients, vectors, strict=True):
        if coefficient == 0:
            continue
        if total is None:
            sign = 1 if coefficient > 0 else -1
            total = vector if abs(coefficient) == 1 else builder.fmul(vector, llvm_constant(kind, abs(coefficient)))
        elif abs(coefficient) == 1:
            total = builder.fadd(total, vector) if coefficient * sign > 0 else builder.fsub(total, vector)
        else:
            total = llvm_fma(builder, vector, llvm_constant(kind, coefficient * sign), total)
    return total, sign


def _signed(builder, vector, sign):
    return vector if sign > 0 else builder.fneg(vector)


_input = _sandwich(INPUT)
_output = _sandwich(OUTPUT, biased=True)
_output_gradient = _sandwich(_transposed(OUTPUT))
transform_filter = _sandwich(FILTER)
transform_filter_gradient = _sandwich(_transposed(FILTER))


@kernel()
def _pixels(x, image, top, left, size, outside, table):
    """Fill `table` with the addresses of size x size pixels of an image; those outside it lie at `outside`."""
    height, width, channels = x.shape[1:]
    for i in range(size):
        for j in range(size):
            row, column = top + i, left + j
            inside = 0 <= row < height and 0 <= column < width
            table[i * size + j] = (address(x, ((image * height + row) * width + column) * channels) if inside
                                   else address(outside, 0))


@kernel()
def table(v, start, step, places):
    """Fill `places` with the addresses of `start`, `start` + `step`, ..., counted in entries of v."""
    for i in range(places.size):
        places[i] = address(v, start + i * step)


@kernel()
def inputs(x, out_h, out_w, pad_h, pad_w, first, count, v, start, tiles, step):
    """v[:, :, t] = B^T d B for the 6x6 pixels d that tile `first` + t sees; v, from `start` on, has `tiles` tiles."""
    channels = x.shape[3]
    down, across = (out_h + 3) // 4, (out_w + 3) // 4
    sources, targets = np.empty(POINTS, np.intp), np.empty(POINTS, np.intp)
    zeros, nothing = np.zeros(channels, x.dtype), splat(x.dtype.type(0))
    for t in range(count):
        image, tile = divmod(first + t, down * across)
        _pixels(x, image, 4 * (tile // across) - pad_h, 4 * (tile % across) - pad_w, 6, zeros, sources)
        table(v, start + t * BYTES // x.itemsize, step, targets)
        for at in range(0, channels * x.itemsize, BYTES):
            _input(x, sources, at, targets, at * tiles, nothing)


@kernel()
def outputs(m, start, tiles, step, bias, first, count, y):
    """y = A^T m[:, :, t] A + bias at the 4x4 pixels of tile `first` + t; m, from `start` on, has `tiles` tiles."""
    height, width, features = y.shape[1:]
    down, across = (height + 3) // 4, (width + 3) // 4
    sources, targets = np.empty(POINTS, np.intp), np.empty(16, np.intp)
    rest = np.empty(features, y.dtype)
    for t in range(count):
        image, tile = divmod(first + t, down * across)
        table(m, start + t * BYTES // y.itemsize, step, sources)
        _pixels(y, image, 4 * (tile // across), 4 * (tile % across), 4, rest, targets)
        for to in range(0, features * y.itemsize, BYTES):
            _output(y, sources, to * tiles, targets, to, load(bias, to // y.itemsize))


@kernel()
def output_gradients(dy, first, count, s, start, tiles, step):
    """s[:, :, t] = A dy A^T for the 4x4 pixels of tile `first` + t; s, from `start` on, has `tiles` tiles."""
    height, width, features = dy.shape[1:]
    down, across = (height + 3) // 4, (width + 3) // 4
    sources, targets = np.empty(16, np.intp), np.empty(POINTS, np.intp)
    zeros, nothing = np.zeros(features, dy.dtype), splat(dy.dtype.type(0))
    for t in range(count):
        image, tile = divmod(first + t, down * across)
        _pixels(dy, image, 4 * (tile // across), 4 * (tile % across), 4, zeros, sources)
        table(s, start + t * BYTES // dy.itemsize, step, targets)
        for at in range(0, features * dy.itemsize, BYTES):
            _output_gradient(dy, sources, at, targets, at * tiles, nothing)
