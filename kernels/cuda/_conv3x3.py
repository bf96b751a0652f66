"""3x3 convolutions of 16-bit numbers with stride 1 and padding 1 on tensor cores (conv3x3.cu, conv3x3_dw.cu)."""

from fastnet.arrays import accumulator
from fastnet.kernels.cuda._arrays import aligned, empty
from fastnet.kernels.cuda._batch_norm import Sums
from fastnet.kernels.cuda._conv_taps import weights
from fastnet.kernels.cuda._launch import Kernel, blocks, storage
from fastnet.kernels.cuda._parts import UNIT, in_parts

__all__ = ["dw", "dx", "dx_between", "forward", "forward_between", "pooled", "pools", "takes", "weights"]

DEEP, STAGES = 64, 3  # channels of a row in shared memory; weights there, in taps
ROW = 2 * DEEP  # bytes
MOST_SHARED = 99 << 10  # bytes that a block may have on every card that has the instructions
WIDEST = 64  # an image of this width still leaves room for the smallest tile
# Pixels and outputs of a tile, the best first. One is taken if there are so many of them that each multiprocessor of a
# large card has two, the last one anyway.
SIZES, ENOUGH = ((128, 128), (256, 64), (128, 64)), 256
DW_BLOCKS = 128  # about; a multiprocessor has one

_FORWARD, _POOLED, _DX = ({size: Kernel("conv3x3", f"conv3x3_{name}_{size[0]}x{size[1]}") for size in SIZES}
                          for name in ("forward", "pooled", "dx"))
_DW = Kernel("conv3x3_dw", "conv3x3_dw")


def takes(x, g):
    """Whether these kernels convolve x; g are the numbers from `images` on, as in conv2d.cu."""
    _, _, width, channels, _, _, outputs, *rest = g
    return (storage(x.dtype) in ("half", "bf16") and rest == [3, 3, 1, 1, 1, 1, 1, 1, 1] and channels % DEEP == 0
            and outputs % DEEP == 0 and width <= WIDEST)


def forward(x, w, b, g):
    return _forward(x, w, b, None, None, False)[0]


def forward_between(x, w, found=None, beta=None):
    """The convolution of max(0, batch normalisation of x), without `found` and `beta` of x; and its sums for the next.

    `found` is what `_batch_norm.measured` returns.
    """
    return _forward(x, w, None, found, beta, True)


def _forward(x, w, b, found, beta, summed):
    x, y = aligned(x), empty(x, (*x.shape[:3], w.shape[3]))
    size, grid, numbers, shared = _plan(x, y)
    sums = _sums(y, size) if summed else None
    _FORWARD[size](grid, x, w, b, y, found, beta, sums and sums.part, *numbers, shared=shared)
    return y, sums


def pools(g, pool):
    """Whether `pooled` takes these windows: 2x2 side by side, and a warp's pixels are whole pairs of lines."""
    _, height, width, *_ = g
    return pool[4:10] == (2, 2, 2, 2, 0, 0) and height % 2 == width % 2 == 0 and 32 % width == 0


def pooled(x, w, b, g, pool):
    """(y, winners) of the convolution with ReLU and the pooling behind it, as `max_pool2d.largest` gives them."""
    x, y = aligned(x), empty(x, pool.out_shape)
    winners = empty(x, y.shape, "uint8")
    size, grid, numbers, shared = _plan(x, y)
    _POOLED[size](grid, x, w, b, y, winners, *numbers, shared=shared)
    return y, winners


def dx(dy, w, g, beside=None):
    """With `beside`, which has the shape of dx, added to it."""
    return _dx(dy, w, beside, None, None, False)[0]


def dx_between(dy, w, x, found, beta):
    """The gradient, as far as it passes ReLU, of batch normalisation of x with `found` and `beta`; and its sums."""
    return _dx(dy, w, x, found, beta, True)


def _dx(dy, w, beside, found, beta, summed):
    dy, out = aligned(dy), empty(dy, (*dy.shape[:3], w.shape[2]))
    size, grid, numbers, shared = _plan(dy, out)
    sums = _sums(out, size) if summed else None
    beside = beside if beside is None else aligned(beside)
    _DX[size](grid, dy, w, out, beside, found, beta, sums and sums.part, *numbers, shared=shared)
    return out, sums


def dw(x, dy, into, g, found=None, beta=None):
    """With `found` and `beta` that of a convolution of max(0, batch normalisation of x)."""
    x, dy, (channels, outputs) = aligned(x), aligned(dy), into.shape[2:]
    pixels, *size = _numbers(x)
    seen = UNIT + 2 * x.shape[2] + 2
    shared = ROW + 2 * (2 * UNIT + (seen + UNIT) * ROW)  # zeros; and twice which taps count, x and dy
    return in_parts(lambda grid, parts, chunk: _DW(grid, x, dy, found, beta, parts, chunk, pixels, *size, outputs,
                                                   shared=shared),
                    x, into, pixels, channels // DEEP * (outputs // DEEP), DW_BLOCKS)


def _numbers(x):
    images, height, width, channels = x.shape
    return images * height * width, height, width, channels


def _sums(y, size):
    """Where the sums of y over tiles of that size go."""
    pixels, _, _, channels = _numbers(y)
    return Sums(empty(y, (2, channels, -(-pixels // size[0])), accumulator(y.dtype)), size[0])


def _plan(x, y):
    """The size of tile for a convolution from x to y; the grid, last arguments and shared memory of its launch."""
    pixels, height, width, depth = _numbers(x)
    breadth = y.shape[3]
    for size in SIZES:
        tiles = -(-pixels // size[0]) * (breadth // size[1])
        shared = _shared(size, width, depth)
        if size == SIZES[-1] or (breadth % size[1] == 0 and tiles >= ENOUGH and shared <= MOST_SHARED):
            break
    return size, blocks(tiles), (pixels, height, width, depth, breadth), shared


def _shared(size, width, depth):
    """Bytes of shared memory: zeros, weights of the taps under way, the pixels of 64 channels or of twice as many."""
    pixels, outputs = size
    return ROW + STAGES * DEEP * outputs * 2 + min(depth // DEEP, 2) * (pixels + 2 * width + 2) * ROW
