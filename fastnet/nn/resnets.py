"""Residual networks for small images: a 3x3 stem without pooling, then stages of basic blocks."""

from collections.abc import Sequence
from typing import Any

from fastnet.nn.blocks import DepthwiseSeparable, Residual, ZeroPadShortcut
from fastnet.nn.convnets import Named, numbered
from fastnet.nn.layer import Layer, Shape
from fastnet.nn.layers import BatchNorm, Dropout
from fastnet.nn.pooling import GlobalAvgPool
from fastnet.nn.sequential import Sequential
from fastnet.nn.style import Style

SHORTCUTS = ("projection", "zero_pad", "none")
DROPOUT_PLACES = ("before", "after")
MOST_BLOCKS = 1000  # ten times those of the deepest one that was published


def resnet(*, blocks: Sequence[int], widths: Sequence[int] = (64, 128, 256, 512), classes: int = 10,
           shortcut: str = "projection", separable: bool = False, dropout: float = 0.0, dropout_place: str = "before",
           stem_multiplier: float | None = None, input_shape: Shape = (32, 32, 3), **style: Any) -> Named:
    """A stage for each entry of `blocks`, so many blocks of two 3x3 convolutions; each stage but the first halves H, W.

    shortcut         where shapes change: 'projection' (1x1 convolution and batch norm) or 'zero_pad' (no parameters);
                     'none': nothing is added anywhere, the paper's plain network
    separable        every 3x3 convolution, the stem too, as a depthwise separable one
    dropout          its rate 'before' the last linear layer or, as `dropout_place` says, 'after' it
    stem_multiplier  for the first convolution instead of filter_multiplier: a network of doubled filters with the
                     published parameter count has a stem that is not doubled

    No convolution has a bias, since batch normalisation follows each. Convolutions start from N(0, 2/fan_in) unless
    `init` says otherwise. Layers are named as in torchvision. Raises ValueError for an unknown shortcut or place.
    Source: He et al., "Deep residual learning for image recognition", 2015, sections 3.3 and 4.2.
    """
    if shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut {shortcut!r} is not known; choose from {', '.join(SHORTCUTS)}")
    if dropout_place not in DROPOUT_PLACES:
        raise ValueError(f"dropout_place {dropout_place!r} is not known; choose from {', '.join(DROPOUT_PLACES)}")
    if sum(blocks) > MOST_BLOCKS:
        raise ValueError(f"blocks {tuple(blocks)} are more than {MOST_BLOCKS}")
    if len(blocks) != len(widths):
        raise ValueError(f"blocks {tuple(blocks)} and widths {tuple(widths)} must be equally many")
    make = Style(**style)
    channels = make.width(widths[0], stem_multiplier)
    body = _unit(make, "1", input_shape[-1], channels, 1, separable)
    for stage, (count, filters) in enumerate(zip(blocks, widths, strict=True)):
        width = make.width(filters)
        inner: list[Layer] = []
        for number in range(count):
            stride = 2 if number == 0 and stage > 0 else 1
            inner.append(_block(make, channels, width, stride, shortcut, separable))
            channels = width
        body.append((f"layer{stage + 1}", Sequential(numbered(inner))))
    head: Named = [("avgpool", GlobalAvgPool()), ("fc", make.linear(channels, classes))]
    if dropout:
        head.insert(1 if dropout_place == "before" else 2, ("dropout", Dropout(dropout)))
    return [*body, *head]


def _block(make: Style, channels: int, width: int, stride: int, shortcut: str, separable: bool) -> Layer:
    main = [*_unit(make, "1", channels, width, stride, separable),
            *_unit(make, "2", width, width, 1, separable, activate=False)]
    if shortcut == "none":
        return Sequential([*main, ("activation", make.act())])
    beside: Layer | None = None
    if (stride, channels) != (1, width):
        beside = (ZeroPadShortcut(stride, width) if shortcut == "zero_pad" else
                  Sequential(numbered([make.conv(channels, width, 1, stride, bias=False), BatchNorm(width)])))
    return Residual(main, beside, make.act())


def _unit(make: Style, number: str, channels: int, width: int, stride: int, separable: bool,
          activate: bool = True) -> Named:
    """A 3x3 convolution, batch norm and activation."""
    if separable:
        return [(f"conv{number}", DepthwiseSeparable(channels, width, stride, activation=make.activation,
                                                     activate=activate, **make.convolutions))]
    unit: Named = [(f"conv{number}", make.conv(channels, width, 3, stride, 1, bias=False)),
                   (f"bn{number}", BatchNorm(width)), (f"act{number}", make.act())]
    return unit if activate else unit[:-1]
