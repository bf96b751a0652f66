"""Counter-based random bits: Philox4x32-10.

A block of four 32-bit words is a pure function of (seed, stream, epoch, sample id, block): the seed is the
64-bit key and the other four are the counter's words (block, sample, epoch, stream). So what a sample gets does
not depend on the batch it is in, on threads, or on how often a run was restarted.

Source: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Random123); the
constants are the paper's, and the tests hold its known answers.
"""

import math

import numpy as np

from fastnet.arrays import array_module

# Streams keep uses apart that share a seed. Dropout layer number i uses DROPOUT + i.
INITIALIZATION, SHUFFLE, SPLIT, SHAPES, AUGMENT, SEARCH = range(6)
DROPOUT = 1 << 16

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def rounds(counter: tuple, key: tuple[int, int]) -> list:
    """Ten Philox rounds. `counter` is four uint64 arrays that hold 32-bit words, `key` two 32-bit integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = ((second >> _HALF) ^ c1 ^ np.uint64(k0), second & _MASK,
                          (first >> _HALF) ^ c3 ^ np.uint64(k1), first & _MASK)
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def split_key(seed: int) -> tuple[int, int]:
    """The two 32-bit words of a 64-bit seed, low word first. Raises ValueError for any other seed."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be in 0..2^64-1 but is {seed}")
    return seed & 0xFFFFFFFF, seed >> 32


def run(samples, *, seed: int, stream: int, epoch: int = 0, count: int):
    """Return (len(samples), count) uint32 random words, row by row for the sample ids given (N,)."""
    xp = array_module(samples)
    shape = (len(samples), math.ceil(count / 4))
    block = xp.broadcast_to(xp.arange(shape[1], dtype=xp.uint64)[None, :], shape)
    sample = xp.broadcast_to(samples.astype(xp.uint64)[:, None], shape)
    fixed = [xp.full(shape, value, dtype=xp.uint64) for value in (epoch, stream)]
    words = rounds((block, sample, *fixed), split_key(seed))
    return xp.stack(words, axis=-1).reshape(shape[0], 4 * shape[1])[:, :count].astype(xp.uint32)


def uniform(words):
    """float64 in [0, 1) from 32-bit words: the word over 2^32."""
    return words.astype(np.float64) * 2.0**-32


def normal(size: int, *, seed: int, stream: int, sample: int = 0) -> np.ndarray:
    """`size` standard normal float64 numbers on the host, by Box & Muller's transform (1958, equation 1)."""
    half = math.ceil(size / 2)
    u = uniform(run(np.array([sample]), seed=seed, stream=stream, count=2 * half)[0])
    radius = np.sqrt(-2 * np.log(1 - u[:half]))
    angle = 2 * np.pi * u[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
