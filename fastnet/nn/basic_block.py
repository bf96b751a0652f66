"""A residual block's layers as one op, `fastnet.ops.basic_block`, where there are kernels that gain by it."""

import math
from collections.abc import Sequence
from typing import Any

from fastnet import backend
from fastnet.arrays import Array
from fastnet.nn.convolution import Conv2d
from fastnet.nn.layer import Backward, Context, Layer, gone_back
from fastnet.nn.layers import BatchNorm, ReLU

KINDS = [Conv2d, BatchNorm, ReLU, Conv2d, BatchNorm]


class BasicBlock:
    """Two 3x3 convolutions with batch norm, a shortcut and ReLU, in training: the parameters stay the layers' own."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self._norms: list[BatchNorm] = [layers[1], layers[4]]
        self._stride = layers[0].stride
        keys = (layers[0], "w"), (layers[1], "gamma"), (layers[1], "beta"), (layers[3], "w")
        self._parameters = [layer.parameters_here[key]
                            for layer, key in (*keys, (layers[4], "gamma"), (layers[4], "beta"))]

    def has_kernels(self, x: Array) -> bool:
        """Whether there may be kernels for arrays like x."""
        return bool(backend.fusing("basic_block", x))

    def __call__(self, x: Array, shortcut: Array | None, context: Context) -> tuple[Array, Backward] | None:
        """The passes; back gives dx and the shortcut's gradient. None where the layers run one by one as well."""
        arrays = (x, *(p.value for p in self._parameters), shortcut)
        options = {"stride": self._stride, "eps1": self._norms[0].eps, "eps2": self._norms[1].eps}
        op = backend.fused("basic_block", *arrays, **options)
        if op is None:
            return None
        y, cache = op.forward(*arrays, **options)
        if context.update_statistics:
            for norm, (mean, var) in zip(self._norms, op.statistics(cache), strict=True):
                norm.track(mean, var, math.prod(y.shape[:-1]))
        gradients: Any = backend.callback("basic_block", op, y, cache)
        del cache

        def back(dy: Array, needs_dx: bool = True) -> Any:
            nonlocal gradients
            if gradients is None:
                raise gone_back("Residual")
            dx, *of_parameters, dshortcut = gradients(
                dy, (needs_dx, *(True for _ in arrays[1:])), (None, *(p.free_gradient for p in self._parameters), None))
            gradients = None  # what it kept is free now
            for parameter, gradient in zip(self._parameters, of_parameters, strict=True):
                parameter.accumulate(gradient)
            return dx, dshortcut

        return y, back


def basic_block(layers: Sequence[Layer], activation: Layer | None) -> BasicBlock | None:
    """The layers of a block's main branch and what follows the sum as one; None where they are not what that takes.

    Types must be the pattern's own: a subclass may compute something else.
    """
    if [type(layer) for layer in layers] != KINDS or type(activation) is not ReLU:
        return None
    block: Any = layers
    plain = all((c.kernel_size, c.pad, c.dilation, c.groups, c.bias) == ((3, 3), (1, 1), (1, 1), 1, False)
                for c in (block[0], block[3]))
    return BasicBlock(block) if plain and block[3].stride == (1, 1) else None
