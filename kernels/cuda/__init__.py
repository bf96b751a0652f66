"""CUDA kernels on CuPy arrays."""
