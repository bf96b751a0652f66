"""PyTorch's counterpart of an op: forward and backward on the same numbers. This file needs PyTorch."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from fastnet.bench import peer
from fastnet.bench.sizes import Call

Tensor = torch.Tensor


def _norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return functional.batch_norm(x, None, None, gamma, beta, training=True)


def _norm_fixed(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return functional.batch_norm(x, mean, var, gamma, beta)


# Ops by name, as functions of tensors (N, C, H, W) or (N, D), with our options.
COUNTERPARTS: dict[str, Callable[..., Tensor]] = {
    "avg_pool2d": lambda x, window: functional.avg_pool2d(x, window),
    "batch_norm": _norm,
    "batch_norm_add_relu": lambda x, gamma, beta, shortcut: (_norm(x, gamma, beta) + shortcut).relu(),
    "batch_norm_fixed": _norm_fixed,
    "batch_norm_fixed_add_relu": lambda x, gamma, beta, mean, var, shortcut: (
        _norm_fixed(x, gamma, beta, mean, var) + shortcut).relu(),
    "batch_norm_fixed_relu": lambda *arrays: _norm_fixed(*arrays).relu(),
    "batch_norm_relu": lambda *arrays: _norm(*arrays).relu(),
    "conv2d": lambda x, w, b, stride=1, pad=0, groups=1, conv_algorithm="": functional.conv2d(
        x, w, b, stride, pad, groups=groups),
    "conv2d_relu_max_pool2d": lambda x, w, b, window, pad=0: functional.max_pool2d(
        functional.conv2d(x, w, b, padding=pad).relu(), window),
    "dropout": lambda x, samples, p, key: functional.dropout(x, p),
    "elu": functional.elu,
    "gelu": functional.gelu,
    "global_avg_pool": lambda x: functional.adaptive_avg_pool2d(x, 1).flatten(1),
    "huber": functional.huber_loss,
    "leaky_relu": functional.leaky_relu,
    "linear": functional.linear,
    "linear_relu": lambda x, w, b: functional.linear(x, w, b).relu(),
    "max_pool2d": lambda x, window: functional.max_pool2d(x, window),
    "mean_squared_error": functional.mse_loss,
    "pooled_softmax_cross_entropy": lambda x, w, labels, b: functional.cross_entropy(
        functional.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1), w, b), labels),
    "relu": functional.relu,
    "relu_max_pool2d": lambda x, window: functional.max_pool2d(functional.relu(x), window),
    "sigmoid": torch.sigmoid,
    "sigmoid_cross_entropy": functional.binary_cross_entropy_with_logits,
    "soft_margin": functional.soft_margin_loss,
    "softmax_cross_entropy": functional.cross_entropy,
    "swish": functional.silu,
    "tanh": torch.tanh,
}
RANDOM = ("dropout",)  # whose numbers are not ours
CONSTANT = ("mean", "var", "targets")  # what nobody asks gradients of there


def both_passes(call: Call, dy: np.ndarray, variant: str) -> Callable[[], tuple[Tensor, ...]]:
    """A function that returns y and the gradients of all floating arguments but constants, in our order."""
    function = COUNTERPARTS[call.op]
    tensors = [_theirs(key, a, variant) for key, a in call.arrays.items()]
    wanted = [t.requires_grad_() for key, t in zip(call.arrays, tensors, strict=True)
              if t.is_floating_point() and key not in CONSTANT]
    cotangent = _theirs("x", dy, variant)

    def run() -> tuple[Tensor, ...]:
        y = function(*tensors, **call.size.options)
        return y, *torch.autograd.grad(y, wanted, cotangent)

    return run


def named(call: Call, found: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    """{`y` or the argument of a gradient: what `both_passes` found, as it lies with us}."""
    keys = [key for key, a in call.arrays.items() if a.dtype.kind == "f" and key not in CONSTANT]
    return {key: _ours(key, t) for key, t in zip(["y", *keys], found, strict=True)}


def _theirs(key: str, a: np.ndarray, variant: str) -> Tensor:
    t = torch.from_numpy(np.asarray(a))
    if a.ndim == 4:
        return t.permute((3, 2, 0, 1) if key == "w" else (0, 3, 1, 2)).contiguous(memory_format=peer.layout(variant))
    return t.T.contiguous() if key == "w" else t


def _ours(key: str, t: Tensor) -> np.ndarray:
    if t.ndim == 4:
        t = t.permute((2, 3, 1, 0) if key == "w" else (0, 2, 3, 1))
    return (t.T if key == "w" and t.ndim == 2 else t).detach().numpy()
