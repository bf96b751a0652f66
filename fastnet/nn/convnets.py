"""Chains of convolutions, pooling and linear layers: LeNet-5, VGG, AlexNet. Layers are named as in PyTorch."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from fastnet.nn.layer import Layer, Shape
from fastnet.nn.layers import BatchNorm, Dropout
from fastnet.nn.sequential import Sequential
from fastnet.nn.style import Style, pool

Named = list[tuple[str, Layer]]


def lenet(*, filters: Sequence[int] = (6, 16), hidden: Sequence[int] = (120, 84), classes: int = 10,
          batch_norm: bool = False, pooling: str = "max", input_shape: Shape = (32, 32, 3), **style: Any) -> Named:
    """5x5 convolutions, each with an activation and a 2x2 pool behind it, then linear layers.

    Batch normalisation stands before each activation, never behind the classifier; biases stay, as in PyTorch, though
    their gradient is zero there. Differs from the original in that its second convolution sees all channels.
    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II.B.
    """
    make = Style(**style)
    norms = itertools.count(1)

    def activated(width: int) -> Named:
        number = next(norms)
        norm: Named = [(f"bn{number}", BatchNorm(width))] if batch_norm else []
        return [*norm, (f"act{number}", make.act())]

    body: Named = []
    channels = input_shape[-1]
    for number, width in enumerate(map(make.width, filters), start=1):
        body += [(f"conv{number}", make.conv(channels, width, 5)), *activated(width),
                 (f"pool{number}", pool(pooling, 2))]
        channels = width
    features = math.prod(Sequential(body).output_shape(input_shape))
    for number, width in enumerate(hidden, start=1):
        body += [(f"fc{number}", make.linear(features, width)), *activated(width)]
        features = width
    return [*body, (f"fc{len(hidden) + 1}", make.linear(features, classes))]


def vgg(*, plan: Sequence[int | str], hidden: Sequence[int] = (512, 512), classes: int = 10, batch_norm: bool = False,
        pooling: str = "max", input_shape: Shape = (32, 32, 3), **style: Any) -> Named:
    """3x3 convolutions of the widths that `plan` gives, 'M' for a 2x2 pool, then linear layers.

    Numbered as in torchvision (`features.0`, `classifier.0`); with `batch_norm` the convolutions keep their biases, as
    there. Source: Simonyan & Zisserman, "Very deep convolutional networks", 2015, table 1 (A: eleven layers), with the
    classifier of report R5.
    """
    make = Style(**style)
    features: list[Layer] = []
    channels = input_shape[-1]
    for entry in plan:
        if entry == "M":
            features.append(pool(pooling, 2))
            continue
        width = make.width(int(entry))
        features.append(make.conv(channels, width, 3, pad=1))
        if batch_norm:
            features.append(BatchNorm(width))
        features.append(make.act())
        channels = width
    body = Sequential(numbered(features))
    classifier: list[Layer] = []
    inputs = math.prod(body.output_shape(input_shape))
    for width in hidden:
        classifier += [make.linear(inputs, width), make.act()]
        inputs = width
    classifier.append(make.linear(inputs, classes))
    return [("features", body), ("classifier", Sequential(numbered(classifier)))]


def alexnet(*, hidden: Sequence[int] = (4096, 4096), classes: int = 1000, dropout: float = 0.5,
            input_shape: Shape = (227, 227, 3), **style: Any) -> Named:
    """Five convolutions, three of them in two groups, overlapping max pools, linear layers behind dropout.

    Without the local response normalisation, which has no parameters and little effect.
    Source: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional networks", 2012.
    """
    make = Style(**style)
    # The widths of grouped convolutions must stay even, whatever they are multiplied by.
    w1, w2, w3, w4, w5 = (2 * make.width(half) for half in (48, 128, 192, 192, 128))
    body = Sequential(numbered([
        make.conv(input_shape[-1], w1, 11, 4), make.act(), pool("max", 3, 2),
        make.conv(w1, w2, 5, pad=2, groups=2), make.act(), pool("max", 3, 2),
        make.conv(w2, w3, 3, pad=1), make.act(),
        make.conv(w3, w4, 3, pad=1, groups=2), make.act(),
        make.conv(w4, w5, 3, pad=1, groups=2), make.act(), pool("max", 3, 2)]))
    classifier: list[Layer] = []
    inputs = math.prod(body.output_shape(input_shape))
    for width in hidden:
        classifier += [Dropout(dropout), make.linear(inputs, width), make.act()]
        inputs = width
    classifier.append(make.linear(inputs, classes))
    return [("features", body), ("classifier", Sequential(numbered(classifier)))]


def numbered(layers: Sequence[Layer]) -> Named:
    """Layers named '0', '1', ..., as PyTorch's nn.Sequential names them."""
    return [(str(number), layer) for number, layer in enumerate(layers)]
