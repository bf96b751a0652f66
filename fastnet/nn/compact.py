"""Networks that save parameters and multiplications: MobileNet and SqueezeNet, for images of 32x32."""

from collections.abc import Sequence
from typing import Any

from fastnet.nn.blocks import DepthwiseSeparable, Fire
from fastnet.nn.convnets import Named, numbered
from fastnet.nn.layer import Layer, Shape
from fastnet.nn.layers import BatchNorm, Dropout
from fastnet.nn.pooling import GlobalAvgPool
from fastnet.nn.sequential import Sequential
from fastnet.nn.style import Style, pool

# (output channels, stride) of each depthwise separable convolution.
MOBILENET = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
# (squeeze, expand 1x1, expand 3x3) of each fire module, 'M' for a pool.
SQUEEZENET = ((16, 64, 64), (16, 64, 64), "M", (32, 128, 128), (32, 128, 128), "M", (48, 192, 192), (48, 192, 192),
              (64, 256, 256), (64, 256, 256))


def mobilenet(*, plan: Sequence[tuple[int, int]] = MOBILENET, stem: int = 32, classes: int = 10,
              input_shape: Shape = (32, 32, 3), **style: Any) -> Named:
    """A 3x3 stem and depthwise separable convolutions, global average pooling, a linear layer.

    For 32x32 images the stem's stride is 1 instead of 2, so that the last maps are 2x2; all other strides are those
    of the paper. Source: Howard et al., "MobileNets", 2017, table 1.
    """
    make = Style(**style)
    channels = make.width(stem)
    body: Named = [("conv1", make.conv(input_shape[-1], channels, 3, pad=1, bias=False)), ("bn1", BatchNorm(channels)),
                   ("act1", make.act())]
    inner: list[Layer] = []
    for filters, stride in plan:
        width = make.width(filters)
        inner.append(DepthwiseSeparable(channels, width, stride, activation=make.activation, **make.convolutions))
        channels = width
    return [*body, ("layers", Sequential(numbered(inner))), ("avgpool", GlobalAvgPool()),
            ("fc", make.linear(channels, classes))]


def squeezenet(*, plan: Sequence[tuple[int, int, int] | str] = SQUEEZENET, stem: int = 64, classes: int = 10,
               dropout: float = 0.5, pooling: str = "max", input_shape: Shape = (32, 32, 3), **style: Any) -> Named:
    """A stem, fire modules with 3x3 pools of stride 2 between them; a 1x1 convolution and its mean give the classes.

    This is SqueezeNet 1.1. For 32x32 images the stem has stride 1 and padding 1 instead of stride 2 and none, so that
    the last maps are 4x4. Numbered as in torchvision. Source: Iandola et al., "SqueezeNet", 2016, section 3, and its
    authors' release of version 1.1.
    """
    make = Style(**style)
    channels = make.width(stem)
    features: list[Layer] = [make.conv(input_shape[-1], channels, 3, pad=1), make.act(),
                             pool(pooling, 3, 2, ceil_mode=True)]
    for entry in plan:
        if isinstance(entry, str):
            features.append(pool(pooling, 3, 2, ceil_mode=True))
            continue
        squeeze, one, three = (make.width(filters) for filters in entry)
        features.append(Fire(channels, squeeze, one, three, activation=make.activation, **make.convolutions))
        channels = one + three
    classifier = [Dropout(dropout), make.conv(channels, classes, 1), make.act(), GlobalAvgPool()]
    return [("features", Sequential(numbered(features))), ("classifier", Sequential(numbered(classifier)))]
