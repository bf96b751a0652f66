"""Accelerated implementations, imported as `fastnet.kernels`: `cpu` (Numba) and `cuda` (CuPy)."""

if __name__ != "fastnet.kernels":
    raise ImportError("this folder is the package fastnet.kernels; import it by that name "
                      "(install the checkout with 'pip install -e .')")
