"""The matrices of Winograd's F(4x4, 3x3) and F(4x4, 2x2) (see `_winograd`), and M d M^T for squares d of vectors.

Each is known by its points a side: 6 for the first, which are 0, +-1, +-2 and infinity, 5 for the second: +-1, +-1/2
and infinity. With 0 and 2 instead, which many use, the second would round five times as much.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastnet.kernels.cpu._vector import Vector, llvm_constant, llvm_fma, llvm_vector

INPUT = {6: ((4, 0, -5, 0, 1, 0),  # B^T
             (0, -4, -4, 1, 1, 0),
             (0, 4, -4, -1, 1, 0),
             (0, -2, -1, 2, 1, 0),
             (0, 2, -1, -2, 1, 0),
             (0, 4, 0, -5, 0, 1)),
         5: ((-1 / 4, -1 / 4, 1, 1, 0),
             (1 / 4, -1 / 4, -1, 1, 0),
             (-1 / 2, -1, 1 / 2, 1, 0),
             (1 / 2, -1, -1 / 2, 1, 0),
             (1 / 4, 0, -5 / 4, 0, 1))}
FILTER = {6: ((1 / 4, 0, 0),  # G
              (-1 / 6, -1 / 6, -1 / 6),
              (-1 / 6, 1 / 6, -1 / 6),
              (1 / 24, 1 / 12, 1 / 6),
              (1 / 24, -1 / 12, 1 / 6),
              (0, 0, 1)),
          5: ((2 / 3, 2 / 3),
              (-2 / 3, 2 / 3),
              (-4 / 3, -2 / 3),
              (4 / 3, -2 / 3),
              (0, 1))}
OUTPUT = {6: ((1, 1, 1, 1, 1, 0),  # A^T
              (0, 1, -1, 2, -2, 0),
              (0, 1, 1, 4, 4, 0),
              (0, 1, -1, 8, -8, 1)),
          5: ((1, 1, 1, 1, 0),
              (1, -1, 1 / 2, -1 / 2, 0),
              (1, 1, 1 / 4, 1 / 4, 0),
              (1, -1, 1 / 8, -1 / 8, 1))}


def _transposed(matrices):
    return {side: tuple(zip(*matrix, strict=True)) for side, matrix in matrices.items()}


def _sandwich(matrices, biased=False):
    """The function (array, side, sources, at, targets, to, plus) that writes M d M^T + plus to `targets`.

    `sources`, where d is read, and `targets` are tables of addresses, to which `at` and `to` bytes are added; `array`
    gives the type, the constant `side` the matrix; `plus` is a vector that is ignored unless `biased`. The first of the
    targets is written last: it may stand where a result is not wanted.
    """
    @intrinsic(prefer_literal=True)
    def apply(typing, array, side, sources, at, targets, to, plus):
        if not isinstance(side, types.IntegerLiteral):
            return None
        matrix = matrices[side.literal_value]
        size = len(matrix[0])

        def generate(context, builder, signature, values):
            kind = llvm_vector(array.dtype)
            _, _, sources_, at_, targets_, to_, plus_ = values

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
            for j in reversed(range(len(matrix))):
                column = [across[i][j] for i in range(size)]
                for i, row in reversed(list(enumerate(matrix))):
                    result = line(row, column)
                    if biased:
                        result = builder.fadd(result, plus_)
                    builder.store(result, place(targets_, i * len(matrix) + j, to_), align=align)
            return context.get_dummy_value()

        return types.void(array, side, sources, types.intp, targets, types.intp, Vector(array.dtype)), generate

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


transform_input = _sandwich(INPUT)
transform_output = _sandwich(OUTPUT, biased=True)
transform_output_gradient = _sandwich(_transposed(OUTPUT))
transform_filter = _sandwich(FILTER)
transform_filter_gradient = _sandwich(_transposed(FILTER))
