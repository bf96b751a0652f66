"""What the benchmarks under pytest share: as many threads for both libraries, and the ceilings of this machine."""

import importlib.util

import numba
import pytest

from fastnet.bench.ceilings import rates
from fastnet.bench.command import set_threads


@pytest.fixture(scope="session")
def speed():
    """The machine's rates, measured once."""
    return rates(numba.get_num_threads())


@pytest.fixture
def timed(benchmark, speed):
    """`timed(call, group, operations, bytes)` benchmarks a call; its work and part of the ceiling are noted."""
    set_threads(numba.get_num_threads(), importlib.util.find_spec("torch") is not None)

    def run(call, group, operations, nbytes=0):
        benchmark.group = group
        benchmark.extra_info |= {"operations": operations, "bytes": nbytes}
        benchmark(call)
        if benchmark.stats:  # none where benchmarks are disabled and only run
            floor = max(operations / speed.gemm, nbytes / speed.copy)
            benchmark.extra_info["fraction_of_ceiling"] = floor / benchmark.stats.stats.median
    return run
