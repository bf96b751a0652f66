"""Numba kernels on NumPy arrays: a module named after an op is its pair, one named after a function its twin.

Modules whose name starts with an underscore are helpers. `supports` is the gate: the functions behind it trust
their arguments and do no bounds checks.
"""
