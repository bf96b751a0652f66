"""Vectors along the channels of an image, of which the last may be short, and what pooling does with them.

The channels of one place are walked `lanes` at a time, `count` of them in the last step: masks, which cost nothing on
processors that have them, make LeNet's 6 channels a vector like any other, without a second loop for the rest.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import PrimitiveModel, register_default
from numba.extending import intrinsic

from fastnet.kernels.cpu._vector import Vector, llvm_fma, llvm_repeated, llvm_vector

_I32 = ir.IntType(32)


class Numbers(types.Type):
    """The type of a vector of whole numbers, as many as a `Vector` of floats has entries."""

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(f"Numbers({lanes})")


@register_default(Numbers)
class _NumbersModel(PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(_I32, kind.lanes))


def _lanes(vector):
    return llvm_vector(vector.dtype).count


def _first(builder, count, lanes):
    """The mask of the first `count` entries."""
    order = ir.Constant(ir.VectorType(_I32, lanes), list(range(lanes)))
    return builder.icmp_signed("<", order, llvm_repeated(builder, builder.trunc(count, _I32), lanes))


def _place(context, builder, kind, array, offset, entry, lanes):
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), ir.VectorType(entry, lanes).as_pointer())


def _masked(builder, name, result, entry, lanes, arguments):
    kind = ir.FunctionType(result, [a.type for a in arguments])
    letter = "i" if isinstance(entry, ir.IntType) else "f"
    bits = {ir.FloatType(): 32, ir.DoubleType(): 64}.get(entry) or entry.width
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.{name}.v{lanes}{letter}{bits}.p0")
    return builder.call(function, arguments)


def _load(context, builder, kind, array, offset, count, lanes):
    entry = context.get_data_type(kind.dtype)
    place = _place(context, builder, kind, array, offset, entry, lanes)
    result = ir.VectorType(entry, lanes)
    return _masked(builder, "load", result, entry, lanes, [
        place, _I32(entry_bytes(kind)), _first(builder, count, lanes), ir.Constant(result, None)])


def _store(context, builder, kind, array, offset, vector, count, lanes):
    entry = context.get_data_type(kind.dtype)
    place = _place(context, builder, kind, array, offset, entry, lanes)
    _masked(builder, "store", ir.VoidType(), entry, lanes, [
        vector, place, _I32(entry_bytes(kind)), _first(builder, count, lanes)])
    return context.get_dummy_value()


def entry_bytes(kind):
    return kind.dtype.bitwidth // 8


def _flat(array):
    return isinstance(array, types.Array) and array.layout == "C"


@intrinsic
def load_part(typing, array, offset, count):
    """The `count` entries from entry `offset` of a contiguous array on, counted as if it were flat; then zeros."""
    if not _flat(array):
        return None
    vector = Vector(array.dtype)

    def generate(context, builder, signature, values):
        return _load(context, builder, array, *values, _lanes(vector))

    return vector(array, types.intp, types.intp), generate


@intrinsic
def store_part(typing, array, offset, vector, count):
    """Write the first `count` entries of a vector to where `load_part` would read them."""
    if not _flat(array) or vector != Vector(array.dtype):
        return None

    def generate(context, builder, signature, values):
        return _store(context, builder, array, *values, _lanes(vector))

    return types.void(array, types.intp, vector, types.intp), generate


@intrinsic
def store(typing, array, offset, vector):
    """Write a whole vector: unlike one written in part, it can be read again before it has reached the cache."""
    if not _flat(array) or vector != Vector(array.dtype):
        return None

    def generate(context, builder, signature, values):
        entry = context.get_data_type(array.dtype)
        builder.store(values[2], _place(context, builder, array, *values[:2], entry, _lanes(vector)),
                      align=entry_bytes(array))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def opaque(typing, number):
    """The same whole number, of which the compiler does not know where it comes from.

    For the counter of a loop, and for the offset from which others in it follow. LLVM would unroll the loop, which is
    short, and make each of these offsets a counter of its own, kept in memory: the depthwise kernels took two to three
    times as long.
    """
    def generate(context, builder, signature, values):
        kind = ir.FunctionType(values[0].type, [values[0].type])
        return builder.call(ir.InlineAsm(kind, "", "=r,0"), values)

    return types.intp(types.intp), generate


@intrinsic
def fma(typing, a, b, c):
    """a b + c, rounded once."""
    def generate(context, builder, signature, values):
        return llvm_fma(builder, *values)

    return a(a, a, a), generate


def _entrywise(method):
    @intrinsic
    def apply(typing, a, b):
        def generate(context, builder, signature, values):
            return getattr(builder, method)(*values)

        return a(a, a), generate

    return apply


add, subtract, multiply = _entrywise("fadd"), _entrywise("fsub"), _entrywise("fmul")


@intrinsic
def positive(typing, vector):
    """The entries above zero and NaN as they are, else zero."""
    def generate(context, builder, signature, values):
        zero = ir.Constant(values[0].type, None)
        # Not the maximum, which would drop NaN.
        return builder.select(builder.fcmp_ordered("<=", values[0], zero), zero, values[0])

    return vector(vector), generate


@intrinsic
def where_positive(typing, y, vector):
    """The vector's entries where those of y are above zero, else zero."""
    def generate(context, builder, signature, values):
        zero = ir.Constant(values[1].type, None)
        return builder.select(builder.fcmp_ordered(">", values[0], zero), values[1], zero)

    return vector(y, vector), generate


@intrinsic
def load_numbers(typing, array, offset, count, like):
    """As `load_part`, from an array of small whole numbers, as many as the vector `like` has entries."""
    if not _flat(array) or not isinstance(like, Vector):
        return None

    def generate(context, builder, signature, values):
        stored, offset, count, _ = values
        lanes = _lanes(like)
        entry = context.get_data_type(array.dtype)
        found = cgutils.alloca_once(builder, ir.VectorType(entry, lanes))
        # Masks for bytes are AVX-512's: without it a short vector is read byte by byte, so a whole one goes without.
        with builder.if_else(_whole(builder, count, lanes)) as (then, otherwise):
            with then:
                place = _place(context, builder, array, stored, offset, entry, lanes)
                builder.store(builder.load(place, align=entry_bytes(array)), found)
            with otherwise:
                builder.store(_load(context, builder, array, stored, offset, count, lanes), found)
        numbers, wide = builder.load(found), ir.VectorType(_I32, lanes)
        return numbers if numbers.type == wide else builder.zext(numbers, wide)

    return Numbers(_lanes(like))(array, types.intp, types.intp, like), generate


@intrinsic
def store_numbers(typing, array, offset, numbers, count):
    """As `store_part`, to where `load_numbers` would read them."""
    if not _flat(array) or not isinstance(numbers, Numbers):
        return None

    def generate(context, builder, signature, values):
        stored, offset, vector, count = values
        entry = context.get_data_type(array.dtype)
        kind = ir.VectorType(entry, numbers.lanes)
        narrow = vector if vector.type == kind else builder.trunc(vector, kind)
        with builder.if_else(_whole(builder, count, numbers.lanes)) as (then, otherwise):
            with then:
                place = _place(context, builder, array, stored, offset, entry, numbers.lanes)
                builder.store(narrow, place, align=entry_bytes(array))
            with otherwise:
                _store(context, builder, array, stored, offset, narrow, count, numbers.lanes)
        return context.get_dummy_value()

    return types.void(array, types.intp, numbers, types.intp), generate


def _whole(builder, count, lanes):
    return builder.icmp_signed(">=", count, ir.Constant(count.type, lanes))


@intrinsic(prefer_literal=True)
def numbers_at(typing, pointer, window_h, window_w):
    """A block kernel's pointer as one to winners: bytes, or int32 for (0, 4) in place of a window's size."""
    if not isinstance(window_h, types.IntegerLiteral) or not isinstance(window_w, types.IntegerLiteral):
        return None
    large = (window_h.literal_value, window_w.literal_value) == (0, 4)
    kind = types.CPointer(types.int32 if large else types.uint8)
    return kind(pointer, window_h, window_w), lambda context, builder, signature, values: builder.bitcast(
        values[0], context.get_value_type(kind))


@intrinsic
def numbered(typing, number, like):
    """`number` as many times as the vector `like` has entries."""
    def generate(context, builder, signature, values):
        return llvm_repeated(builder, builder.trunc(values[0], _I32), _lanes(like))

    return Numbers(_lanes(like))(types.intp, like), generate


def _beats(builder, patch, best):
    """Where patch is larger, or the first NaN."""
    # "Not less or equal" is true of a NaN too. Two comparisons: masks are dear where they are no registers (AVX2).
    return builder.and_(builder.fcmp_unordered(">", patch, best), builder.fcmp_ordered("ord", best, best))


@intrinsic
def larger(typing, patch, best):
    """Entry by entry the larger of the two, `best` of equal ones; NaN if one is."""
    def generate(context, builder, signature, values):
        return builder.select(_beats(builder, *values), *values)

    return best(best, best), generate


@intrinsic
def winner(typing, patch, best, number, before):
    """`number` where `larger(patch, best)` takes patch, else `before`."""
    def generate(context, builder, signature, values):
        patch, best, number, before = values
        ours = llvm_repeated(builder, builder.trunc(number, _I32), signature.args[3].lanes)
        return builder.select(_beats(builder, patch, best), ours, before)

    return before(patch, best, types.intp, before), generate


@intrinsic
def number_where_positive(typing, vector, numbers, otherwise):
    """The entries of `numbers` where those of the vector are above zero, else the number `otherwise`."""
    def generate(context, builder, signature, values):
        vector, numbers, otherwise = values
        above = builder.fcmp_ordered(">", vector, ir.Constant(vector.type, None))
        other = llvm_repeated(builder, builder.trunc(otherwise, _I32), signature.args[1].lanes)
        return builder.select(above, numbers, other)

    return numbers(vector, numbers, types.intp), generate


@intrinsic
def where_number(typing, numbers, number, vector):
    """The vector's entries where `numbers` is `number`, else zero."""
    def generate(context, builder, signature, values):
        ours = llvm_repeated(builder, builder.trunc(values[1], _I32), numbers.lanes)
        return builder.select(builder.icmp_signed("==", values[0], ours), values[2],
                              ir.Constant(values[2].type, None))

    return vector(numbers, types.intp, vector), generate
