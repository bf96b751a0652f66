"""What each update does to the loss and its gradient, for any optimizer.

With L the mean loss of a batch in training mode (no penalty), w_t the parameters before update t, b_t its batch,
g(w, b) the gradient, |.| the Euclidean norm and S the parameters that are looked at:

    predictiveness, same batch       |g_S(w_{t+1}, b_t) - g_S(w_t, b_t)|
    predictiveness, consecutive      |g_S(w_t, b_t) - g_S(w_{t-1}, b_{t-1})|      as training meets them: other batches
    predictiveness, along            |g_S(w_t - eta g, b_t) - g_S(w_t, b_t)|      for each eta of `step_sizes`
    smoothness                       |g_S(w_{t+1}, b_t) - g_S(w_t, b_t)| / |w_{t+1} - w_t|
    smoothness, published            the same numerator / (lr |g_S(w_t, b_t)|)
    smoothness, along                |g_S(w_t - eta g, b_t) - g_S(w_t, b_t)| / (eta |g(w_t, b_t)|)
    losses along                     L(w_t - eta g, b_t)

The published denominator is |w_{t+1} - w_t| for plain SGD where S is everything, and for nothing else; the true one is
over all parameters, since all of them move.

Source: Santurkar et al., "How does batch normalization help optimization?", 2018, section 3.1 and figure 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from fastnet.arrays import Array
from fastnet.lab.moments import norm
from fastnet.nn.layer import Context
from fastnet.nn.layers import Linear
from fastnet.nn.losses import forward_backward
from fastnet.nn.sequential import Sequential, named_layers
from fastnet.train.nonfinite import NonFiniteError
from fastnet.train.step import TrainStep

COLUMNS = ("gradient_norm", "update_norm", "same_batch", "consecutive", "smoothness", "published_smoothness")
ALONG = ("along_losses", "along_predictiveness", "along_smoothness")


@dataclass(frozen=True)
class Recording:
    """T steps were taken, K of them looked at, with E step sizes. Arrays are float64; NaN where a figure is not known.

    Losses at points that were tried may be infinite. `diverged_at` is the step whose loss was not finite, which ended
    the run; its loss is NaN here.
    """

    first_step: int
    losses: np.ndarray  # (T,)
    rates: np.ndarray  # (T,)
    steps: np.ndarray  # (K,) int64, the number of each step that was looked at
    gradient_norm: np.ndarray  # (K,) of S
    update_norm: np.ndarray  # (K,) |w_{t+1} - w_t|
    same_batch: np.ndarray  # (K,) predictiveness
    consecutive: np.ndarray  # (K,)
    smoothness: np.ndarray  # (K,)
    published_smoothness: np.ndarray  # (K,)
    along_losses: np.ndarray  # (K, E)
    along_predictiveness: np.ndarray  # (K, E)
    along_smoothness: np.ndarray  # (K, E)
    step_sizes: tuple[float, ...]
    parameters: str
    diverged_at: int | None


class Recorder:
    """`loss = recorder(step, x, labels)` takes a `TrainStep`'s step, with the same bits, and looks on.

        recorder = Recorder(parameters=last_linear(model))
        fit(model, data, ..., observer=recorder)
        recorder.recording().smoothness

    parameters  pattern of the names that S has, as in a shell ("fc.*"); all by default
    step_sizes  the eta of the figures along the gradient; none by default
    reevaluate  whether to look at the gradient after the update
    every       look at every so many steps

    A step that is looked at costs a pass forward and back more for `reevaluate`, and one for each step size: with the
    defaults not quite twice a plain step. A run that is resumed is recorded from there on. Raises ValueError for a
    pattern without a match, at the first step, and for numbers that make no sense.
    """

    def __init__(self, *, parameters: str = "*", step_sizes: Sequence[float] = (), reevaluate: bool = True,
                 every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"Recorder: every must be at least 1 but is {every}")
        if wrong := [eta for eta in step_sizes if not 0 < eta < float("inf")]:
            raise ValueError(f"Recorder: step sizes must be positive and finite but one is {wrong[0]}")
        self.parameters, self.step_sizes, self.reevaluate, self.every = parameters, tuple(step_sizes), reevaluate, every
        self._first_step = 0
        self._losses: list[float] = []
        self._rates: list[float] = []
        self._rows: list[tuple[float, ...]] = []
        self._along: list[list[tuple[float, float, float]]] = []
        self._before: tuple[int, list[Array]] | None = None  # the step before, and its gradient in S
        self._diverged_at: int | None = None

    def __call__(self, step: TrainStep, x: Array, labels: Array, samples: Array | None = None,
                 epoch: int | None = None) -> Array:
        store, number = step.model.store, step.count
        places = self._places(step.model)
        if not self._losses:
            self._first_step = number
        x, labels, context = step.batch(x, labels, samples, epoch)
        looked = number % self.every == 0
        before = store.vector.copy() if looked else None
        self._rates.append(float(step.schedule(number)))
        try:
            loss = step(x, labels, context.samples, context.epoch)
        except NonFiniteError:
            self._losses.append(np.nan)
            self._diverged_at = number
            raise
        self._losses.append(float(loss))
        here = [store.gradient[place].copy() for place in places]
        if looked:
            with np.errstate(all="ignore"):  # at a point far away numbers may overflow, which is the finding
                self._look(step, x, labels, replace(context, update_statistics=False), before, places, here)
        self._before = number, here
        return loss

    def recording(self) -> Recording:
        """What was seen so far."""
        rows = np.array(self._rows, np.float64).reshape(-1, 7)
        along = np.array(self._along, np.float64).reshape(len(rows), len(self.step_sizes), 3)
        columns = dict(zip(COLUMNS + ALONG, [*rows[:, 1:].T, *np.moveaxis(along, -1, 0)], strict=True))
        return Recording(
            first_step=self._first_step, losses=np.array(self._losses), rates=np.array(self._rates),
            steps=rows[:, 0].astype(np.int64), step_sizes=self.step_sizes, parameters=self.parameters,
            diverged_at=self._diverged_at, **columns)

    def _look(self, step: TrainStep, x: Array, labels: Array, context: Context, before: Array, places: list[slice],
              here: list[Array]) -> None:
        store = step.model.store
        gradient, after = store.gradient.copy(), store.vector.copy()
        scale = step.scaling.scale if step.scaling else 1.0

        def at(point: Array) -> tuple[float, float]:
            """The loss there, and how far its gradient in S is from `here`."""
            store.vector[...] = point
            loss, _ = forward_backward(step.model, x, labels, context, step.loss, step.loss_options, step.accumulate,
                                       scale)
            return float(loss), _distance([store.gradient[place] / scale for place in places], here)

        length, size, moved = _length(here), norm(gradient), norm(after - before)
        same = published = smooth = np.nan
        if self.reevaluate:
            same = at(after)[1]
            smooth = _ratio(same, moved)
            published = _ratio(same, self._rates[-1] * length)
        last, number = self._before, step.count - 1
        consecutive = _distance(here, last[1]) if last and last[0] == number - 1 else np.nan
        self._rows.append((number, length, moved, same, consecutive, smooth, published))
        found = [(eta, *at(before - eta * gradient)) for eta in self.step_sizes]
        self._along.append([(loss, away, _ratio(away, eta * size)) for eta, loss, away in found])
        store.vector[...] = after
        store.gradient[...] = gradient

    def _places(self, model: Sequential) -> list[slice]:
        store = model.store
        names = [name for name in store.places if fnmatchcase(name, self.parameters)]
        if not names:
            raise ValueError(f"Recorder: {self.parameters!r} matches no parameter; there are {', '.join(store.places)}")
        return [slice(store.places[name], store.places[name] + store.named[name].value.size) for name in names]


def last_linear(model: Sequential) -> str:
    """The name of the weights of the model's last linear layer. Raises ValueError where there is none."""
    names = [name for name, layer in named_layers(model) if isinstance(layer, Linear)]
    if not names:
        raise ValueError("last_linear: the model has no linear layer")
    return f"{names[-1]}.w"


def _length(parts: list[Array]) -> float:
    return float(np.linalg.norm([norm(part) for part in parts]))


def _distance(a: list[Array], b: list[Array]) -> float:
    return _length([one - other for one, other in zip(a, b, strict=True)])


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else np.nan
