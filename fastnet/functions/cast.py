"""The same numbers in another floating type: logits and their gradients between 16 and 32 bits.

    y = x, rounded to the nearest number of the type
"""


def run(x, *, dtype):
    """Return x in `dtype`: x itself where it is of that type."""
    return x.astype(dtype, copy=False)
