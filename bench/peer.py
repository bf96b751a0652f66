"""PyTorch, the peer: any of our models as a module of its own with the same weights, and its ways of taking a step.

It is given its best: fused SGD, gradients set to None, float32 inputs in memory in the layout that it is told to use,
as many threads as we have.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.nn import layers, pooling
from fastnet.nn.blocks import Concatenate, Residual, ZeroPadShortcut
from fastnet.nn.convolution import Conv2d
from fastnet.nn.layer import Layer, Shape
from fastnet.nn.sequential import Sequential

VARIANTS = ("eager", "channels_last", "bf16")  # bf16: autocast over channels_last


def twin(model: Sequential, input_shape: Shape) -> Any:
    """A torch module that computes what `model` does, on (N, C, H, W), with copies of its parameters.

    Raises NotImplementedError for a layer that has no counterpart here.
    """
    import torch

    model.store  # noqa: B018  (draws the parameters)
    shapes = {id(layer): shape for layer, shape, _ in model.leaves(input_shape)}
    module = _module(model, shapes)
    return module.to(torch.float64 if model.dtype == np.float64 else torch.float32).train()


def gradients(model: Sequential, module: Any, input_shape: Shape) -> dict[str, np.ndarray]:
    """The module's gradients under the names, and in the layout, of `model`'s parameters."""
    shapes = {id(layer): shape for layer, shape, _ in model.leaves(input_shape)}
    paired = zip([layer for layer, _, _ in model.leaves(input_shape) if layer.parameters_here],
                 [m for m in module.modules() if list(m.parameters(recurse=False))], strict=True)
    names = {id(p): name for name, p in model.store}
    found = {}
    for layer, m in paired:
        for key, p in layer.parameters_here.items():
            grad = getattr(m, "weight" if key in ("w", "gamma") else "bias").grad.detach().numpy()
            if isinstance(layer, Conv2d) and key == "w":
                grad = grad.transpose(2, 3, 1, 0)
            elif isinstance(layer, layers.Linear) and key == "w":
                grad = _columns_to_ours(grad, shapes[id(layer)]).T
            found[names[id(p)]] = grad
    return found


def step(module: Any, variant: str, x: np.ndarray, labels: np.ndarray) -> Callable[[], Any]:
    """A function that takes one training step on x (N, H, W, C) or (N, D) with SGD and momentum."""
    import torch

    inputs, module, context = _prepared(module, variant, x)
    targets = torch.from_numpy(labels)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9, fused=True)
    criterion = torch.nn.CrossEntropyLoss()

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        with context():
            loss = criterion(module(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def inference(module: Any, variant: str, x: np.ndarray) -> Callable[[], Any]:
    """A function that computes the logits of x."""
    import torch

    inputs, module, context = _prepared(module.eval(), variant, x)

    def run() -> Any:
        with torch.inference_mode(), context():
            return module(inputs)

    return run


def _prepared(module: Any, variant: str, x: np.ndarray) -> tuple[Any, Any, Callable[[], Any]]:
    import contextlib

    import torch

    inputs = torch.from_numpy(x)
    if x.ndim == 4:
        inputs = inputs.permute(0, 3, 1, 2)
        layout = torch.contiguous_format if variant == "eager" else torch.channels_last
        inputs, module = inputs.contiguous(memory_format=layout), module.to(memory_format=layout)
    if variant == "bf16":
        return inputs, module, lambda: torch.autocast("cpu", torch.bfloat16)
    return inputs, module, contextlib.nullcontext


def _columns_to_ours(weight: np.ndarray, shape: Shape) -> np.ndarray:
    """Columns in the order (C, H, W) of a flattened map as (H, W, C)."""
    if len(shape) != 3:
        return weight
    height, width, channels = shape
    return weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(weight), -1)


def _columns_to_theirs(weight: np.ndarray, shape: Shape) -> np.ndarray:
    if len(shape) != 3:
        return weight
    return weight.reshape(-1, *shape).transpose(0, 3, 1, 2).reshape(len(weight), -1)


def _module(layer: Layer, shapes: dict[int, Shape]) -> Any:
    import torch
    from torch import nn

    simple: dict[type[Layer], Callable[[Any], Any]] = {
        layers.ReLU: lambda _: nn.ReLU(), layers.Swish: lambda _: nn.SiLU(), layers.Tanh: lambda _: nn.Tanh(),
        layers.GELU: lambda a: nn.GELU(**a.options()), layers.ELU: lambda a: nn.ELU(**a.options()),
        layers.LeakyReLU: lambda a: nn.LeakyReLU(**a.options()), layers.Sigmoid: lambda _: nn.Sigmoid(),
        layers.Dropout: lambda a: nn.Dropout(a.p), layers.Flatten: lambda _: nn.Flatten(),
        pooling.MaxPool2d: lambda a: nn.MaxPool2d(a.window, a.stride, a.pad, ceil_mode=a.ceil_mode),
        pooling.AvgPool2d: lambda a: nn.AvgPool2d(a.window, a.stride, a.pad, ceil_mode=a.ceil_mode),
        pooling.GlobalAvgPool: lambda _: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        layers.BatchNorm: lambda a: nn.BatchNorm2d(a.num_features, a.eps, 1 - a.stat_decay)
        if len(shapes[id(a)]) == 3 else nn.BatchNorm1d(a.num_features, a.eps, 1 - a.stat_decay),
    }
    if isinstance(layer, Sequential):
        return nn.Sequential(*(_module(child, shapes) for child in layer.layers))
    if isinstance(layer, Residual):
        return _Sum.of(_module(layer.main, shapes), _module(layer.shortcut, shapes) if layer.shortcut else None,
                       _module(layer.activation, shapes) if layer.activation else None)
    if isinstance(layer, Concatenate):
        return _Joined.of([_module(branch, shapes) for branch in layer.branches])
    if isinstance(layer, ZeroPadShortcut):
        return _ZeroPad.of(layer.stride, layer.out_channels)
    if type(layer) in simple:
        return simple[type(layer)](layer)
    values = {key: p.value for key, p in layer.parameters_here.items()}
    with torch.no_grad():
        if isinstance(layer, Conv2d):
            module: Any = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.pad,
                                    layer.dilation, layer.groups, layer.bias)
            weight = values["w"].transpose(3, 2, 0, 1)
        elif isinstance(layer, layers.Linear):
            module = nn.Linear(layer.in_features, layer.out_features, layer.bias)
            weight = _columns_to_theirs(values["w"].T, shapes[id(layer)])
        else:
            raise NotImplementedError(f"bench: {layer.kind} has no counterpart in PyTorch here")
        module.weight = nn.Parameter(torch.from_numpy(np.ascontiguousarray(weight)))
        if layer.bias:
            module.bias = nn.Parameter(torch.from_numpy(values["b"].copy()))
    return nn.Sequential(nn.Flatten(), module) if isinstance(layer, layers.Linear) else module


class _Sum:
    """What `Residual` is."""

    @staticmethod
    def of(main: Any, shortcut: Any, activation: Any) -> Any:
        from torch import nn

        class Sum(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.main, self.shortcut, self.activation = main, shortcut, activation

            def forward(self, x: Any) -> Any:
                y = self.main(x) + (x if self.shortcut is None else self.shortcut(x))
                return y if self.activation is None else self.activation(y)

        return Sum()


class _Joined:
    """What `Concatenate` is."""

    @staticmethod
    def of(branches: list[Any]) -> Any:
        import torch
        from torch import nn

        class Joined(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.branches = nn.ModuleList(branches)

            def forward(self, x: Any) -> Any:
                return torch.cat([branch(x) for branch in self.branches], dim=1)

        return Joined()


class _ZeroPad:
    """What `ZeroPadShortcut` is."""

    @staticmethod
    def of(stride: int, channels: int) -> Any:
        from torch import nn

        class ZeroPad(nn.Module):
            def forward(self, x: Any) -> Any:
                return nn.functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, channels - x.shape[1]))

        return ZeroPad()
