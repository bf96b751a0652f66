"""Rows of pixels turned around, for use inside compiled kernels."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastnet.kernels.cpu._jit import kernel

BLOCK = 16  # pixels moved at once


@kernel(inline="always")
def mirror_pixels(a, start, pixels, channels, b, to):
    """Copy a row of pixels from entry `start` of the bytes a to entry `to` of b, the last one first."""
    if pixels >= BLOCK and channels in (1, 3):
        for block in range((pixels + BLOCK - 1) // BLOCK):
            done = min(block * BLOCK, pixels - BLOCK)  # the last block goes over some pixels twice
            source, target = start + (pixels - BLOCK - done) * channels, to + done * channels
            if channels == 3:
                _mirror_block(a, source, b, target, 3)
            else:
                _mirror_block(a, source, b, target, 1)
    else:
        for j in range(pixels):
            for c in range(channels):
                b[to + j * channels + c] = a[start + (pixels - 1 - j) * channels + c]


@intrinsic(prefer_literal=True)
def _mirror_block(typing, a, start, b, to, channels):
    """`BLOCK` pixels as one shuffle of a vector, which LLVM does not find in a loop."""
    if not isinstance(channels, types.IntegerLiteral):
        return None
    deep = channels.literal_value

    def generate(context, builder, signature, values):
        count = BLOCK * deep
        vector, lane = ir.VectorType(ir.IntType(8), count), ir.IntType(32)

        def place(kind, array, entry):
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [entry]), vector.as_pointer())

        pixels = builder.load(place(a, values[0], values[1]), align=1)
        order = [(BLOCK - 1 - k // deep) * deep + k % deep for k in range(count)]
        turned = builder.shuffle_vector(pixels, ir.Constant(vector, ir.Undefined),
                                        ir.Constant(ir.VectorType(lane, count), order))
        builder.store(turned, place(b, values[2], values[3]), align=1)
        return context.get_dummy_value()

    return types.void(a, types.intp, b, types.intp, channels), generate
