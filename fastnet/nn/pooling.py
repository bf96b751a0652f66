"""Pooling layers: thin wrappers around the ops of the same names."""

from typing import Any, ClassVar

from fastnet import backend, shapes
from fastnet.arrays import Array
from fastnet.nn.layer import Backward, Context, Layer, Shape, require_maps
from fastnet.shapes import Size


class _Pool2d(Layer):
    """A window that slides over each channel; `op` says what is taken of it."""

    op: ClassVar[str]

    def __init__(self, window: Size, stride: Size | None = None, pad: Size = 0,
                 ceil_mode: bool = False) -> None:
        super().__init__()
        self.window, self.stride, self.pad = shapes.pool_options(self.kind, window, stride, pad)
        self.ceil_mode = ceil_mode

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        y, gradients = backend.run(self.op, x, **self.options())

        def back(dy: Array, needs_dx: bool = True) -> Array | None:
            return gradients(dy)[0] if needs_dx else None

        return y, back

    def output_shape(self, shape: Shape) -> Shape:
        require_maps(self.kind, shape)
        rows, columns = shapes.windows(self.kind, shape[:2], self.window, self.stride, self.pad,
                                       ceil_mode=self.ceil_mode)
        return (rows.places, columns.places, shape[2])

    def options(self) -> dict[str, Any]:
        return {"window": self.window, "stride": self.stride, "pad": self.pad, "ceil_mode": self.ceil_mode}


class MaxPool2d(_Pool2d):
    """The largest entry of each window, (N, H, W, C) to (N, OH, OW, C); padding never wins, ties go to the first.

    window, stride (default: the window) and pad are numbers or (height, width); with `ceil_mode` a last window may
    reach over the edge. Raises ValueError for sizes that are not positive and a pad above half the window.
    """

    op = "max_pool2d"


class AvgPool2d(_Pool2d):
    """The mean of each window, (N, H, W, C) to (N, OH, OW, C); padding counts as zeros.

    window, stride (default: the window) and pad are numbers or (height, width); with `ceil_mode` a last window may
    reach over the edge. Raises ValueError for sizes that are not positive and a pad above half the window.
    """

    op = "avg_pool2d"


class GlobalAvgPool(Layer):
    """The mean of each channel over all places, (N, H, W, C) to (N, C)."""

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        y, gradients = backend.run("global_avg_pool", x)

        def back(dy: Array, needs_dx: bool = True) -> Array | None:
            return gradients(dy)[0] if needs_dx else None

        return y, back

    def output_shape(self, shape: Shape) -> Shape:
        require_maps(self.kind, shape)
        return shape[2:]


POOLS: dict[str, type[_Pool2d]] = {"max": MaxPool2d, "avg": AvgPool2d}
