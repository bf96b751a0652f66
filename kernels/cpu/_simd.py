"""Register tiles: the inner loops of convolutions and matrix products, which LLVM does not find by itself.

A tile is `rows` x `vectors` vectors of 64 bytes, held in registers through a loop that the caller writes:

    tile = tile_zeros(6, 2, a)
    for k in range(depth):
        tile = tile_add_products(tile, a, k * a_step, 1, b, k * b_step, b_vector)
    tile_store(tile, c, 0, c_row, c_vector)

computes c[r, v] = sum_k a[k, r] b[k, v], where a[k, r] is one number and b[k, v] a vector. Every place is a number of
entries from the start of a contiguous array, taken as if it were flat; nothing checks that it lies inside. `rows` and
`vectors` have to be constants. A tile of `MOST_VECTORS` leaves registers for the factors; from eight on, the products
hide each other's latency.

Products are added with `fma`, rounded once, in the order of the caller's loop. So a result does not depend on the shape
of the tile, nor on the length of the processor's vectors, into which LLVM splits those of 64 bytes.
"""

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import PrimitiveModel, register_default
from numba.extending import intrinsic

from fastnet.kernels.cpu._vector import BYTES, llvm_fma, llvm_repeated, llvm_vector

AVX512 = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))  # 32 registers of 64 bytes; otherwise 16 of 32
MOST_VECTORS = 24 if AVX512 else 6


class Tile(types.Type):
    """The type of a tile of numbers of `dtype`."""

    def __init__(self, dtype, rows, vectors):
        self.dtype, self.rows, self.vectors = dtype, rows, vectors
        super().__init__(f"Tile({dtype}, {rows} x {vectors})")


@register_default(Tile)
class _TileModel(PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.ArrayType(ir.ArrayType(llvm_vector(kind.dtype), kind.vectors), kind.rows))


class _Access:
    """Code that reads and writes an array at places counted in entries."""

    def __init__(self, context, builder, array, value):
        self._builder, self._size = builder, array.dtype.bitwidth // 8
        self._data = cgutils.create_struct_proxy(array)(context, builder, value).data
        self._pointer = llvm_vector(array.dtype).as_pointer()

    def place(self, start, steps=()):
        for stride, count in steps:
            start = self._builder.add(start, self._builder.mul(stride, stride.type(count)))
        return self._builder.gep(self._data, [start])

    def number(self, start, *steps):
        return self._builder.load(self.place(start, steps))

    def vector(self, start, *steps):
        return self._builder.load(self._builder.bitcast(self.place(start, steps), self._pointer), align=self._size)

    def write(self, vector, start, *steps):
        place = self._builder.bitcast(self.place(start, steps), self._pointer)
        self._builder.store(vector, place, align=self._size)


def _is_flat(*arrays):
    return all(isinstance(array, types.Array) and array.layout == "C" for array in arrays)


@intrinsic(prefer_literal=True)
def tile_zeros(typing, rows, vectors, like):
    """A tile of zeros of the array's type."""
    if not isinstance(rows, types.IntegerLiteral) or not isinstance(vectors, types.IntegerLiteral):
        return None
    tile = Tile(like.dtype, rows.literal_value, vectors.literal_value)
    return tile(rows, vectors, like), lambda context, builder, signature, values: ir.Constant(
        context.get_value_type(tile), None)


@intrinsic
def tile_add_products(typing, tile, a, a_start, a_row, b, b_start, b_vector):
    """tile[r, v] + a[a_start + r a_row] * (the vector of b at b_start + v b_vector)."""
    if not isinstance(tile, Tile) or not _is_flat(a, b):
        return None

    def generate(context, builder, signature, values):
        result, a_values, a_start, a_row, b_values, b_start, b_vector = values
        numbers, vectors = _Access(context, builder, a, a_values), _Access(context, builder, b, b_values)
        lanes = llvm_vector(tile.dtype).count
        factors = [vectors.vector(b_start, (b_vector, v)) for v in range(tile.vectors)]
        for r in range(tile.rows):
            number = llvm_repeated(builder, numbers.number(a_start, (a_row, r)), lanes)
            for v, factor in enumerate(factors):
                total = llvm_fma(builder, number, factor, builder.extract_value(result, [r, v]))
                result = builder.insert_value(result, total, [r, v])
        return result

    return tile(tile, a, types.intp, types.intp, b, types.intp, types.intp), generate


@intrinsic
def tile_add_dots(typing, tile, a, a_start, a_row, b, b_start, b_row):
    """tile[r, v] + (the vector of a at a_start + r a_row) * (the vector of b at b_start + v b_row), entry by entry."""
    if not isinstance(tile, Tile) or not _is_flat(a, b):
        return None

    def generate(context, builder, signature, values):
        result, a_values, a_start, a_row, b_values, b_start, b_row = values
        ours, theirs = _Access(context, builder, a, a_values), _Access(context, builder, b, b_values)
        factors = [theirs.vector(b_start, (b_row, v)) for v in range(tile.vectors)]
        for r in range(tile.rows):
            vector = ours.vector(a_start, (a_row, r))
            for v, factor in enumerate(factors):
                total = llvm_fma(builder, vector, factor, builder.extract_value(result, [r, v]))
                result = builder.insert_value(result, total, [r, v])
        return result

    return tile(tile, a, types.intp, types.intp, b, types.intp, types.intp), generate


def _shuffle(builder, a, b, places):
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places))


@intrinsic
def tile_store(typing, tile, c, start, row, vector):
    """Write tile[r, v] to c at start + r row + v vector."""
    return _writer(tile, c, False)


@intrinsic
def tile_add_to(typing, tile, c, start, row, vector):
    """Add tile[r, v] to what c holds at start + r row + v vector."""
    return _writer(tile, c, True)


def _writer(tile, c, add):
    if not isinstance(tile, Tile) or not _is_flat(c):
        return None

    def generate(context, builder, signature, values):
        given, c_values, start, row, vector = values
        target = _Access(context, builder, c, c_values)
        for r in range(tile.rows):
            for v in range(tile.vectors):
                steps = (row, r), (vector, v)
                entry = builder.extract_value(given, [r, v])
                target.write(builder.fadd(target.vector(start, *steps), entry) if add else entry, start, *steps)
        return context.get_dummy_value()

    return types.void(tile, c, types.intp, types.intp, types.intp), generate


@intrinsic
def transpose_block(typing, a, a_start, a_row, b, b_start, b_row):
    """b[b_start + j b_row + i] = a[a_start + i a_row + j] for i, j below the entries of a vector."""
    if not _is_flat(a, b):
        return None

    def generate(context, builder, signature, values):
        a_values, a_start, a_row, b_values, b_start, b_row = values
        source, target = _Access(context, builder, a, a_values), _Access(context, builder, b, b_values)
        lanes = range(BYTES * 8 // a.dtype.bitwidth)
        rows = [source.vector(a_start, (a_row, r)) for r in lanes]
        # Each step swaps the off-diagonal halves of all blocks of 2 `half` rows and columns.
        half = 1
        while half < len(lanes):
            for r in lanes:
                if not r & half:
                    upper, lower = rows[r], rows[r + half]
                    rows[r] = _shuffle(builder, upper, lower,
                                       [k + len(lanes) - half if k & half else k for k in lanes])
                    rows[r + half] = _shuffle(builder, upper, lower,
                                              [k + len(lanes) if k & half else k + half for k in lanes])
            half *= 2
        for r, row in enumerate(rows):
            target.write(row, b_start, (b_row, r))
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, b, types.intp, types.intp), generate


@intrinsic
def copy_entries(typing, a, a_start, b, b_start, count):
    """b[b_start + k] = a[a_start + k] for k below count."""
    if not _is_flat(a, b):
        return None

    def generate(context, builder, signature, values):
        a_values, a_start, b_values, b_start, count = values
        source, target = _Access(context, builder, a, a_values), _Access(context, builder, b, b_values)
        cgutils.raw_memcpy(builder, target.place(b_start), source.place(a_start), count, a.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(a, types.intp, b, types.intp, types.intp), generate


@intrinsic
def zero_entries(typing, a, start, count):
    """a[start + k] = 0 for k below count."""
    if not _is_flat(a):
        return None

    def generate(context, builder, signature, values):
        a_values, start, count = values
        bytes_each = ir.Constant(count.type, a.dtype.bitwidth // 8)
        cgutils.memset(builder, _Access(context, builder, a, a_values).place(start), builder.mul(count, bytes_each), 0)
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp), generate


@intrinsic
def prefetch(typing, a, start):
    """Have the second-level cache fetch the line of entry `start`, which need not lie inside the array."""
    if not _is_flat(a):
        return None

    def generate(context, builder, signature, values):
        integer = ir.IntType(32)
        place = builder.bitcast(_Access(context, builder, a, values[0]).place(values[1]), cgutils.voidptr_t)
        kind = ir.FunctionType(ir.VoidType(), [place.type, *[integer] * 3])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [place, *map(integer, (0, 2, 1))])  # to read, second-level cache, data
        return context.get_dummy_value()

    return types.void(a, types.intp), generate
