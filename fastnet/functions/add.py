"""The sum of two arrays of one shape, where branches of a network meet.

    out = x + y
"""


def run(x, y):
    """Return x + y, a new array. Raises ValueError where the shapes differ."""
    if x.shape != y.shape:
        raise ValueError(f"add: x is {tuple(x.shape)} but y is {tuple(y.shape)}")
    return x + y
