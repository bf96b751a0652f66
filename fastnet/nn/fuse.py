"""Neighbouring layers that run as one op: a table of patterns, the chain of a perceptron, which has any length, and
`fuse`, which looks for them in a model.

The layers stay what and where they are: a container keeps beside them the list of what it really runs, in which a
`Fused` layer stands for each run of layers that matches a pattern. It holds these layers, so their parameters, running
statistics and options are the ones in use, under their own names. A pass with a tap runs the layers one by one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastnet import backend
from fastnet.arrays import Array
from fastnet.nn.convolution import Conv2d
from fastnet.nn.layer import Backward, Chain, Container, Context, Layer, has_parameters
from fastnet.nn.layers import BatchNorm, Linear, ReLU
from fastnet.nn.pooling import GlobalAvgPool, MaxPool2d
from fastnet.shapes import Hidden

FEW = 1 << 16  # weights that every image can read by itself
SMALL = 1 << 21  # multiply-adds of a product that takes one thread some 30 microseconds


def joined(names: Sequence[str]) -> str:
    """What layers of these names are called together."""
    return "+".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}"


class Fused(Layer):
    """Neighbouring layers, its children, run as one. The container knows their shapes and names."""

    def __init__(self, parts: Sequence[Layer]) -> None:
        super().__init__()
        self.parts = list(parts)
        self.name = joined([part.name for part in parts])

    def children(self) -> list[Layer]:
        return self.parts


class BatchNormReLU(Fused):
    """max(0, batch norm of x), which keeps x alone for the backward pass."""

    parts: list[BatchNorm]  # type: ignore[assignment]

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        return self.parts[0].run("_relu", x, context)


class LinearReLU(Fused):
    """max(0, x w + b)."""

    parts: list[Linear]  # type: ignore[assignment]

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        return self.parts[0].run("_relu", x)


class Perceptron(Fused):
    """Linear layers with ReLU between them, with batch norm before it or without: their small layers in one op.

    The first product is done by itself. In inference, and for layers of more than `SMALL` products, which are better
    cut in parts for all threads, the layers run as they would otherwise.
    """

    parts: list[Any]

    def __init__(self, parts: Sequence[Layer]) -> None:
        super().__init__(parts)
        self._otherwise = Chain(fused(parts, perceptrons=False))
        self._products = max(p.in_features * p.out_features for p in parts[1:] if isinstance(p, Linear))
        self._norms = [part for part in parts if isinstance(part, BatchNorm)]
        self._store: Any = None  # whose places stand in the layers
        self._layers: tuple[Hidden, ...] = ()

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        if not context.training or len(x) * self._products > SMALL:
            return self._otherwise(x, context)
        z, first_back = self.parts[0].run("", x)
        parameters = [p for part in self.parts[1:] for p in part.parameters_here.values()]
        store, layers = parameters[0].store, self._hidden()[1:]
        op = backend.pair("perceptron", z, store.vector, layers=layers)
        y, cache = op.forward(z, store.vector, layers=layers)
        self._track(op.statistics(cache), context, len(x))
        gradients = backend.callback("perceptron", op, y, cache)

        def back(dy: Array, needs_dx: bool = True) -> Array | None:
            free = all(p.pending for p in parameters)
            dz, gradient = gradients(dy, (True, True), (None, store.gradient if free else None))
            for p in parameters:
                p.accumulate(p.grad if gradient is store.gradient else store.part(gradient, p))
            return first_back(dz, needs_dx)

        return y, back

    def step(self, x: Array, labels: Array, context: Context, options: Mapping[str, Any]) -> tuple[Array, Array] | None:
        """(mean softmax cross-entropy, logits) of a training pass, after which all gradients stand in the store.

        None where that is not done in one go: then nothing has been done.
        """
        if not context.training or context.tap is not None or len(x) * self._products > SMALL:
            return None
        x = x.reshape(len(x), -1)
        store, layers = self.parts[0].parameters_here["w"].store, self._hidden()
        function = backend.pair("perceptron_step", x, labels, store.vector, store.gradient, layers=layers, **options)
        if not hasattr(function, "supports"):  # the reference, which gains nothing by it and checks less
            return None
        loss, logits, statistics = function.run(x, labels, store.vector, store.gradient, layers=layers, **options)
        self._track(statistics, context, len(x))
        return loss, logits

    def _track(self, statistics: Iterable[tuple[Array, Array]], context: Context, count: int) -> None:
        if context.update_statistics:
            for norm, (mean, var) in zip(self._norms, statistics, strict=True):
                norm.track(mean, var, count)

    def _hidden(self) -> tuple[Hidden, ...]:
        """The layers as the ops want them, the first product and the others."""
        store = self.parts[0].parameters_here["w"].store
        if self._store is not store:
            layers: list[Hidden] = []
            before: dict[str, Any] = {}  # what the product of the layer to come has before it
            for part in self.parts:
                if isinstance(part, BatchNorm):
                    before = {"eps": part.eps, **{key: p.place for key, p in part.parameters_here.items()}}
                elif isinstance(part, Linear):
                    own = {key: p.place for key, p in part.parameters_here.items()}
                    layers.append(Hidden(part.in_features, part.out_features, **own, **before))
                    before = {}
            self._store, self._layers = store, tuple(layers)
        return self._layers


def _perceptron(layers: Sequence[Layer]) -> int:
    """How many layers, from the first on, `Perceptron` can take."""
    kinds = [type(layer) for layer in layers]
    count = 1
    while kinds[:1] == [Linear]:
        middle = [BatchNorm, ReLU] if kinds[count : count + 1] == [BatchNorm] else [ReLU]
        if kinds[count : count + len(middle) + 1] != [*middle, Linear]:
            break
        count += len(middle) + 1
    return count if count > 1 else 0


class Head(Fused):
    """A model's last linear layer, and global average pooling before it, in one op with the softmax cross-entropy.

    Only a training step on a device asks for that (`with_loss`); otherwise these layers run as they are.
    """

    parts: list[Any]

    def __init__(self, parts: Sequence[Layer]) -> None:
        super().__init__(parts)
        self._otherwise = Chain(parts)

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> "Head | None":
        """That of a chain of layers, None where it does not end so, or has no parameters before its end."""
        kinds = [type(layer) for layer in layers]
        count = 2 if kinds[-2:] == [GlobalAvgPool, Linear] else 1
        return cls(layers[-count:]) if kinds[-1:] == [Linear] and any(map(has_parameters, layers[:-count])) else None

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        return self._otherwise(x, context)

    def behind(self, x: Array, back: Backward, context: Context) -> tuple[Array, Backward]:
        """y of x, and the way back through these layers and then by `back`, which leads to parameters."""
        y, own_back = self(x, context)
        return y, lambda dy, needs_dx=True: back(own_back(dy), needs_dx)

    def with_loss(self, x: Array, labels: Array, dy: float | Array,
                  options: Mapping[str, Any]) -> tuple[Array, Array, Array] | None:
        """(mean softmax cross-entropy, logits, dx), with dx and the parameters' gradients dy times those of the loss.

        None where no implementation does that in one go: then nothing has been done.
        """
        w, b = self.parts[-1].parameters_here["w"], self.parts[-1].parameters_here.get("b")
        images = x if len(self.parts) == 2 else x.reshape(len(x), 1, 1, -1)
        arrays = (images, w.value, labels, b.value if b else None)
        op = backend.pair("pooled_softmax_cross_entropy", *arrays, **options)
        if not hasattr(op, "step") or w.value.size > FEW:
            return None
        loss, logits, dx, dw, db = op.step(*arrays, dy, (w.free_gradient, b.free_gradient if b else None), **options)
        w.accumulate(dw)
        if b:
            b.accumulate(db)
        return loss, logits, dx.reshape(x.shape)


class ReLUMaxPool2d(Fused):
    """The largest entry of each window, or 0: no array of the size before pooling is made."""

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        y, gradients = backend.run("relu_max_pool2d", x, **self.parts[1].options())
        return y, lambda dy, needs_dx=True: gradients(dy)[0] if needs_dx else None


class ConvReLUMaxPool2d(Fused):
    """The same of a convolution's outputs."""

    parts: list[Any]

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        convolution, _, pool = self.parts
        return convolution.run("_relu_max_pool2d", x, window=pool.window, pool_stride=pool.stride, pool_pad=pool.pad,
                               ceil_mode=pool.ceil_mode)


PATTERNS: dict[tuple[type[Layer], ...], type[Fused]] = {
    (BatchNorm, ReLU): BatchNormReLU,  # before a pooling layer too: no pass more than with the pattern below
    (Linear, ReLU): LinearReLU,
    (ReLU, MaxPool2d): ReLUMaxPool2d,
    (Conv2d, ReLU, MaxPool2d): ConvReLUMaxPool2d,
}


def fused(layers: Sequence[Layer], perceptrons: bool = True) -> list[Layer]:
    """The layers, with a fused one in the place of every run that matches; perceptrons, then longer patterns first.

    Types must be the pattern's own: a subclass may compute something else.
    """
    found: list[Layer] = []
    start = 0
    while start < len(layers):
        if perceptrons and (count := _perceptron(layers[start:])):
            found.append(Perceptron(layers[start : start + count]))
            start += count
            continue
        for kinds in sorted(PATTERNS, key=len, reverse=True):
            run = layers[start : start + len(kinds)]
            if tuple(map(type, run)) == kinds:
                found.append(PATTERNS[kinds](run))
                break
        else:
            run = layers[start : start + 1]
            found.append(run[0])
        start += len(run)
    return found


def fuse(model: Layer) -> list[Fused]:
    """From now on run neighbouring layers of `model` as one where a pattern says how; return the fused layers.

    Results change by rounding. What is fused already stays as it is.
    """
    return [layer for container in model.walk() if isinstance(container, Container)
            for layer in container.fuse() if isinstance(layer, Fused)]
