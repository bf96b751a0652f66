"""Initialisers, named by their formula.

For a weight of shape (..., in, out) fan_in = the product of all axes but the last and fan_out = that of all axes
but the last but one: D_in and D_out of a linear layer, KH KW C_in and KH KW C_out of a convolution.

| name | distribution | source |
|---|---|---|
| zeros, ones | constant | |
| normal(sigma) | N(0, sigma^2) | |
| lecun_normal (alias xavier: the "XavierInitializer" of report R2) | N(0, 1/fan_in) | LeCun et al., "Efficient backprop", 1998, eq. 16 |
| glorot_normal, glorot_uniform | variance 2/(fan_in + fan_out) | Glorot & Bengio, 2010, eqs. 12 and 16 |
| kaiming_normal, kaiming_uniform | variance 2/fan_in | He et al., "Delving deep into rectifiers", 2015, eq. 10 |
| torch_default | U(-b, b), b = 1/sqrt(fan_in), biases too | PyTorch's nn.Linear and nn.Conv2d: Kaiming uniform with a = sqrt 5 |
"""  # noqa: E501

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastnet.functions import philox


@dataclass(frozen=True)
class Initializer:
    """A named distribution; `scale(fan_in, fan_out)` is its standard deviation or, if uniform, its half-width."""

    name: str
    kind: str
    scale: Callable[[int, int], float]

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, *, seed: int, index: int) -> np.ndarray:
        """A float64 array of `shape`; `index` tells the parameters of one model apart."""
        size = math.prod(shape)
        scale = self.scale(fan_in, fan_out)
        if self.kind == "constant":
            return np.full(shape, scale)
        if self.kind == "normal":
            numbers = philox.normal(size, seed=seed, stream=philox.INITIALIZATION, sample=index)
        else:
            words = philox.run(np.array([index]), seed=seed, stream=philox.INITIALIZATION, count=size)
            numbers = 2 * philox.uniform(words[0]) - 1
        return (scale * numbers).reshape(shape)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight array."""
    return math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]


def normal(sigma: float) -> Initializer:
    """N(0, sigma^2) whatever the fans. Raises ValueError unless sigma >= 0."""
    if not sigma >= 0:
        raise ValueError(f"initializers: sigma must not be negative but is {sigma}")
    return Initializer(f"normal:{sigma:g}", "normal", lambda fan_in, fan_out: sigma)


zeros = Initializer("zeros", "constant", lambda fan_in, fan_out: 0.0)
ones = Initializer("ones", "constant", lambda fan_in, fan_out: 1.0)
lecun_normal = Initializer("lecun_normal", "normal", lambda fan_in, fan_out: math.sqrt(1 / fan_in))
glorot_normal = Initializer("glorot_normal", "normal", lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)))
glorot_uniform = Initializer("glorot_uniform", "uniform", lambda fan_in, fan_out: math.sqrt(6 / (fan_in + fan_out)))
kaiming_normal = Initializer("kaiming_normal", "normal", lambda fan_in, fan_out: math.sqrt(2 / fan_in))
kaiming_uniform = Initializer("kaiming_uniform", "uniform", lambda fan_in, fan_out: math.sqrt(6 / fan_in))
torch_default = Initializer("torch_default", "uniform", lambda fan_in, fan_out: math.sqrt(1 / fan_in))

NAMED = {i.name: i for i in (zeros, ones, lecun_normal, glorot_normal, glorot_uniform, kaiming_normal,
                             kaiming_uniform, torch_default)}
NAMED["xavier"] = lecun_normal


def get(initializer: str | Initializer) -> Initializer:
    """The initialiser of that name (`normal:SIGMA` for normal(SIGMA)). Raises ValueError for an unknown one."""
    if isinstance(initializer, Initializer):
        return initializer
    if initializer in NAMED:
        return NAMED[initializer]
    name, _, sigma = initializer.partition(":")
    if name == "normal":
        try:
            return normal(float(sigma))
        except ValueError:
            pass
    raise ValueError(f"initializers: {initializer!r} is not known; choose from {', '.join(NAMED)}, normal:SIGMA")
