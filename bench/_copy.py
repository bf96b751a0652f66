"""A copy on several threads."""

import numba
from numba import prange


def copy(a, b, threads):
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        _copy(a, b)
    finally:
        numba.set_num_threads(before)


@numba.njit(parallel=True, cache=True)
def _copy(a, b):
    for i in prange(a.size):
        b[i] = a[i]
