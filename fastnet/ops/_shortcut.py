"""What the ops that end with a sum check."""

from fastnet.arrays import require_float


def check_shortcut(op, x, shortcut):
    """Raise TypeError or ValueError unless the shortcut holds floating numbers and has x's shape."""
    require_float(op, shortcut=shortcut)
    if shortcut.shape != x.shape:
        raise ValueError(f"{op}: shortcut is {shortcut.shape} but x is {x.shape}")
