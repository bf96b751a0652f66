"""Inverted dropout. x is (N, ...), `samples` the N integer ids of its samples, `key` is (seed, stream, epoch).

    w_se = word e of sample s's random words (`fastnet.functions.philox`), e the entry's index inside the sample
    m    = 1/(1 - p) where w >= p 2^32, else 0        (compared as 32-bit integers)
    y    = m x
    dx   = m dy

An entry's fate depends on the key, the sample and the entry alone: not on the batch, threads or implementation.

Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014, section 10
(scaling at training time).
"""

import math

from fastnet.arrays import accumulator, array_module, require_float
from fastnet.functions import philox


def _check(x, samples, p, key):
    require_float("dropout", x=x)
    array_module(samples)
    if samples.dtype.kind not in "iu":
        raise TypeError(f"dropout: samples are {samples.dtype}, but integers are needed")
    if x.ndim < 1 or samples.shape != x.shape[:1]:
        raise ValueError(f"dropout: samples have shape {samples.shape} but x is {x.shape}; one id a sample is needed")
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be in [0, 1) but is {p}")
    if len(key) != 3 or not (0 <= key[0] < 2**64 and 0 <= key[1] < 2**32 and 0 <= key[2] < 2**32):
        raise ValueError(f"dropout: key must be (seed, stream, epoch) of 64, 32 and 32 bits but is {key}")


def forward(x, samples, *, p, key):
    """Return x with a fraction `p` of its entries, on average, set to 0 and the others scaled by 1/(1-p)."""
    _check(x, samples, p, key)
    return _masked(x, samples, p, key), (samples, p, key)  # the mask is a function of these: nothing large is kept


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return None, None
    return _masked(dy, *cache), None


def _masked(x, samples, p, key):
    if x.size == 0:
        return x.copy()
    xp = array_module(x)
    seed, stream, epoch = key
    words = philox.run(samples, seed=seed, stream=stream, epoch=epoch, count=math.prod(x.shape[1:]))
    threshold = min(round(p * 2**32), 2**32 - 1)  # p just below 1 would round to 2^32
    kept = (words >= threshold).reshape(x.shape)
    precise = x.astype(accumulator(x.dtype), copy=False)
    return xp.where(kept, precise * (1 / (1 - p)), xp.zeros_like(precise)).astype(x.dtype, copy=False)
