"""Blocks: layers made of others whose data flow is more than a chain, and chains that have a name of their own."""

from collections.abc import Iterable, Iterator
from typing import Any

from fastnet import backend
from fastnet.arrays import Array, array_module
from fastnet.nn import layers
from fastnet.nn.basic_block import BasicBlock, basic_block
from fastnet.nn.convolution import Conv2d
from fastnet.nn.fuse import fused
from fastnet.nn.initializers import Initializer
from fastnet.nn.layer import (
    Backward,
    Chain,
    Container,
    Context,
    Layer,
    Shape,
    gone_back,
    has_parameters,
    require_maps,
    run,
    shape_after,
)
from fastnet.nn.layers import BatchNorm, ReLU
from fastnet.nn.sequential import Sequential


class Residual(Container):
    """y = activation(main(x) + shortcut(x)); without a shortcut x itself is added, without an activation none is done.

    dx is the sum of what comes back through both branches. `main` is a layer, or layers as `Sequential` takes them;
    its layers stand in the block under their own names (`conv1.w`), the others are called `downsample` (as in
    torchvision) and `activation`. Both branches must give the same shape: a ValueError says where they do not.

    Source: He et al., "Deep residual learning for image recognition", 2015, eqs. 1 and 2.
    """

    def __init__(self, main: Layer | Iterable[Layer | tuple[str, Layer]], shortcut: Layer | None = None,
                 activation: Layer | None = None) -> None:
        super().__init__()
        if isinstance(main, Layer) and not isinstance(main, Sequential):
            main = [main]
        self.main = main if isinstance(main, Sequential) else Sequential(main)
        self.main.held = True
        self.shortcut, self.activation = shortcut, activation
        for layer, name in ((shortcut, "downsample"), (activation, "activation")):
            if layer is not None:
                if not isinstance(layer, Layer):
                    raise TypeError(f"Residual: a layer is needed, got {layer!r}")
                layer.name = name
        self.adopt(self.children())
        self._ending: tuple[Chain, BatchNorm] | None = None  # fused: what is run of `main` before its last layer
        self._whole: BasicBlock | None = None  # fused: all of it, where that is one op

    def children(self) -> list[Layer]:
        return [*self.main.layers, *(layer for layer in (self.shortcut, self.activation) if layer is not None)]

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        if self._whole is not None and context.training and context.tap is None and self._whole.has_kernels(x):
            return self._as_whole(self._whole, x, context)
        return self._in_parts(x, None, context)

    def _direct(self, x: Array, context: Context) -> tuple[Array, Backward | None]:
        """What is added to the main branch, and the way back from its gradient where there is a shortcut."""
        return (x, None) if self.shortcut is None else run(self.shortcut, x, context)

    def _as_whole(self, whole: BasicBlock, x: Array, context: Context) -> tuple[Array, Backward]:
        direct, shortcut_back = self._direct(x, context)
        found = whole(x, None if shortcut_back is None else direct, context)
        if found is None:
            return self._in_parts(x, (direct, shortcut_back), context)
        y, block_back = found

        def back(dy: Array, needs_dx: bool = True) -> Array | None:
            dx, beside = block_back(dy, needs_dx)  # type: ignore[misc]
            if shortcut_back is not None:
                beside = shortcut_back(beside, needs_dx)
                dx = backend.call("add", dx, beside) if needs_dx else None
            return dx

        return y, back

    def _in_parts(self, x: Array, shortcut: tuple[Array, Backward | None] | None,
                  context: Context) -> tuple[Array, Backward]:
        ending = self._ending if context.tap is None else None
        branch, main_back = (self.main if ending is None else ending[0])(x, context)
        direct, shortcut_back = shortcut or self._direct(x, context)
        if branch.shape != direct.shape:
            raise ValueError(f"Residual: main gives {tuple(branch.shape)} but the shortcut {tuple(direct.shape)}")
        sum_back: Backward | None
        y, sum_back = self._sum(branch, direct, context) if ending is None else ending[1].run(
            "_add_relu", branch, context, direct)

        def back(dy: Array, needs_dx: bool = True) -> Array | None:
            nonlocal sum_back
            if sum_back is None:
                raise gone_back("Residual")
            dx, beside = sum_back(dy)  # type: ignore[misc]
            sum_back = None  # what it kept is free now
            dx = main_back(dx, needs_dx)
            if shortcut_back is not None:
                beside = shortcut_back(beside, needs_dx)
            # A new array: dy is still the caller's, and a layer may hand on what it was given.
            return backend.call("add", dx, beside) if needs_dx else None

        return y, back

    def _sum(self, branch: Array, direct: Array, context: Context) -> tuple[Array, Backward]:
        """activation(branch + direct), and the way back from dy to both gradients."""
        y = backend.call("add", branch, direct)
        if self.activation is None:
            return y, lambda dy: (dy, dy)
        y, back = run(self.activation, y, context)
        return y, lambda dy: (back(dy),) * 2

    def fuse(self) -> list[Layer]:
        """Where `main` ends with batch normalisation and the activation is ReLU, the block ends in one op.

        All of a basic block is one in training, where there are kernels that gain by that.
        """
        norm = self.main.layers[-1] if self.main.layers else None
        if self._ending is None and type(norm) is BatchNorm and type(self.activation) is ReLU:
            self._ending = Chain(fused(self.main.layers[:-1])), norm
            self._whole = basic_block(self.main.layers, self.activation)
        return self.main.fuse() if self._ending is None else self._ending[0].layers

    def leaves(self, shape: Shape, needs_dx: bool = False) -> Iterator[tuple[Layer, Shape, bool]]:
        yield from self.main.leaves(shape, needs_dx)
        if self.shortcut is not None:
            yield from self.shortcut.leaves(shape, needs_dx)
        if self.activation is not None:
            yield from self.activation.leaves(self.main.output_shape(shape), needs_dx or has_parameters(self))

    def output_shape(self, shape: Shape) -> Shape:
        branch = self.main.output_shape(shape)
        direct = shape_after(self.shortcut, shape) if self.shortcut else shape
        if branch != direct:
            raise ValueError(f"Residual: for an input of {shape} main gives {branch} but the shortcut {direct}")
        return shape_after(self.activation, branch) if self.activation else branch


class ZeroPadShortcut(Layer):
    """The shortcut without parameters: every stride-th pixel, and channels of zeros behind those of x.

        y[n, p, q, c] = x[n, p stride, q stride, c] for c < C, else 0          dx = dy at the pixels taken, else 0

    x (N, H, W, C), y (N, ceil(H/stride), ceil(W/stride), out_channels). Raises ValueError where x has more channels.
    Source: He et al., "Deep residual learning for image recognition", 2015, section 3.3, option A.
    """

    def __init__(self, stride: int, out_channels: int) -> None:
        super().__init__()
        if stride < 1 or out_channels < 1:
            raise ValueError(f"ZeroPadShortcut: stride and out_channels must be at least 1 but are {stride} and "
                             f"{out_channels}")
        self.stride, self.out_channels = stride, out_channels

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        xp, shape, channels = array_module(x), x.shape, x.shape[-1]  # the shape: x itself would be kept
        y = xp.zeros_like(x, shape=(len(x), *self.output_shape(shape[1:])), order="C")
        y[..., :channels] = x[:, :: self.stride, :: self.stride]

        def back(dy: Array, needs_dx: bool = True) -> Array | None:
            if not needs_dx:
                return None
            dx = xp.zeros_like(dy, shape=shape, order="C")
            dx[:, :: self.stride, :: self.stride] = dy[..., :channels]
            return dx

        return y, back

    def output_shape(self, shape: Shape) -> Shape:
        require_maps(self.kind, shape)
        if shape[2] > self.out_channels:
            raise ValueError(f"ZeroPadShortcut: the input is {shape}, {shape[2]} channels, more than out_channels "
                             f"({self.out_channels})")
        return (-(-shape[0] // self.stride), -(-shape[1] // self.stride), self.out_channels)

    def options(self) -> dict[str, Any]:
        return {"stride": self.stride, "out_channels": self.out_channels}


class Concatenate(Container):
    """Branches side by side on the same x, their outputs joined along the channels (the last axis).

        y = [branch_1(x), branch_2(x), ...]          dx = sum over the branches of their dx

    Branches are layers or (name, layer) pairs, named as in `Sequential`. Raises ValueError where the outputs differ
    in another axis. Source: Szegedy et al., "Going deeper with convolutions", 2015, section 4.
    """

    def __init__(self, branches: Iterable[Layer | tuple[str, Layer]]) -> None:
        super().__init__()
        self.branches = Sequential(branches).layers  # which names them
        if not self.branches:
            raise ValueError("Concatenate: at least one branch is needed")
        self.adopt(self.branches)

    def children(self) -> list[Layer]:
        return self.branches

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        parts, backs = zip(*(run(branch, x, context) for branch in self.branches), strict=True)
        if len({part.shape[:-1] for part in parts}) > 1:
            raise ValueError(f"Concatenate: the branches give {', '.join(str(tuple(part.shape)) for part in parts)}, "
                             "which differ in more than the last axis")
        widths = [part.shape[-1] for part in parts]

        def back(dy: Array, needs_dx: bool = True) -> Array | None:
            dx, start = None, 0
            for width, branch_back in zip(widths, backs, strict=True):
                # Contiguous, because kernels want rows without gaps.
                part = branch_back(dy[..., start : start + width].copy(), needs_dx)
                start += width
                if needs_dx:
                    dx = part if dx is None else backend.call("add", dx, part)
            return dx

        return array_module(x).concatenate(parts, axis=-1), back

    def leaves(self, shape: Shape, needs_dx: bool = False) -> Iterator[tuple[Layer, Shape, bool]]:
        for branch in self.branches:
            yield from branch.leaves(shape, needs_dx)

    def output_shape(self, shape: Shape) -> Shape:
        shapes = [shape_after(branch, shape) for branch in self.branches]
        if len({s[:-1] for s in shapes}) > 1:
            raise ValueError(f"Concatenate: for an input of {shape} the branches give {', '.join(map(str, shapes))}, "
                             "which differ in more than the last axis")
        return (*shapes[0][:-1], sum(s[-1] for s in shapes))


class DepthwiseSeparable(Sequential):
    """A 3x3 convolution of each channel for itself, then a 1x1 across them; batch norm and activation after both.

    (N, H, W, in_channels) to (N, ceil(H/stride), ceil(W/stride), out_channels). For M channels in, N out and a map of
    D x D it needs 9 M D^2 + M N D^2 multiplications where a full 3x3 convolution needs 9 M N D^2. With
    `activate=False` the last activation is left out, for a block that adds before it.

    Source: Howard et al., "MobileNets", 2017, section 3.1 and figure 3.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, activation: str = "relu",
                 activate: bool = True, init: str | Initializer = "kaiming_normal",
                 conv_algorithm: str = "auto") -> None:
        chain = [
            ("depthwise", Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False, init=init,
                                 conv_algorithm=conv_algorithm)),
            ("bn1", BatchNorm(in_channels)), ("act1", layers.activation(activation)),
            ("pointwise", Conv2d(in_channels, out_channels, 1, bias=False, init=init, conv_algorithm=conv_algorithm)),
            ("bn2", BatchNorm(out_channels)), ("act2", layers.activation(activation))]
        super().__init__(chain if activate else chain[:-1])


class Fire(Sequential):
    """A 1x1 convolution that squeezes the channels, then 1x1 and 3x3 ones side by side that expand them.

    (N, H, W, in_channels) to (N, H, W, expand1x1 + expand3x3), an activation after each of the three.
    Source: Iandola et al., "SqueezeNet", 2016, section 3.2.
    """

    def __init__(self, in_channels: int, squeeze: int, expand1x1: int, expand3x3: int, *, activation: str = "relu",
                 init: str | Initializer = "kaiming_normal", conv_algorithm: str = "auto") -> None:
        shared: dict[str, Any] = {"init": init, "conv_algorithm": conv_algorithm}
        super().__init__([
            ("squeeze", Conv2d(in_channels, squeeze, 1, **shared)),
            ("squeeze_activation", layers.activation(activation)),
            ("expand", Concatenate([("1x1", Conv2d(squeeze, expand1x1, 1, **shared)),
                                    ("3x3", Conv2d(squeeze, expand3x3, 3, pad=1, **shared))])),
            ("expand_activation", layers.activation(activation))])
