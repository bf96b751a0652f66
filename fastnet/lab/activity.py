"""What the layers do while they train: activation moments, dead units, gradient norms, update/weight ratios."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fastnet.arrays import Array, single_threaded_blas
from fastnet.lab.moments import Moments, norm
from fastnet.nn.layer import Layer
from fastnet.nn.layers import ReLU
from fastnet.nn.sequential import Sequential, named_layers
from fastnet.train.step import TrainStep


@dataclass(frozen=True)
class LayerActivity:
    """The output of one layer over the images looked at.

    mean, std      over all its values
    channel_means  (C,) of each channel or feature: 0 behind batch norm where beta is 0
    channel_stds   (C,)
    units          how many channels or features there are, and how many of a ReLU's were never above 0 (`dead`; None
                   for other layers)
    """

    name: str
    kind: str
    mean: float
    std: float
    channel_means: np.ndarray
    channel_stds: np.ndarray
    units: int
    dead: int | None


@dataclass(frozen=True)
class ParameterActivity:
    """One parameter: means over the steps looked at of |g| and |update|/|w|, and |w| before the last; |.| Euclidean.

    Steps with |w| = 0 (a bias at the start) are left out of the ratio, which is NaN where no other was seen.
    """

    name: str
    gradient_norm: float
    weight_norm: float
    update_ratio: float


@dataclass(frozen=True)
class EpochActivity:
    """What was seen of an epoch: so many steps and images, a record for every layer and every parameter."""

    epoch: int
    steps: int
    images: int
    layers: tuple[LayerActivity, ...]
    parameters: tuple[ParameterActivity, ...]


class Activity:
    """`loss = activity(step, x, labels, samples, epoch)` takes a `TrainStep`'s step, with the same bits, and looks on.

        activity = Activity(every=10)
        fit(model, data, ..., observer=activity)
        activity.epochs()[-1].layers

    `every` is how often it looks, in steps. A step that is looked at runs forward once more, before the update and
    layer by layer, and every output's moments are summed in float64, in NumPy. Units count as dead when they were never
    active on the images looked at in that epoch. A loop that names no epoch has everything in epoch 0.
    """

    def __init__(self, *, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"Activity: every must be at least 1 but is {every}")
        self.every = every
        self._epochs: dict[int, _Epoch] = {}

    def __call__(self, step: TrainStep, x: Array, labels: Array, samples: Array | None = None,
                 epoch: int | None = None) -> Array:
        if step.count % self.every:
            return step(x, labels, samples, epoch)
        x, labels, context = step.batch(x, labels, samples, epoch)
        model, seen = step.model, self._epochs.setdefault(0 if epoch is None else epoch, _Epoch())
        before = {name: value.copy() for name, value in model.parameters().items()}
        with single_threaded_blas(), np.errstate(all="ignore"):  # the step itself says what is not finite
            model(x, replace(context, update_statistics=False, tap=seen.tap(model)))
        loss = step(x, labels, context.samples, context.epoch)
        seen.add(len(x), model, before)
        return loss

    def epochs(self) -> list[EpochActivity]:
        """A record of every epoch so far, the one that is under way included."""
        return [seen.record(epoch) for epoch, seen in sorted(self._epochs.items()) if seen.steps]


class _Epoch:
    """The sums of one epoch."""

    def __init__(self) -> None:
        self.steps = self.images = 0
        self._kinds: dict[str, str] = {}
        self._moments: dict[str, Moments] = {}
        self._active: dict[str, Array] = {}  # (C,) bool, for ReLUs
        self._parameters: dict[str, list[tuple[float, float, float]]] = {}  # norms of gradient, weights, update

    def tap(self, model: Sequential) -> Callable[[Layer, Array, Array], None]:
        names = {id(layer): name for name, layer in named_layers(model) if not layer.children()}

        def look(layer: Layer, x: Array, y: Array) -> None:
            name = names.get(id(layer))
            if name is None:  # a block, whose output is that of its last layer
                return
            self._kinds[name] = layer.kind
            self._moments.setdefault(name, Moments()).add(y)
            if isinstance(layer, ReLU):
                active = (y > 0).any(axis=tuple(range(y.ndim - 1)))
                self._active[name] = self._active.get(name, False) | active

        return look

    def add(self, images: int, model: Sequential, before: dict[str, Array]) -> None:
        self.steps, self.images = self.steps + 1, self.images + images
        gradients = model.gradients()
        for name, value in model.parameters().items():
            self._parameters.setdefault(name, []).append(
                (norm(gradients[name]), norm(before[name]), norm(value - before[name])))

    def record(self, epoch: int) -> EpochActivity:
        layers = tuple(self._layer(name, moments) for name, moments in self._moments.items())
        return EpochActivity(epoch, self.steps, self.images, layers,
                             tuple(_parameter(name, np.array(rows)) for name, rows in self._parameters.items()))

    def _layer(self, name: str, moments: Moments) -> LayerActivity:
        means, variances = moments.mean, moments.variance
        dead = int((~self._active[name]).sum()) if name in self._active else None
        std = float(np.sqrt(variances.mean() + means.var()))
        return LayerActivity(name, self._kinds[name], float(means.mean()), std, means, np.sqrt(variances), len(means),
                             dead)


def _parameter(name: str, rows: np.ndarray) -> ParameterActivity:
    gradient, weight, update = rows.T
    there = weight > 0
    ratio = float((update[there] / weight[there]).mean()) if there.any() else np.nan
    return ParameterActivity(name, float(gradient.mean()), float(weight[-1]), ratio)
