"""Integer geometry of convolution and pooling, and of a perceptron in a vector; no arrays.

A window of `size` taps, `dilation` apart, covers dilation (size - 1) + 1 places.
"""

import functools
import itertools
from typing import NamedTuple

Pair = tuple[int, int]  # (height, width)
Size = int | Pair  # one number for both, or two

ABSENT = -1


class Hidden(NamedTuple):
    """A layer of `fastnet.ops.perceptron`: how wide it is before and after its product, and where in the vector of all
    parameters its own begin; `ABSENT` says that it has none of that kind.
    """

    features: int
    outputs: int
    w: int
    b: int = ABSENT
    gamma: int = ABSENT
    beta: int = ABSENT
    eps: float = 1e-5

    def parameters(self, vector):
        """Views of w (features, outputs), b (outputs,), gamma and beta (features,), None for what is absent."""
        w = vector[self.w : self.w + self.features * self.outputs].reshape(self.features, self.outputs)
        return w, *(None if start == ABSENT else vector[start : start + size] for start, size in (
            (self.b, self.outputs), (self.gamma, self.features), (self.beta, self.features)))


@functools.lru_cache(maxsize=256)
def fits(layers: tuple[Hidden, ...], size: int) -> bool:
    """Whether the layers fit one another and lie in a vector of this size."""
    return (all(a.outputs == b.features for a, b in itertools.pairwise(layers))
            and all(layer.w >= 0 and min(layer[2:6]) >= ABSENT and layer.eps > 0
                    and (layer.gamma == ABSENT) == (layer.beta == ABSENT)
                    and max(layer.w + layer.features * layer.outputs, layer.b + layer.outputs,
                            layer.gamma + layer.features, layer.beta + layer.features) <= size for layer in layers))


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


def pair(op: str, name: str, value: Size, least: int) -> Pair:
    """(height, width) of an option given as one number or two. Raises ValueError below `least`, TypeError otherwise."""
    both = (value, value) if isinstance(value, int) else value
    if type(both) is tuple and len(both) == 2 and type(both[0]) is type(both[1]) is int and min(both) >= least:
        return both  # nearly always, and found in a fraction of the time
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


def windows(op: str, size: tuple[int, ...], kernel: tuple[int, ...], stride: Pair, pad: Pair, dilation: Pair = (1, 1),
            ceil_mode: bool = False) -> tuple[Window, Window]:
    """`window` along the height and along the width."""
    rows, columns = (window(op, size[a], kernel[a], stride[a], pad[a], dilation[a], ceil_mode) for a in (0, 1))
    return rows, columns


def pool_options(op: str, kernel: Size, stride: Size | None, pad: Size) -> tuple[Pair, Pair, Pair]:
    """(window, stride, pad) of pooling as pairs; the stride is the window's size unless given.

    Raises as `pair` does, and ValueError for a pad above half the window: a window might see padding alone.
    """
    size = pair(op, "window", kernel, 1)
    step = size if stride is None else pair(op, "stride", stride, 1)
    border = pair(op, "pad", pad, 0)
    if any(2 * p > s for p, s in zip(border, size, strict=True)):
        raise ValueError(f"{op}: pad must be at most half the window, but pad is {border} and the window {size}")
    return size, step, border
