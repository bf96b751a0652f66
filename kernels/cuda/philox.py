"""Random words as in `fastnet.functions.philox`. Sample ids are taken as the 32-bit words that the counter holds."""

from fastnet.functions.philox import split_key
from fastnet.kernels.cuda._arrays import contiguous, empty, on_device
from fastnet.kernels.cuda._launch import Kernel

_WORDS = Kernel("philox", "philox_words")


def supports(samples, *, seed, stream, epoch=0, count):
    return (on_device(samples) and samples.ndim == 1 and samples.dtype.kind in "iu" and samples.size > 0 and count > 0
            and 0 <= seed < 2**64 and 0 <= stream < 2**32 and 0 <= epoch < 2**32)


def run(samples, *, seed, stream, epoch=0, count):
    n = len(samples)
    words = empty(samples, (n, count), "uint32")
    _WORDS(_WORDS.grid_for(n * -(-count // 4)), contiguous(samples.astype("int64", copy=False)), words, n, count, epoch,
           stream, *split_key(seed))
    return words
