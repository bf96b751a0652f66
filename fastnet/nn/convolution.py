"""Two-dimensional convolution as a layer: what gives `fastnet.ops.conv2d` its weights."""

from typing import Any

import numpy as np

from fastnet import backend, shapes
from fastnet.arrays import Array
from fastnet.nn import initializers
from fastnet.nn.initializers import Initializer
from fastnet.nn.layer import Backward, Context, Layer, Shape, require_maps
from fastnet.nn.parameters import Parameter, collect
from fastnet.shapes import Size
from fastnet.unmade import Unmade


class Conv2d(Layer):
    """y = x * w + b for x (N, H, W, in_channels) and y (N, OH, OW, out_channels); see `fastnet.ops.conv2d`.

    w is (KH, KW, in_channels/groups, out_channels), b (out_channels,). kernel_size, stride, pad and dilation are
    numbers or (height, width); groups = in_channels is a depthwise convolution. `init` is for w (default: N(0,
    2/fan_in), He et al., "Delving deep into rectifiers", 2015, eq. 10); b starts at zero unless `bias_init` says
    otherwise or `init` is `torch_default`, which covers both. `conv_algorithm` ("auto", "winograd", "direct") is
    advice to the kernels.

    Raises ValueError for sizes that are not positive, channels that the groups do not divide, unknown names.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, pad: Size = 0,
                 dilation: Size = 1, groups: int = 1, bias: bool = True, *, init: str | Initializer = "kaiming_normal",
                 bias_init: str | Initializer | None = None, conv_algorithm: str = "auto") -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise ValueError(f"Conv2d: channels must be positive, but in_channels is {in_channels} and out_channels "
                             f"{out_channels}")
        if groups < 1:
            raise ValueError(f"Conv2d: groups must be at least 1 but is {groups}")
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv2d: in_channels (={in_channels}) and out_channels (={out_channels}) must be "
                             f"divisible by groups (={groups})")
        known = backend.module("reference", "conv2d").ALGORITHMS  # type: ignore[union-attr]
        if conv_algorithm not in known:
            raise ValueError(f"Conv2d: conv_algorithm must be one of {', '.join(known)} but is {conv_algorithm!r}")
        self.in_channels, self.out_channels, self.groups, self.bias = in_channels, out_channels, groups, bias
        self.kernel_size = shapes.pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride = shapes.pair("Conv2d", "stride", stride, 1)
        self.pad = shapes.pair("Conv2d", "pad", pad, 0)
        self.dilation = shapes.pair("Conv2d", "dilation", dilation, 1)
        self.conv_algorithm = conv_algorithm
        weight = initializers.get(init)
        shape = (*self.kernel_size, in_channels // groups, out_channels)
        self.parameters_here["w"] = Parameter(shape, weight, penalised=True)
        if bias:
            start = initializers.get(bias_init or (weight if weight.name == "torch_default" else "zeros"))
            self.parameters_here["b"] = Parameter((out_channels,), start, penalised=False, fan_shape=shape)

    def _op_options(self) -> dict[str, Any]:
        return {"stride": self.stride, "pad": self.pad, "dilation": self.dilation, "groups": self.groups,
                "conv_algorithm": self.conv_algorithm}

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        return self._read(x) if isinstance(x, Unmade) else self.run("", x)

    def takes(self, x: Unmade) -> bool:
        arrays, options = self._images(x)
        return backend.pair("augment_conv2d", *arrays, **options) is not backend.module("reference", "augment_conv2d")

    def _images(self, x: Unmade) -> tuple[tuple[Array | None, ...], dict[str, Any]]:
        """Arrays and options of `augment_conv2d`."""
        w, b = self.parameters_here["w"], self.parameters_here.get("b")
        arrays, options = x.call()
        return (*arrays, w.value, b.value if b else None), {**options, **self._op_options()}

    def _read(self, x: Unmade) -> tuple[Array, Backward]:
        """The passes on images that are read where the data set lies; they have no gradient."""
        arrays, options = self._images(x)
        y, all_gradients = backend.run("augment_conv2d", *arrays, **options)
        others = len(arrays) - 2

        def gradients(dy: Array, needs: tuple[bool, ...], into: tuple[Array | None, ...]) -> tuple[Array | None, ...]:
            found = all_gradients(dy, (False,) * others + needs[1:], (None,) * others + into[1:])
            return None, *found[others:]

        def back(dy: Array, needs_dx: bool = True) -> Array | None:
            return collect(gradients, dy, False, [self.parameters_here.get(key) for key in ("w", "b")])

        return y, back

    def run(self, then: str, x: Array, **options: Any) -> tuple[Array, Backward]:
        """The passes of the op that is the convolution and what `then` names, "" or "_relu_max_pool2d" (`options`)."""
        w, b = self.parameters_here["w"], self.parameters_here.get("b")
        y, gradients = backend.run("conv2d" + then, x, w.value, b.value if b else None, **self._op_options(), **options)

        def back(dy: Array, needs_dx: bool = True) -> Array | None:
            return collect(gradients, dy, needs_dx, (w, b))

        return y, back

    def output_shape(self, shape: Shape) -> Shape:
        require_maps("Conv2d", shape, self.in_channels)
        rows, columns = shapes.windows("Conv2d", shape[:2], self.kernel_size, self.stride, self.pad, self.dilation)
        return (rows.places, columns.places, self.out_channels)

    def macs(self, shape: Shape) -> int:
        height, width, channels = self.output_shape(shape)
        return height * width * channels * self.kernel_size[0] * self.kernel_size[1] * self.in_channels // self.groups

    def runs_as(self, shape: Shape, batch_size: int, dtype: np.dtype) -> str:
        """The algorithm that the chosen implementation names, or that implementation's own name."""
        shapes_of = {name: parameter.shape for name, parameter in self.parameters_here.items()}
        # Arrays without memory: only their types and shapes are looked at.
        x, w = (np.broadcast_to(np.zeros((), dtype), s) for s in ((batch_size, *shape), shapes_of["w"]))
        b = np.broadcast_to(np.zeros((), dtype), shapes_of["b"]) if self.bias else None
        options = self._op_options()
        chosen = backend.pair("conv2d", x, w, b, **options)
        if hasattr(chosen, "algorithm"):
            return chosen.algorithm(x, w, **options)
        return "reference" if chosen is backend.module("reference", "conv2d") else chosen.__name__.split(".")[-2]

    def options(self) -> dict[str, Any]:
        return {"in_channels": self.in_channels, "out_channels": self.out_channels, "kernel_size": self.kernel_size,
                "stride": self.stride, "pad": self.pad, "dilation": self.dilation, "groups": self.groups,
                "bias": self.bias, "conv_algorithm": self.conv_algorithm}
