"""PyTorch, the peer: any of our models as a module with the same weights, and its ways of taking a step.

It is given its best: fused SGD, gradients set to None, float32 inputs in memory in the layout that it is told to use,
as many threads as we have. Its compiler is left out: on the CPU compiled steps took 1.1 to 1.5 times as long as the
best of these for perceptrons and LeNet-5, and as long for ResNet-18. This file needs PyTorch; the others import it
where they use it.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from fastnet.bench.machine import has_bf16
from fastnet.nn import layers, pooling
from fastnet.nn.blocks import Concatenate, Residual, ZeroPadShortcut
from fastnet.nn.convolution import Conv2d
from fastnet.nn.interop import places, to_torch
from fastnet.nn.layer import Layer, Shape
from fastnet.nn.sequential import Sequential


def variants(maps: bool) -> tuple[str, ...]:
    """The ways worth timing: two layouts for maps, and bf16 autocast (channels last) where the processor has bf16."""
    return ("eager", *("channels_last",) * maps, *("bf16",) * has_bf16())


def twin(model: Sequential, input_shape: Shape) -> nn.Module:
    """A module that computes what `model` does, on (N, C, H, W) or (N, D), with copies of its parameters.

    Its layers have our names. Raises NotImplementedError for a layer that has no counterpart here.
    """
    shapes = {id(layer): shape for layer, shape, _ in model.leaves(input_shape)}
    module = _module(model, shapes).to(torch.float64 if model.dtype == np.float64 else torch.float32)
    module.load_state_dict({name: torch.from_numpy(a) for name, a in to_torch(model, input_shape).items()})
    return module.train()


def gradients(model: Sequential, module: nn.Module, input_shape: Shape) -> dict[str, np.ndarray]:
    """The module's gradients under the names, and in the layout, of `model`'s parameters."""
    found = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
    return {place.ours: place.from_torch(found[place.theirs])
            for place in places(model, input_shape) if place.theirs in found}


def step(module: nn.Module, variant: str) -> Callable[[torch.Tensor, torch.Tensor], float]:
    """A function of (inputs, labels) that takes one training step with SGD and momentum and returns the loss."""
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9, fused=True)
    criterion = nn.CrossEntropyLoss()

    def run(inputs: torch.Tensor, labels: torch.Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        with precision(variant):
            loss = criterion(module(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def inference(module: nn.Module, variant: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that computes the logits of its inputs."""
    module.eval()

    def run(inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), precision(variant):
            return module(inputs)

    return run


def precision(variant: str) -> contextlib.AbstractContextManager[Any]:
    """What a forward pass of this variant runs in."""
    return torch.autocast("cpu", torch.bfloat16) if variant == "bf16" else contextlib.nullcontext()


def layout(variant: str) -> torch.memory_format:
    """How maps and their weights lie in memory."""
    return torch.contiguous_format if variant == "eager" else torch.channels_last


def prepared(module: nn.Module, variant: str, x: np.ndarray) -> tuple[nn.Module, torch.Tensor]:
    """The module and x (N, H, W, C) or (N, D) as this variant wants them."""
    inputs = torch.from_numpy(x)
    if x.ndim != 4:
        return module, inputs
    return (module.to(memory_format=layout(variant)),  # type: ignore[call-overload]
            inputs.permute(0, 3, 1, 2).contiguous(memory_format=layout(variant)))


class FlatLinear(nn.Linear):
    """Linear, of maps too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(1))


class Sum(nn.Module):
    """What `Residual` is; its children are the main branch's layers, `downsample` and `activation`."""

    def __init__(self, main: Iterable[tuple[str, nn.Module]], downsample: nn.Module | None,
                 activation: nn.Module | None) -> None:
        super().__init__()
        self.main = []
        for name, module in main:
            self.add_module(name, module)
            self.main.append(module)  # in a plain list, or each would have two names
        self.downsample, self.activation = downsample, activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for module in self.main:
            y = module(y)
        y = y + (x if self.downsample is None else self.downsample(x))
        return y if self.activation is None else self.activation(y)


class Joined(nn.Sequential):
    """What `Concatenate` is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


class ZeroPad(nn.Module):
    """What `ZeroPadShortcut` is."""

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self.stride, self.channels = stride, channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels - x.shape[1]))


_SIMPLE: dict[type[Layer], Callable[[Any], nn.Module]] = {
    layers.ReLU: lambda _: nn.ReLU(), layers.Swish: lambda _: nn.SiLU(), layers.Tanh: lambda _: nn.Tanh(),
    layers.GELU: lambda a: nn.GELU(**a.options()), layers.ELU: lambda a: nn.ELU(**a.options()),
    layers.LeakyReLU: lambda a: nn.LeakyReLU(**a.options()), layers.Sigmoid: lambda _: nn.Sigmoid(),
    layers.Dropout: lambda a: nn.Dropout(a.p), layers.Flatten: lambda _: nn.Flatten(),
    layers.Linear: lambda a: FlatLinear(a.in_features, a.out_features, a.bias),
    Conv2d: lambda a: nn.Conv2d(a.in_channels, a.out_channels, a.kernel_size, a.stride, a.pad, a.dilation, a.groups,
                                a.bias),
    pooling.MaxPool2d: lambda a: nn.MaxPool2d(a.window, a.stride, a.pad, ceil_mode=a.ceil_mode),
    pooling.AvgPool2d: lambda a: nn.AvgPool2d(a.window, a.stride, a.pad, ceil_mode=a.ceil_mode),
    pooling.GlobalAvgPool: lambda _: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ZeroPadShortcut: lambda a: ZeroPad(a.stride, a.out_channels),
}


def _module(layer: Layer, shapes: dict[int, Shape]) -> nn.Module:
    def named(children: Iterable[Layer]) -> "OrderedDict[str, nn.Module]":
        return OrderedDict((child.name, _module(child, shapes)) for child in children)

    if isinstance(layer, Sequential):
        return nn.Sequential(named(layer.layers))
    if isinstance(layer, Residual):
        return Sum(named(layer.main.layers).items(),
                   *(None if part is None else _module(part, shapes) for part in (layer.shortcut, layer.activation)))
    if isinstance(layer, Concatenate):
        return Joined(named(layer.branches))
    if isinstance(layer, layers.BatchNorm):
        kind = nn.BatchNorm2d if len(shapes[id(layer)]) == 3 else nn.BatchNorm1d
        return kind(layer.num_features, layer.eps, 1 - layer.stat_decay)
    if type(layer) not in _SIMPLE:
        raise NotImplementedError(f"bench: {layer.kind} has no counterpart in PyTorch here")
    return _SIMPLE[type(layer)](layer)
