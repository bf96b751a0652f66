"""CUDA kernels on CuPy arrays: `<op>.py`, a pair or a function as for the CPU, launches the kernels of `<op>.cu`.

A source includes `common.cuh`, which has the types, and all of CUDA that is not C++ behind functions, so that the tests
can run it without a GPU, too. It is compiled once for each storage type T. `_launch` has it compiled and passes the
arguments; `_arrays` makes results. They have the same bits in every run: sums have a fixed order, and no atomics.

Images that are not augmented are standardized in Numba-CUDA instead, and never inside a graph: see `_numba`.
"""
