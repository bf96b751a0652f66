"""Random words as in `fastnet.functions.philox`."""

import numpy as np
from numba import prange

from fastnet.functions.philox import split_key
from fastnet.kernels.cpu._jit import parallel_kernel
from fastnet.kernels.cpu._philox import philox

ROWS = 1024  # samples a block


def supports(samples, *, seed, stream, epoch=0, count):
    return samples.ndim == 1 and samples.dtype.kind in "iu" and 0 <= seed < 2**64


def run(samples, *, seed, stream, epoch=0, count):
    words = np.empty((len(samples), count), np.uint32)
    _fill.sized(10 * words.size)(np.ascontiguousarray(samples, np.int64), epoch, stream, *split_key(seed), words)
    return words


@parallel_kernel()
def _fill(samples, epoch, stream, key0, key1, words):
    n, count = words.shape
    for block in prange((n + ROWS - 1) // ROWS):
        for i in range(block * ROWS, min(n, (block + 1) * ROWS)):
            for j in range(0, count, 4):
                four = philox(j // 4, samples[i], epoch, stream, key0, key1)
                for k in range(min(4, count - j)):
                    words[i, j + k] = four[k]
