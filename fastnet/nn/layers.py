"""The layers, thin wrappers that give an op of `fastnet.ops` its parameters. Named as in PyTorch where it has one."""

import math
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.arrays import Array, accumulator
from fastnet.functions import philox
from fastnet.nn import initializers
from fastnet.nn.initializers import Initializer
from fastnet.nn.layer import Backward, Context, Layer, Shape
from fastnet.nn.parameters import Parameter, collect


class Linear(Layer):
    """y = x w + b. An x of more than two dimensions is flattened sample by sample.

    `init` (default: N(0, 1/fan_in), as in reports R1-R3) is for w; b starts at zero unless `bias_init` says
    otherwise or `init` is `torch_default`, which covers both.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *,
                 init: str | Initializer = "lecun_normal", bias_init: str | Initializer | None = None) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ValueError(f"Linear: features must be positive, but in_features is {in_features} and "
                             f"out_features {out_features}")
        self.in_features, self.out_features, self.bias = in_features, out_features, bias
        weight = initializers.get(init)
        self.parameters_here["w"] = Parameter((in_features, out_features), weight, penalised=True)
        if bias:
            start = initializers.get(bias_init or (weight if weight.name == "torch_default" else "zeros"))
            self.parameters_here["b"] = Parameter((out_features,), start, penalised=False,
                                                  fan_shape=(in_features, out_features))

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        return self.run("", x)

    def run(self, then: str, x: Array) -> tuple[Array, Backward]:
        """The passes of the op that is the linear layer and what `then` names: "" or "_relu"."""
        w, b = self.parameters_here["w"], self.parameters_here.get("b")
        flat = x.reshape(len(x), -1) if x.ndim > 2 else x
        y, gradients = backend.run("linear" + then, flat, w.value, b.value if b else None)

        def back(dy: Array, needs_dx: bool = True) -> Array | None:
            dx = collect(gradients, dy, needs_dx, (w, b))
            return None if dx is None else dx.reshape(x.shape)

        return y, back

    def output_shape(self, shape: Shape) -> Shape:
        if math.prod(shape) != self.in_features:
            raise ValueError(f"Linear: the input is {shape}, {math.prod(shape)} features a sample, but the layer takes "
                             f"{self.in_features}")
        return (self.out_features,)

    def macs(self, shape: Shape) -> int:
        return self.in_features * self.out_features

    def options(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "out_features": self.out_features, "bias": self.bias}


class BatchNorm(Layer):
    """Batch normalisation over all axes but the last; running averages in inference.

    `stat_decay` is the weight of the old running statistic: running = stat_decay running + (1 - stat_decay) batch
    (Keras calls it momentum; PyTorch's momentum is 1 - stat_decay). The running variance takes the unbiased
    variance of the batch, M/(M-1) times the one that normalises it, unless `unbiased` is False.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5, stat_decay: float = 0.9, unbiased: bool = True) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"BatchNorm: num_features must be at least 1 but is {num_features}")
        if not 0 <= stat_decay <= 1:
            raise ValueError(f"BatchNorm: stat_decay must be in [0, 1] but is {stat_decay}")
        if not eps > 0:
            raise ValueError(f"BatchNorm: eps must be positive but is {eps}")
        self.num_features, self.eps, self.stat_decay, self.unbiased = num_features, eps, stat_decay, unbiased
        self.parameters_here["gamma"] = Parameter((num_features,), initializers.ones, penalised=False)
        self.parameters_here["beta"] = Parameter((num_features,), initializers.zeros, penalised=False)
        # They take no memory before the model is made: how large it is has to be known first where a file describes it.
        self.statistics_here["running_mean"] = np.broadcast_to(np.float32(0), num_features)
        self.statistics_here["running_var"] = np.broadcast_to(np.float32(1), num_features)

    @classmethod
    def from_torch(cls, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> "BatchNorm":
        """The layer that PyTorch's nn.BatchNorm1d/2d with these arguments is."""
        return cls(num_features, eps=eps, stat_decay=1 - momentum)

    @classmethod
    def from_keras(cls, num_features: int, momentum: float = 0.99, epsilon: float = 1e-3) -> "BatchNorm":
        """The layer that Keras' BatchNormalization with these arguments is (its running variance is biased)."""
        return cls(num_features, eps=epsilon, stat_decay=momentum, unbiased=False)

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        return self.run("", x, context)

    def run(self, then: str, x: Array, context: Context, *beside: Array) -> tuple[Array, Backward]:
        """The passes of the op that is batch normalisation and what `then` names: "", "_relu" or "_add_relu".

        Where such an op takes an array `beside` x, back gives the pair of its gradient and dx, dx first.
        """
        gamma, beta = self.parameters_here["gamma"], self.parameters_here["beta"]
        running: tuple[Array, ...] = ()
        if not context.training:
            then = "_fixed" + then
            running = tuple(s.astype(accumulator(x.dtype), copy=False) for s in self.statistics_here.values())
        arrays = (x, gamma.value, beta.value, *running, *beside)
        op = backend.pair("batch_norm" + then, *arrays, eps=self.eps)
        y, cache = op.forward(*arrays, eps=self.eps)
        if context.training and context.update_statistics:
            mean, var = op.statistics(cache)
            self.track(mean, var, math.prod(x.shape[:-1]))

        gradients = backend.callback("batch_norm" + then, op, y, cache)

        def back(dy: Array, needs_dx: bool = True) -> Any:
            needs = (needs_dx, True, True, *(False for _ in running), *(True for _ in beside))
            into = (None, gamma.free_gradient, beta.free_gradient, *(None for _ in (*running, *beside)))
            dx, dgamma, dbeta, *rest = gradients(dy, needs, into)
            gamma.accumulate(dgamma)
            beta.accumulate(dbeta)
            return (dx, rest[-1]) if beside else dx

        return y, back

    def track(self, mean: Array, var: Array, count: int) -> None:
        """Move the running statistics towards those of a batch of `count` values a channel."""
        correction = count / (count - 1) if self.unbiased and count > 1 else 1.0
        backend.keep_books("track_statistics", self.statistics_here["running_mean"],
                           self.statistics_here["running_var"], mean, var, decay=self.stat_decay, correction=correction)

    def output_shape(self, shape: Shape) -> Shape:
        if not shape or shape[-1] != self.num_features:
            raise ValueError(f"BatchNorm: the input is {shape}, but the layer normalises {self.num_features} channels "
                             "(the last axis)")
        return shape

    def options(self) -> dict[str, Any]:
        return {"num_features": self.num_features, "eps": self.eps, "stat_decay": self.stat_decay}


class Elementwise(Layer):
    """An activation: an op with one array and constant options."""

    op = ""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        if options:
            backend.module("reference", self.op).forward(np.zeros(1), **options)  # type: ignore[union-attr]  # checks
        self._options = options

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        y, gradients = backend.run(self.op, x, **self._options)

        def back(dy: Array, needs_dx: bool = True) -> Array | None:
            return gradients(dy)[0] if needs_dx else None

        return y, back

    def options(self) -> dict[str, Any]:
        return dict(self._options)


class ReLU(Elementwise):
    op = "relu"


class LeakyReLU(Elementwise):
    op = "leaky_relu"

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__(negative_slope=negative_slope)


class ELU(Elementwise):
    op = "elu"

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)


class GELU(Elementwise):
    op = "gelu"

    def __init__(self, approximate: str = "none") -> None:
        super().__init__(approximate=approximate)


class Swish(Elementwise):
    """x sigmoid(x); PyTorch calls it SiLU."""

    op = "swish"


class Sigmoid(Elementwise):
    op = "sigmoid"


class Tanh(Elementwise):
    op = "tanh"


SiLU = Swish

ACTIVATIONS = {c.op: c for c in (ReLU, LeakyReLU, ELU, GELU, Swish, Sigmoid, Tanh)}


def activation(name: str) -> Elementwise:
    """A new layer for the activation of that name. Raises ValueError, naming the choices, for an unknown one."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not known; choose from {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


class Dropout(Layer):
    """Inverted dropout with rate `p` in training, the identity in inference.

    The mask is keyed by (seed, layer, epoch, sample), so it is the same whatever the batch or the backend.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p must be in [0, 1) but is {p}")
        self.p = p
        self.index = 0  # which of the model's dropout layers this is; set when the model is built

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        if not context.training or self.p == 0:
            return x, lambda dy, needs_dx=True: dy
        if context.samples is None:
            raise ValueError("Dropout: training needs the ids of the samples (Context.samples), which key the mask")
        y, gradients = backend.run("dropout", x, context.samples, p=self.p,
                                   key=(context.seed, philox.DROPOUT + self.index, context.epoch))
        return y, lambda dy, needs_dx=True: gradients(dy)[0] if needs_dx else None

    def options(self) -> dict[str, Any]:
        return {"p": self.p}


class Flatten(Layer):
    """(N, ...) to (N, D)."""

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        return x.reshape(len(x), -1), lambda dy, needs_dx=True: dy.reshape(x.shape)

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)
