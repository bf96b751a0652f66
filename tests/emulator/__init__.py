"""CUDA kernels without a GPU: their sources compiled by g++, run in fibers, on arrays whose memory is watched."""
