"""Pairwise covering sets of convolutions: every two values of two settings meet in some case, if they can.

All settings together are some fifty thousand calls; nearly all mistakes show where two settings meet (Kuhn, Wallace &
Gallo, "Software fault interactions and implications for software testing", 2004). The sets are found greedily.
Winograd's algorithm, for which five settings have to be right at once, has a set of its own, and so have small maps
and few places.
"""

import functools
import itertools

import numpy as np

from fastnet.check.cases import Case
from fastnet.ops.conv2d import ALGORITHMS

CONV2D = {
    "kernel": (1, 2, 3, 5), "stride": (1, 2, 3), "pad": (0, 1, 2), "dilation": (1, 2), "groups": (1, 2, "C"),
    "channels": (1, 3, 6, 16, 17, 48), "size": (3, 4, 7, 8, 16, 37), "batch": (1, 3), "conv_algorithm": ALGORITHMS,
}
SETS = (CONV2D, {**CONV2D, "kernel": (3,), "stride": (1, 2), "dilation": (1,), "groups": (1,),
                 "conv_algorithm": ("winograd",)},
        {**CONV2D, "kernel": (3, 5), "pad": (1, 2), "dilation": (1,), "groups": (1,), "channels": (16, 17),
         "size": (1, 2), "batch": (16,), "conv_algorithm": ("auto", "direct")},
        {**CONV2D, "kernel": (1, 3), "pad": (0, 1), "groups": (1,), "channels": (16, 17, 48), "size": (3, 4, 7),
         "batch": (1,), "conv_algorithm": ("auto", "direct")})
WORK = 3e8  # multiply-adds spent on one argument: large cases have fewer entries differentiated


def fits(kernel, stride, pad, dilation, groups, channels, size, batch, conv_algorithm):
    """Whether there is such a convolution."""
    divides = channels > 1 if groups == "C" else channels % groups == 0
    return divides and dilation * (kernel - 1) + 1 <= size + 2 * pad


@functools.cache
def pairwise(number: int) -> list[tuple]:
    """Rows of settings of that of `SETS` in which every pair that fits any row occurs."""
    settings = SETS[number]
    rows = [row for row in itertools.product(*settings.values()) if fits(*row)]
    np.random.default_rng(0).shuffle(rows)  # the first of equally good rows is taken: not the smallest of each
    numbers = np.array([[values.index(v) for values, v in zip(settings.values(), row, strict=True)] for row in rows])
    most = 1 + numbers.max()
    pairs = np.stack([((i * len(settings) + j) * most + numbers[:, i]) * most + numbers[:, j]
                      for i, j in itertools.combinations(range(len(settings)), 2)], axis=1)
    missing = np.zeros(pairs.max() + 1, bool)
    missing[pairs] = True
    chosen = []
    while missing.any():
        best = int(missing[pairs].sum(axis=1).argmax())
        missing[pairs[best]] = False
        chosen.append(rows[best])
    return chosen


def covering_cases(op: str, seed: int = 0) -> list[Case]:
    """The covering sets of an op, empty for those that have none: only convolution has so many settings."""
    if op != "conv2d":
        return []
    rng = np.random.default_rng(seed)
    return [_conv2d(rng, *row) for number in range(len(SETS)) for row in pairwise(number)]


def _conv2d(rng, kernel, stride, pad, dilation, groups, channels, size, batch, conv_algorithm):
    count = channels if groups == "C" else groups
    outputs = count * int(rng.integers(1, 3)) if count > 2 else count * int(rng.choice([1, 3, 8, 16, 17]))
    width = max(size + int(rng.integers(-1, 2)), dilation * (kernel - 1) + 1 - 2 * pad, 1)
    x = rng.standard_normal((batch, size, width, channels))
    w = rng.standard_normal((kernel, kernel, channels // count, outputs))
    b = rng.standard_normal(outputs) if rng.random() < 0.7 else None
    options = {"stride": stride, "pad": pad, "dilation": dilation, "groups": count, "conv_algorithm": conv_algorithm}
    work = x.size / channels * w.size / stride**2
    label = (f"{batch}x{size}x{width}x{channels} {kernel}x{kernel} "
             + " ".join(f"{k}={v}" for k, v in options.items() if v not in (0, "auto") and (v != 1 or k == "pad")))
    return Case("conv2d", label.strip(), (x, w, b), options, int(np.clip(WORK / 5 / work, 4, 60)))
