"""Integer geometry of convolution and pooling; no arrays.

A window of `size` taps, `dilation` apart, covers dilation (size - 1) + 1 places.
"""

from typing import NamedTuple


class Window(NamedTuple):
    """Where a sliding window stands along one axis: `places` of them, and how far the input is padded on each side.

    `after` may exceed `pad` in ceil mode, and be negative where the last places of the input are never covered.
    """

    places: int
    before: int
    after: int

    def slice(self, tap: int, stride: int, dilation: int = 1) -> slice:
        """The entries of the padded axis that tap number `tap` sees, one a place."""
        start = tap * dilation
        return slice(start, start + stride * (self.places - 1) + 1, stride)


def pair(op: str, name: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
    """(height, width) of an option given as one number or two. Raises ValueError below `least`, TypeError otherwise."""
    both = (value, value) if isinstance(value, int) else value
    if not (isinstance(both, (tuple, list)) and len(both) == 2 and all(isinstance(v, int) for v in both)):
        raise TypeError(f"{op}: {name} must be a whole number or two of them but is {value!r}")
    if min(both) < least:
        raise ValueError(f"{op}: {name} must be at least {least} but is {value}")
    return both[0], both[1]


def window(op: str, length: int, size: int, stride: int, pad: int, dilation: int = 1,
           ceil_mode: bool = False) -> Window:
    """Slide a window over `length` entries with `pad` more on each side.

    In ceil mode a last window that starts inside the input or the padding before it, but ends outside, counts too (as
    in PyTorch). Raises ValueError where not even one window fits.
    """
    covered = dilation * (size - 1) + 1
    room = length + 2 * pad - covered
    if room < 0:
        raise ValueError(f"{op}: the kernel covers {covered} places, more than the padded input's {length + 2 * pad} "
                         f"({length} and {pad} on each side)")
    count = room // stride + 1
    if ceil_mode and room % stride and count * stride < length + pad:
        count += 1
    return Window(count, pad, stride * (count - 1) + covered - length - pad)
