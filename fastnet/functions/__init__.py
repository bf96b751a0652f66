"""Reference functions without a backward pass: random numbers, transforms, updates.

One file, one function `run`; a kernel of the same name may stand in for it (see `fastnet.backend`).
"""
