"""What the same bits for any number of threads cost: sums cut by the shape, beside sums cut by the threads.

    python -m fastnet.bench.determinism [--models ...] [--threads N] [--seconds S] [--json FILE]

Whole training steps in turn, A B A B, of two forms of the same kernels:

    fixed   the library as it is: gradients and batch statistics are sums over blocks that the shape alone decides
    free    as many blocks as threads, each as large as can be: the least work, and other bits with another number

The form differs for biases' gradients, batch norm's sums both ways, and the weights' gradients of convolutions by
products, by Winograd's algorithm and by channel. It does not for convolutions of up to 8 channels, whose blocks are
compiled in, nor for perceptrons, where no two threads share a sum. Both forms are compared before they are timed, and
where they end with the same bits, nothing was cut differently and the ratio says nothing.

Bias gradients (sums over the rows of a matrix, kept in float64) are also timed alone, beside the fastest order-free
form: a block a thread, and a compiler that may reorder every sum (`reassoc`).
"""

import argparse
import contextlib
import functools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import prange

from fastnet.bench.result import conditions
from fastnet.bench.steps import WORKLOADS, ours_on
from fastnet.bench.workload import Workload
from fastnet.kernels.cpu import _batch_norm, _depthwise_dw, _im2col, _rows, _winograd
from fastnet.timer import Timing, alternate

MODELS = ("vgg-a-bn", "resnet18", "resnet34", "resnet18-dw")
SUMS = ((2048, 512), (8192, 256), (131_072, 64), (100_352, 6))  # rows and columns of dy, of these models
APART = 1e-4  # of the largest parameter, after one step in float32
FIXED_PLAN = _batch_norm._plan
FREE_PLAN = functools.lru_cache(maxsize=1024)(FIXED_PLAN.__wrapped__)  # which reads the numbers below anew


@contextlib.contextmanager
def free(threads: int) -> Iterator[None]:
    """Sums are cut into as many blocks as there are threads."""
    changed = {(_rows, "MOST_BLOCKS"): threads, (_batch_norm, "MOST_BLOCKS"): threads,
               (_batch_norm, "_plan"): FREE_PLAN, (_im2col, "CHUNKS"): threads, (_winograd, "CHUNKS"): threads,
               (_depthwise_dw, "CHUNKS"): threads}
    kept = {place: getattr(*place) for place in changed}
    try:
        for place, value in changed.items():
            setattr(*place, value)
        yield
    finally:
        for place, value in kept.items():
            setattr(*place, value)


def _freely(call: Any, threads: int) -> Any:
    with free(threads):
        return call()


def measure(workload: Workload, threads: int, seconds: float) -> tuple[dict[str, Timing], bool]:
    """Both forms of a training step, timed in turn, and whether their bits are the same.

    Raises AssertionError where the parameters after one step are further apart than rounding.
    """
    models = {form: workload.build() for form in ("fixed", "free")}
    x, labels = workload.batch()
    rivals = {form: ours_on(model, "step", x, labels) for form, model in models.items()}
    rivals["free"] = partial(_freely, rivals["free"], threads)
    for call in rivals.values():
        call()
    same = _compare(workload.label, *(model.store.vector for model in models.values()))
    return alternate(rivals, seconds), same


def measure_sums(rows: int, columns: int, threads: int, seconds: float) -> tuple[dict[str, Timing], None]:
    """The sum of the rows of a matrix alone, beside its fastest order-free form; rounding to float32 hides which it is.

    Raises AssertionError where the sums are further apart than rounding.
    """
    x = np.random.default_rng(0).standard_normal((rows, columns), np.float32)
    found, other = np.empty((2, columns), np.float32)
    rivals = {"fixed": partial(_rows.column_sums, x, found), "free": partial(_order_free_sums, x, threads, other)}
    for call in rivals.values():
        call()
    _compare(f"sums of {rows} rows", found, other)
    return alternate(rivals, seconds), None


def _compare(label: str, fixed: np.ndarray, free: np.ndarray) -> bool:
    apart = float(np.abs(fixed - free).max() / np.abs(fixed).max())
    if not apart <= APART:
        raise AssertionError(f"{label}: the two forms differ by {apart:.1e} of the largest entry")
    return bool(np.array_equal(fixed, free))


@numba.njit(parallel=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _order_free_sums(x, threads, sums):
    m, width = x.shape
    partial = np.zeros((threads, width), np.float64)
    for thread in prange(threads):
        for i in range(thread * m // threads, (thread + 1) * m // threads):
            for k in range(width):
                partial[thread, k] += x[i, k]
    for k in range(width):
        total = 0.0
        for thread in range(threads):
            total += partial[thread, k]
        sums[k] = total


def row(label: str, timings: dict[str, Timing], same: bool | None) -> str:
    """One line of text."""
    cost = timings["fixed"].median / timings["free"].median - 1
    spread = max((t.high - t.low) / t.median for t in timings.values())
    bits = {True: "; the same bits: nothing was cut differently", False: "; other bits", None: ""}[same]
    return (f"{label:20} fixed / free - 1 = {cost:+7.1%}   (quartiles {spread:.0%} of the median apart, "
            f"{timings['fixed'].rounds} rounds{bits})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", choices=WORKLOADS, default=MODELS)
    parser.add_argument("--threads", type=int, default=numba.get_num_threads())
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    numba.set_num_threads(options.threads)
    measured = {f"{m}x{n} summed": partial(measure_sums, m, n) for m, n in SUMS}
    measured |= {name: partial(measure, Workload(name, WORKLOADS[name])) for name in options.models}
    record: dict[str, Any] = {**conditions(False), "threads": options.threads, "results": {}}
    for label, call in measured.items():
        timings, same = call(options.threads, options.seconds)
        print(row(label, timings, same), flush=True)
        record["results"][label] = {"same_bits": same, "seconds": {k: t._asdict() for k, t in timings.items()}}
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
