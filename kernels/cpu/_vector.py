"""Vectors of 64 bytes (16 float32, 8 float64) as values in compiled kernels.

For loops that LLVM does not turn into vector instructions by itself, above all those that read and write many streams:
it would have to prove that none of them overlap. LLVM splits a vector where the processor's registers are shorter. Each
entry is computed as a scalar would be, so the results do not depend on that; `fma` rounds once everywhere.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import PrimitiveModel, register_default
from numba.extending import intrinsic

BYTES = 64
LANES = {np.dtype(t): BYTES // np.dtype(t).itemsize for t in (np.float32, np.float64)}


class Vector(types.Type):
    """The type of a vector of `dtype`."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(f"Vector({dtype})")


def llvm_vector(dtype):
    """The LLVM type of a vector of a Numba type."""
    scalar = {8: ir.IntType(8), 32: ir.FloatType(), 64: ir.DoubleType()}[dtype.bitwidth]
    return ir.VectorType(scalar, BYTES * 8 // dtype.bitwidth)


def llvm_constant(kind, number):
    """A vector constant."""
    return ir.Constant(kind, [number] * kind.count)


def llvm_repeated(builder, scalar, lanes):
    """The vector with a scalar, of any type, in each of its entries."""
    kind = ir.VectorType(scalar.type, lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


def llvm_fma(builder, a, b, c):
    """a b + c, rounded once."""
    kind = a.type
    name = f"llvm.fma.v{kind.count}f{32 if isinstance(kind.element, ir.FloatType) else 64}"
    return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name),
                        [a, b, c])


@register_default(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, llvm_vector(kind.dtype))


@intrinsic
def load(typing, array, offset):
    """The vector that starts at entry `offset` of a contiguous array, counted as if it were flat."""
    if not isinstance(array, types.Array) or array.layout != "C":
        return None
    vector = Vector(array.dtype)

    def generate(context, builder, signature, values):
        data = context.make_array(array)(context, builder, values[0]).data
        place = builder.bitcast(builder.gep(data, [values[1]]), llvm_vector(array.dtype).as_pointer())
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp), generate


@intrinsic
def splat(typing, scalar):
    """The vector with `scalar` in each entry; its type is the scalar's."""
    def generate(context, builder, signature, values):
        return llvm_repeated(builder, values[0], llvm_vector(scalar).count)

    return Vector(scalar)(scalar), generate
