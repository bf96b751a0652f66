"""The options that all convolutional families share."""

import math
from dataclasses import dataclass
from typing import Any

from fastnet.nn import layers
from fastnet.nn.convolution import Conv2d
from fastnet.nn.initializers import Initializer
from fastnet.nn.layer import Layer
from fastnet.nn.layers import Linear
from fastnet.nn.pooling import POOLS


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a network is made, whatever its plan.

    `filter_multiplier` scales the channels of every convolution (rounded, at least 1; hidden linear layers stay).
    `init` is for all weights; without one each layer has its own default. Raises ValueError for a multiplier that is
    not positive, TypeError for an option that no network has.
    """

    activation: str = "relu"
    init: str | Initializer | None = None
    conv_algorithm: str = "auto"
    filter_multiplier: float = 1.0

    def __post_init__(self) -> None:
        layers.activation(self.activation)  # looks at the name, which a plan might not use
        _require_positive("filter_multiplier", self.filter_multiplier)

    @property
    def weights(self) -> dict[str, Any]:
        """What layers with weights are told."""
        return {} if self.init is None else {"init": self.init}

    @property
    def convolutions(self) -> dict[str, Any]:
        """What convolutions and the blocks made of them are told."""
        return {"conv_algorithm": self.conv_algorithm, **self.weights}

    def width(self, channels: int, multiplier: float | None = None) -> int:
        """So many channels, scaled. Raises ValueError for a multiplier that is not positive."""
        if multiplier is None:
            multiplier = self.filter_multiplier
        else:
            _require_positive("stem_multiplier", multiplier)
        return max(1, round(channels * multiplier))

    def conv(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, pad: int = 0,
             **options: Any) -> Conv2d:
        return Conv2d(in_channels, out_channels, kernel_size, stride, pad, **options, **self.convolutions)

    def linear(self, in_features: int, out_features: int) -> Linear:
        return Linear(in_features, out_features, **self.weights)

    def act(self) -> Layer:
        return layers.activation(self.activation)


def pool(kind: str, window: int, stride: int | None = None, *, ceil_mode: bool = False) -> Layer:
    """A pooling layer, 'max' or 'avg' (which has no kinks). Raises ValueError for another kind."""
    if kind not in POOLS:
        raise ValueError(f"pooling {kind!r} is not known; choose from {', '.join(POOLS)}")
    return POOLS[kind](window, stride, ceil_mode=ceil_mode)


def _require_positive(name: str, value: float) -> None:
    if not (isinstance(value, (int, float)) and 0 < value < math.inf):
        raise ValueError(f"{name} must be a positive number but is {value!r}")
