"""Inputs that every implementation of every op is checked on: small, random, of every form the op takes.

They keep away from kinks by construction: |x| >= 0.1 for the ops with one at 0, and a residual well inside or well
outside delta for Huber's loss. Batches have 5 to 8 samples; batch normalisation needs more than 4, because with two
the normalised values are +-1 whatever the input.
"""

import math
import pkgutil
import zlib
from dataclasses import dataclass, field

import numpy as np

import fastnet.ops
from fastnet.functions.philox import DROPOUT
from fastnet.ops import batch_norm, batch_norm_fixed, batch_norm_relu, conv2d, perceptron
from fastnet.shapes import ABSENT, Hidden


@dataclass(frozen=True, eq=False)
class Case:
    """One call: `forward(*arrays, **options)` of op `op`, in float64 (labels and sample ids are int64).

    `entries` of each array are differentiated one by one in a check.
    """

    op: str
    label: str
    arrays: tuple
    options: dict = field(default_factory=dict)
    entries: int = 400


def ops() -> list[str]:
    """The names of all ops: the modules of `fastnet.ops`, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(fastnet.ops.__path__) if not m.name.startswith("_"))


def cases(op: str, seed: int = 0) -> list[Case]:
    """The test inputs of an op, the same for the same seed. Raises ValueError for an op that has none."""
    if op not in _CASES:
        raise ValueError(f"check: op {op!r} has no test inputs; add them to fastnet/check/cases.py")
    rng = np.random.default_rng([seed, zlib.crc32(op.encode())])
    return [Case(op, label, arrays, options) for label, arrays, options in _CASES[op](rng)]


def _away_from_zero(rng, *shape):
    return rng.choice([-1.0, 1.0], shape) * (0.1 + rng.exponential(1.0, shape))


def _elementwise(*option_sets, kink=False):
    def build(rng):
        draw = _away_from_zero if kink else lambda rng, *shape: 2 * rng.standard_normal(shape)
        for options in option_sets or ({},):
            name = ", ".join(f"{k}={v}" for k, v in options.items())
            yield f"(N, D) {name}".strip(), (draw(rng, 7, 5),), options
            yield f"(N, H, W, C) {name}".strip(), (draw(rng, 5, 3, 3, 2),), options
    return build


def _gelu(rng):
    yield from _elementwise({"approximate": "none"}, {"approximate": "tanh"})(rng)
    yield "far from 0", (rng.choice([-1.0, 1.0], (7, 5)) * rng.uniform(30, 60, (7, 5)),), {}


def _linear(rng):
    x, w, b = rng.standard_normal((7, 5)), rng.standard_normal((5, 3)), rng.standard_normal(3)
    yield "with b", (x, w, b), {}
    yield "without b", (x[:5], w, None), {}


def _linear_to(rng, z, with_b):
    """(x, w, b) with x w + b = z: there are more inputs than outputs, so some x near any other has exactly that."""
    outputs = z.shape[1]
    x, w = rng.standard_normal((len(z), outputs + 2)), rng.standard_normal((outputs + 2, outputs))
    b = rng.standard_normal(outputs) if with_b else None
    return x + (z - x @ w - (b if with_b else 0)) @ np.linalg.pinv(w), w, b


def _linear_relu(rng):
    for label, with_b in (("with b", True), ("without b", False)):
        yield label, _linear_to(rng, _away_from_zero(rng, 7, 3), with_b), {}


def _batch_norm(rng):
    for label, shape, options in (("(N, C)", (7, 5), {}), ("(N, H, W, C)", (5, 3, 3, 3), {"eps": 1e-3})):
        gamma, beta = rng.standard_normal((2, shape[-1]))
        yield label, (1.5 + 2 * rng.standard_normal(shape), gamma, beta), options


def _batch_norm_relu(rng):
    for label, (x, gamma, _), options in _batch_norm(rng):
        rows = x.reshape(-1, x.shape[-1])
        gamma += np.sign(gamma)
        rstd = 1 / np.sqrt(rows.var(axis=0) + options.get("eps", 1e-5))
        yield label, (x, gamma, -gamma * (_gap(rows) - rows.mean(axis=0)) * rstd), options


def _perceptron(rng):
    first, second = Hidden(5, 4, 2, 24), Hidden(4, 3, 50, 63)
    normed = first._replace(gamma=30, beta=40, eps=1e-3), second._replace(b=ABSENT, gamma=70, beta=75)
    for label, layers in (("batch norm everywhere", normed), ("batch norm first", (normed[0], second)),
                          ("without batch norm", (first, second))):
        z, vector = rng.standard_normal((7, 5)), rng.standard_normal(90)
        at = z
        # As for batch_norm_relu, zero goes to the widest gap: by beta, and where there is none by what is added before.
        for i, layer in enumerate(layers):
            here = slice(layer.beta, layer.beta + layer.features)
            if layer.gamma != ABSENT:
                gamma = vector[layer.gamma : layer.gamma + layer.features]
                gamma += np.sign(gamma)
                vector[here] = -gamma * (_gap(at) - at.mean(axis=0)) / np.sqrt(at.var(axis=0) + layer.eps)
            elif i == 0:
                z -= _gap(z)
            else:
                vector[first.b : first.b + first.outputs] -= _gap(at)
            at, _ = perceptron.forward(z, vector, layers=layers[: i + 1])
        yield label, (z, vector), {"layers": layers}


def _gap(rows):
    """For each column the middle of the widest gap between two of its inner values."""
    ordered = np.sort(rows, axis=0)[len(rows) // 4 : -(len(rows) // 4)]
    widest = np.diff(ordered, axis=0).argmax(axis=0), np.arange(rows.shape[1])
    return (ordered[:-1][widest] + ordered[1:][widest]) / 2


def _batch_norm_add_relu(rng):
    for label, arrays, options in _batch_norm(rng):
        normalised, _ = batch_norm.forward(*arrays, **options)
        yield label, (*arrays, _away_from_zero(rng, *normalised.shape) - normalised), options


def _batch_norm_fixed_relu(rng):
    for label, (x, gamma, beta, mean, var), options in _batch_norm_fixed(rng):
        gamma += np.sign(gamma)  # small ones would ask for a large x, and a step of gamma would carry it over the kink
        scale = gamma / np.sqrt(var + options.get("eps", 1e-5))
        yield label, (mean + (_away_from_zero(rng, *x.shape) - beta) / scale, gamma, beta, mean, var), options


def _batch_norm_fixed_add_relu(rng):
    for label, arrays, options in _batch_norm_fixed(rng):
        normalised, _ = batch_norm_fixed.forward(*arrays, **options)
        yield label, (*arrays, _away_from_zero(rng, *normalised.shape) - normalised), options


def _batch_norm_fixed(rng):
    for label, (x, gamma, beta), options in _batch_norm(rng):
        mean, var = rng.standard_normal(gamma.shape), rng.uniform(0.5, 3.0, gamma.shape)
        yield label, (x, gamma, beta, mean, var), options


def _conv2d(rng):
    for size, kernel, options in (
            ((4, 5, 2), (3, 3, 2, 3), {"pad": 1}), ((5, 4, 3), (2, 3, 3, 2), {"stride": 2}),
            ((3, 3, 3), (1, 1, 3, 4), {"stride": (2, 1)}),
            ((6, 5, 2), (3, 2, 2, 2), {"pad": (2, 1), "dilation": (2, 1)}),
            ((5, 5, 4), (3, 3, 2, 6), {"groups": 2, "stride": 3, "pad": 2}),
            ((4, 4, 3), (3, 3, 1, 3), {"groups": 3, "pad": 1})):
        x, w = rng.standard_normal((5, *size)), rng.standard_normal(kernel)
        b = rng.standard_normal(kernel[-1]) if options != {"stride": 2} else None
        yield f"{kernel[0]}x{kernel[1]} " + ", ".join(f"{k}={v}" for k, v in options.items()), (x, w, b), options


def _augment_conv2d(rng):
    for size, kernel, augmentation, options in (
            ((6, 5, 3), (3, 3, 3, 8), {"pad": 2, "horizontal_flip": True}, {"pad": 1}),
            ((6, 7, 3), (5, 3, 3, 4), {"vertical_flip": True}, {"stride": (1, 2)}),
            ((5, 5, 2), (2, 2, 2, 9), {}, {"pad": (0, 1), "dilation": 2})):
        images = rng.integers(0, 256, (9, *size), dtype=np.uint8)
        indices, w = rng.integers(0, 9, 5), rng.standard_normal(kernel)
        mean, scale = rng.normal(120, 20, size), rng.uniform(0.01, 0.03, size)
        b = rng.standard_normal(kernel[-1]) if augmentation else None
        label = [f"{kernel[0]}x{kernel[1]}", *(f"{k}={v}" for k, v in options.items()), *(f"augmentation {k}" for k in
                                                                                         augmentation)]
        yield (", ".join(label),
               (images, indices, indices + 1000, np.array([3]), mean, scale, w, b),
               {"seed": 2**40 + 7, "augmentation": augmentation, **options})


def _basic_block(rng):
    for label, stride, inputs, outputs in (("identity", 1, 2, 2), ("projection, stride 2", 2, 1, 2)):
        x = rng.standard_normal((5, 2 + stride, 3, inputs))
        w1, w2 = rng.standard_normal((3, 3, inputs, outputs)), rng.standard_normal((3, 3, outputs, outputs))
        gamma1, gamma2, beta2 = rng.uniform(1, 2, (3, outputs))
        # Zero goes to the widest gap, as for batch_norm_relu; at the end by the shortcut, by beta2 where that is x.
        y1, _ = conv2d.forward(x, w1, stride=stride, pad=1)
        rows = y1.reshape(-1, outputs)
        beta1 = -gamma1 * (_gap(rows) - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-3)
        h, _ = batch_norm_relu.forward(y1, gamma1, beta1, eps=1e-3)
        z, _ = batch_norm.forward(conv2d.forward(h, w2, pad=1)[0], gamma2, beta2)
        shortcut = None if stride == 1 else _away_from_zero(rng, *z.shape) - z
        if shortcut is None:
            beta2 -= _gap((z + x).reshape(-1, outputs))
        yield label, (x, w1, gamma1, beta1, w2, gamma2, beta2, shortcut), {"stride": stride, "eps1": 1e-3}


def _pool(rng):
    for shape, options in (((5, 4, 4, 2), {"window": 2}), ((5, 5, 7, 2), {"window": 3, "stride": 2, "pad": 1}),
                           ((5, 5, 4, 2), {"window": (2, 3), "stride": (2, 1)}),
                           ((5, 5, 6, 1), {"window": 3, "stride": 2, "ceil_mode": True}),
                           ((5, 6, 5, 1), {"window": 5, "stride": 3, "pad": 2, "ceil_mode": True}),
                           ((5, 4, 5, 1), {"window": 2, "stride": 3, "pad": 1, "ceil_mode": True})):
        # All values differ by at least 0.05: no step of a difference makes another one the largest.
        x = 0.05 * rng.permutation(int(np.prod(shape))).reshape(shape) - 2
        yield ", ".join(f"{k}={v}" for k, v in options.items()), (x,), options


def _relu_max_pool2d(rng):
    for label, (x,), options in _pool(rng):
        yield label, (x + 2.025 - 0.05 * (x.size // 2),), options  # zero lies between two of the values


def _conv2d_relu_max_pool2d(rng):
    for size, kernel, convolution, pooling in (
            ((5, 6, 3), (2, 3, 3, 2), {}, {"window": 2}), ((4, 4, 4), (3, 3, 4, 2), {"pad": 1}, {"window": (2, 1)}),
            ((5, 5, 3), (2, 2, 3, 2), {}, {"window": 3, "pool_stride": 2, "pool_pad": 1}),
            ((6, 6, 4), (2, 2, 2, 4), {"groups": 2, "stride": (2, 1)}, {"window": 2, "ceil_mode": True})):
        w, b = rng.standard_normal(kernel), rng.standard_normal(kernel[-1]) if convolution else None
        # The convolution as a matrix, by what it makes of each entry: there are more of them than outputs, so some x
        # has any outputs. All of these differ, as those of `_pool`, and zero lies between two of them.
        units = np.eye(math.prod(size)).reshape(-1, *size)
        matrix = conv2d.forward(units, w, None, **convolution)[0].reshape(len(units), -1)
        z = 0.1 * rng.permutation(5 * matrix.shape[1]).reshape(5, *matrix.shape[1:])
        z -= 0.1 * (z.size // 2) + 0.05
        bias = 0 if b is None else np.tile(b, matrix.shape[1] // len(b))
        x = ((z - bias) @ np.linalg.pinv(matrix)).reshape(5, *size)
        options = convolution | pooling
        yield ", ".join(f"{k}={v}" for k, v in options.items()), (x, w, b), options


def _global_avg_pool(rng):
    yield "(N, H, W, C)", (rng.standard_normal((6, 3, 4, 3)),), {}
    yield "one place", (rng.standard_normal((5, 1, 1, 4)),), {}


def _dropout(rng):
    key = (2**40 + 7, DROPOUT + 1, 3)
    for label, shape, p, samples in (("(N, D) p=0.5", (7, 5), 0.5, [4, 90, 17, 2, 50_000, 3, 8]),
                                     ("(N, H, W, C) p=0.2", (5, 3, 3, 3), 0.2, [11, 3, 49_999, 0, 7]),
                                     ("(N, D) p=0", (5, 3), 0.0, [5, 6, 7, 8, 9])):
        yield label, (rng.standard_normal(shape), np.array(samples)), {"p": p, "key": key}


def _softmax_cross_entropy(rng):
    for label_smoothing in (0.0, 0.1):
        x, labels = 2 * rng.standard_normal((7, 5)), rng.integers(0, 5, 7)
        options = {"label_smoothing": label_smoothing} if label_smoothing else {}
        yield f"label_smoothing={label_smoothing}", (x, labels), options
    # Their exponentials overflow. All but two samples have a class of probability 1: the loss is a line there.
    x[:5, 2] += 900
    yield "large logits", (x, labels), options


def _pooled_softmax_cross_entropy(rng):
    for size, with_b, label_smoothing in (((3, 2, 4), True, 0.0), ((1, 1, 3), False, 0.1)):
        x, w, b = rng.standard_normal((7, *size)), 2 * rng.standard_normal((size[-1], 5)), rng.standard_normal(5)
        arrays = x, w, rng.integers(0, 5, 7), b if with_b else None
        yield f"{size[0]}x{size[1]} label_smoothing={label_smoothing}", arrays, {"label_smoothing": label_smoothing}


def _loss(draw_targets):
    """Labels and targets of x's shape, each with both reductions."""
    def build(rng):
        for reduction in ("mean", "sample_mean"):
            x, labels = 2 * rng.standard_normal((7, 5)), rng.integers(0, 5, 7)
            yield f"labels, {reduction}", (x, labels), {"reduction": reduction}
            yield f"targets, {reduction}", (x, draw_targets(rng, x.shape)), {"reduction": reduction}
    return build


def _huber(rng):
    for delta, reduction in ((1.0, "mean"), (0.5, "sample_mean")):
        shape, options = (7, 5), {"delta": delta, "reduction": reduction} if delta != 1 else {}
        size = np.where(rng.random(shape) < 0.5, rng.uniform(0.1, 0.8, shape), rng.uniform(1.2, 3.0, shape)) * delta
        residual = rng.choice([-1.0, 1.0], shape) * size
        labels, targets = rng.integers(0, 5, 7), rng.standard_normal(shape)
        yield f"labels, delta={delta}, {reduction}", (residual + np.eye(5)[labels], labels), options
        yield f"targets, delta={delta}, {reduction}", (residual + targets, targets), options


_CASES = {
    "augment_conv2d": _augment_conv2d,
    "basic_block": _basic_block,
    "conv2d": _conv2d,
    "conv2d_relu_max_pool2d": _conv2d_relu_max_pool2d,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "global_avg_pool": _global_avg_pool,
    "batch_norm": _batch_norm,
    "batch_norm_add_relu": _batch_norm_add_relu,
    "batch_norm_fixed": _batch_norm_fixed,
    "batch_norm_fixed_add_relu": _batch_norm_fixed_add_relu,
    "batch_norm_fixed_relu": _batch_norm_fixed_relu,
    "batch_norm_relu": _batch_norm_relu,
    "dropout": _dropout,
    "elu": _elementwise({}, {"alpha": 0.5}, kink=True),
    "gelu": _gelu,
    "huber": _huber,
    "leaky_relu": _elementwise({}, {"negative_slope": 0.2}, kink=True),
    "linear": _linear,
    "linear_relu": _linear_relu,
    "perceptron": _perceptron,
    "mean_squared_error": _loss(lambda rng, shape: rng.standard_normal(shape)),
    "pooled_softmax_cross_entropy": _pooled_softmax_cross_entropy,
    "relu": _elementwise(kink=True),
    "relu_max_pool2d": _relu_max_pool2d,
    "sigmoid": _elementwise(),
    "sigmoid_cross_entropy": _loss(lambda rng, shape: rng.random(shape)),
    "soft_margin": _loss(lambda rng, shape: rng.choice([-1.0, 1.0], shape)),
    "softmax_cross_entropy": _softmax_cross_entropy,
    "swish": _elementwise(),
    "tanh": _elementwise(),
}
