"""Inverted dropout as in `fastnet.ops.dropout`. The random words are made where they are used, four at a time.

Sample ids are taken as the 32-bit words that Philox's counter holds.
"""

from fastnet.arrays import Deferred
from fastnet.functions.philox import split_key
from fastnet.kernels.cuda._arrays import contiguous, empty, number, on_device, supported
from fastnet.kernels.cuda._launch import Kernel

_MASK = Kernel("dropout", "dropout_mask")


def supports(x, samples, *, p, key):
    return (supported(x) and on_device(samples) and x.ndim >= 1 and x.size > 0 and samples.dtype.kind in "iu"
            and samples.shape == x.shape[:1] and 0 <= p < 1 and len(key) == 3
            and 0 <= key[0] < 2**64 and 0 <= key[1] < 2**32
            and (isinstance(key[2], Deferred) or 0 <= key[2] < 2**32))


def forward(x, samples, *, p, key):
    cache = (contiguous(samples.astype("int64", copy=False)), p, key)
    return _masked(x, *cache), cache


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return None, None
    return _masked(dy, *cache), None


def _masked(x, samples, p, key):
    seed, stream, epoch = key
    n, count = len(x), x.size // len(x)
    y = empty(x)
    threshold = min(round(p * 2**32), 2**32 - 1)
    _MASK(_MASK.grid_for(n * -(-count // 4)), contiguous(x), samples, y, n, count, threshold, 1 / (1 - p),
          *number(epoch), stream, *split_key(seed))
    return y
