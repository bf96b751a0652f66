"""A gradient divided by the scale of its loss, in place, and whether all of it is finite.

    g = g / scale                 overflow becomes 1 where an entry is not finite then, and stays what it was elsewhere

Source: Micikevicius et al., "Mixed precision training", 2018, section 3.2.
"""

from fastnet.arrays import array_module


def run(g, scale, overflow):
    """g any shape, scale () of g's type, a power of two, so that no digit changes; overflow (1,) uint32."""
    g *= 1 / scale
    overflow |= (~array_module(g).isfinite(g)).any().astype(overflow.dtype)
