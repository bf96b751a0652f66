"""What the elementwise kernels share: their source takes vectors, a result and a size (`elementwise.cuh`)."""

from fastnet.kernels.cuda._arrays import contiguous, empty, supported

PACK = 16  # bytes that a thread handles at a time


def supports(x):
    return supported(x) and x.size > 0


def apply(kernel, *arrays, options=()):
    """Run `kernel(*arrays, y, size, *options)`; return y, of the first array's shape and type."""
    x = arrays[0]
    y = empty(x)
    kernel(kernel.grid_for(x.size, each=PACK // x.dtype.itemsize), *map(contiguous, arrays), y, x.size, *options)
    return y
