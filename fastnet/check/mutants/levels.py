"""Mistakes above the ops: in layers, running statistics, optimizers, penalties and schedules.

Each is a broken part, and the check, one that users can run, which has to find it: `check_model`, `check_statistics`,
`check_optimizer`, `check_penalty` or `check_schedule`. The right part has to pass the same check.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastnet.arrays import Array
from fastnet.check.models import check_model
from fastnet.check.op import OpReport
from fastnet.check.statistics import check_statistics
from fastnet.check.updates import check_optimizer, check_penalty, check_schedule
from fastnet.functions._update import Regularization
from fastnet.nn.blocks import Concatenate, Residual
from fastnet.nn.convolution import Conv2d
from fastnet.nn.layer import Context
from fastnet.nn.layers import BatchNorm, Dropout, Flatten, Linear, Tanh
from fastnet.nn.sequential import Sequential
from fastnet.optim import schedules
from fastnet.optim.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from fastnet.optim.penalties import L1, L2, DecoupledDecay
from fastnet.optim.schedule import Schedule


@dataclass(frozen=True)
class PartMistake:
    """A mistake in a part that is no op: `check(broken)` has to fail and say `names`; `check(right)` has to pass."""

    name: str
    about: str
    part: str
    check: Callable[[Any], OpReport]
    right: Any
    broken: Any
    names: str


def changed(layer: type, change: Callable[[Any, Array], Array], before: bool = False) -> type:
    """The class `layer` whose backward pass changes its dx, or, `before`, its dy."""

    class Changed(layer):
        def __call__(self, x: Array, context: Context) -> Any:
            y, back = super().__call__(x, context)
            if before:
                return y, lambda dy, needs_dx=True: back(change(self, dy), needs_dx)
            return y, lambda dy, needs_dx=True: change(self, back(dy, needs_dx))

    return Changed


def with_branches(direct: float, branch: float) -> type:
    class Weighted(Residual):
        def _sum(self, *arguments: Any) -> Any:
            back: Any
            y, back = super()._sum(*arguments)

            def weighted(dy: Array) -> tuple[Array, Array]:
                dbranch, ddirect = back(dy)
                return branch * dbranch, direct * ddirect

            return y, weighted

    return Weighted


class LastBranch(Concatenate):
    """dx of the last branch replaces those before it."""

    def __call__(self, x: Array, context: Context) -> Any:
        y, back = super().__call__(x, context)
        width = self.branches[-1].output_shape(x.shape[1:])[-1]
        alone = super().__call__(x, context)[1]

        def last(dy: Array, needs_dx: bool = True) -> Array | None:
            back(dy, needs_dx)
            masked = np.zeros_like(dy)
            masked[..., -width:] = dy[..., -width:]
            parameters = [p for branch in self.branches for p in branch.parameters_here.values()]
            right = [p.grad.copy() for p in parameters]
            dx = alone(masked, needs_dx)
            for p, gradient in zip(parameters, right, strict=True):  # without what the second way back added
                p.grad[...] = gradient
            return dx

        return y, last


class NewMask(Dropout):
    def __call__(self, x: Array, context: Context) -> Any:
        y, _ = super().__call__(x, context)
        return y, super().__call__(x, replace(context, epoch=context.epoch + 1))[1]


class RunningInTraining(BatchNorm):
    def run(self, then: str, x: Array, context: Context, *beside: Array) -> Any:
        return super().run(then, x, replace(context, training=False), *beside)


class SwappedDecay(BatchNorm):
    def track(self, mean: Array, var: Array, count: int) -> None:
        self.stat_decay = 1 - self.stat_decay
        super().track(mean, var, count)
        self.stat_decay = 1 - self.stat_decay


class BiasedRunning(BatchNorm):
    def track(self, mean: Array, var: Array, count: int) -> None:
        super().track(mean, var * (count - 1) / count, count)


class KeptDeviation(BatchNorm):
    def track(self, mean: Array, var: Array, count: int) -> None:
        super().track(mean, var**0.5, count)


class TracksAlways(BatchNorm):
    def run(self, then: str, x: Array, context: Context, *beside: Array) -> Any:
        found = super().run(then, x, context, *beside)
        if not context.training:
            rows = x.reshape(-1, x.shape[-1])
            self.track(rows.mean(axis=0), rows.var(axis=0), len(rows))
        return found


class NeverTracks(BatchNorm):
    def track(self, mean: Array, var: Array, count: int) -> None:
        pass


def network(residual: type = Residual, concatenate: type = Concatenate, dropout: type = Dropout,
            norm: type = BatchNorm, flatten: type = Flatten, linear: type = Linear) -> Sequential:
    """A network with every kind of joint, small enough to be checked in a fraction of a second."""
    return Sequential([Conv2d(2, 3, 2), norm(3), Tanh(), residual([Conv2d(3, 3, 3, pad=1), Tanh()]),
                       concatenate([Conv2d(3, 2, 1), Conv2d(3, 2, 3, pad=1)]), Tanh(), dropout(0.3), flatten(),
                       linear(16, 3)], seed=0)


def _batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 3, 3, 2)), rng.integers(0, 3, 6)


def _model(parts: dict[str, type]) -> OpReport:
    return check_model(network(**parts), *_batch(), entries=2, raises=False)


def _statistics(parts: dict[str, type]) -> OpReport:
    return check_statistics(network(**parts), _batch()[0], raises=False)


def _optimizer(optimizer: Optimizer) -> OpReport:
    return check_optimizer(optimizer, raises=False)


def _penalty(parts: tuple[Any, SGD | None]) -> OpReport:
    return check_penalty(*parts, raises=False)


def _schedule(schedule: Schedule) -> OpReport:
    return check_schedule(schedule, raises=False)


def updating(kind: type, settings: dict[str, Any] | None = None, **changes: Callable[..., Any]) -> Any:
    """An optimizer whose update gets other values: argument -> function of (value, all arguments, the optimizer)."""

    class Updating(kind):
        def update(self, w: Array, g: Array, state: Any, *, step: int, lr: float,
                   regularization: Regularization) -> None:
            given = {"w": w, "g": g, "state": state, "step": step, "lr": lr, "regularization": regularization}
            given |= {name: change(given[name], given, self) for name, change in changes.items()}
            w, g, state = given.pop("w"), given.pop("g"), given.pop("state")
            super().update(w, g, state, **given)

    return Updating(**(settings or {}))


def _lives_by(optimizer: Optimizer, **attributes: Any) -> Optimizer:
    """An optimizer that says one setting and computes with another."""
    said = optimizer.settings()
    for name, value in attributes.items():
        setattr(optimizer, name, value)
    optimizer.settings = lambda: said  # type: ignore[method-assign]
    return optimizer


def _delayed(schedule: Schedule, by: int) -> Schedule:
    return replace(schedule, rate=lambda step: schedule.rate(max(0, step + by)))


class HalfCost(L2):
    """The gradient of lambda sum w^2 is taken for lambda w: decay is not doubled."""

    def __init__(self, strength: float) -> None:
        super().__init__(strength)
        self.decay = strength

    def value(self, penalised: Array) -> float:
        return 2 * super().value(penalised)


class NegativeL1(L1):
    def value(self, penalised: Array) -> float:
        return -super().value(penalised)


def _forgotten(state: Any, given: Any, optimizer: Any) -> Any:
    for kept in state.values():
        kept[...] = 0
    return state


def _everywhere(regularization: Regularization, given: Any, optimizer: Any) -> Regularization:
    return regularization._replace(penalised=len(given["w"]))


MOMENTUM: dict[str, Any] = {"momentum": 0.9}
NESTEROV: dict[str, Any] = {"momentum": 0.9, "nesterov": True}
TRIANGLE = schedules.triangular(1e-3, 0.1, half_cycle_steps=20)
STEPS = schedules.step_decay(0.1, 0.5, [2, 4], unit="epoch", steps_per_epoch=20)
COSINE = schedules.cosine(0.1, steps=150)
WARM = schedules.warmup_linear(0.1, warmup_steps=20, steps=150)
IN_MODEL: tuple[tuple[str, str, dict[str, type], str], ...] = (
    ("shortcut's dx lost", "+= lost where a residual block forks", {"residual": with_branches(0, 1)},
     "conv2d1.w is wrong"),
    ("branch's dx lost", "the residual branch gets no gradient", {"residual": with_branches(1, 0)},
     "conv2d1.w is wrong"),
    ("residual halved", "a mean of the branches where the sum is meant", {"residual": with_branches(0.5, 0.5)},
     "conv2d1.w is wrong"),
    ("last branch's dx only", "= for += where branches fork", {"concatenate": LastBranch}, "conv2d1.w is wrong"),
    ("slices off by one", "the parts of a concatenation begin one channel late", {
        "concatenate": changed(Concatenate, lambda layer, dy: np.roll(dy, 1, axis=-1), before=True)}, " is wrong"),
    ("layer's new mask", "dropout draws again in backward", {"dropout": NewMask}, " is wrong"),
    ("flatten reordered", "dx is reshaped in another order", {"flatten": changed(
        Flatten, lambda layer, dx: np.ascontiguousarray(dx.swapaxes(1, 2)))}, "conv2d1.w is wrong"),
    ("layer's dx dropped", "a layer with parameters hands no gradient on", {"linear": changed(
        Linear, lambda layer, dx: None if dx is None else 0 * dx)}, "conv2d1.w is wrong"),
)
IN_STATISTICS: tuple[tuple[str, str, type, str], ...] = (
    ("running statistics in training", "training normalises by the running statistics", RunningInTraining,
     "y in training is wrong"),
    ("weights of the averages swapped", "running = (1 - decay) running + decay batch", SwappedDecay,
     "running_mean after training is wrong"),
    ("biased running variance", "M for M - 1", BiasedRunning, "running_var after training is wrong"),
    ("running deviation", "the square root of the variance is kept", KeptDeviation,
     "running_var after training is wrong"),
    ("tracked in inference", "inference moves the running statistics", TracksAlways, "after inference"),
    ("never tracked", "the running statistics stay at their start", NeverTracks,
     "running_mean after training is wrong"),
)
OF_UPDATES: tuple[tuple[str, str, Callable[[Any], OpReport], Any, Any, str], ...] = (
    ("ascent", "w + lr g", _optimizer, SGD(), updating(SGD, lr=lambda lr, *_: -lr), "w is wrong at update 0"),
    ("momentum forgotten", "the velocity starts anew each step", _optimizer, SGD(**MOMENTUM),
     updating(SGD, MOMENTUM, state=_forgotten), "w is wrong at update 1"),
    ("momentum as an average", "v = momentum v + (1 - momentum) g", _optimizer, SGD(**MOMENTUM),
     updating(SGD, MOMENTUM, g=lambda g, given, o: (1 - o.momentum) * g), "w is wrong at update 0"),
    ("Nesterov forgotten", "plain momentum", _optimizer, SGD(**NESTEROV), _lives_by(SGD(**NESTEROV), nesterov=False),
     "w is wrong at update 0"),
    ("no bias correction", "m and v as they are", _optimizer, Adam(), updating(Adam, step=lambda *_: 10**7),
     "w is wrong at update 0"),
    ("bias correction one step late", "t counts from 2", _optimizer, Adam(), updating(
        Adam, step=lambda t, *_: t + 1), "w is wrong at update 0"),
    ("betas swapped", "beta1 for v and beta2 for m", _optimizer, Adam(beta1=0.8), _lives_by(
        Adam(beta1=0.8), beta1=0.999, beta2=0.8), "w is wrong at update 1"),
    ("Adam's eps inside", "sqrt(v + eps)", _optimizer, Adam(eps=1e-4), _lives_by(Adam(eps=1e-4), eps_mode="inside"),
     "w is wrong at update 0"),
    ("RMSprop's eps inside", "sqrt(v + eps)", _optimizer, RMSprop(eps=1e-4), _lives_by(
        RMSprop(eps=1e-4), eps_mode="inside"), "w is wrong at update 0"),
    ("decay through the moments", "AdamW's decay is added to the gradient", _optimizer, AdamW(weight_decay=0.1),
     updating(Adam, g=lambda g, given, o: g + 0.1 * given["w"]), "w is wrong at update 0"),
    ("squares forgotten", "Adagrad's sum starts anew", _optimizer, Adagrad(), updating(Adagrad, state=_forgotten),
     "w is wrong at update 1"),
    ("lambda for 2 lambda", "the gradient of lambda sum w^2 lacks its 2", _penalty, (L2(0.1), None),
     (HalfCost(0.1), None), "w is wrong"),
    ("sign of a penalty", "the cost is subtracted", _penalty, (L1(0.1), None), (NegativeL1(0.1), None), "w is wrong"),
    ("decay on biases", "what is not penalised shrinks too", _penalty, (L2(0.1), None), (L2(0.1), updating(
        SGD, regularization=_everywhere)), "the penalty's part 8"),
    ("decoupled decay on biases", "biases shrink", _penalty, (DecoupledDecay(0.1), None), (
        DecoupledDecay(0.1), updating(SGD, regularization=_everywhere)), "the penalty's part 8"),
    ("cycle one step early", "t counts from 1", _schedule, TRIANGLE, _delayed(TRIANGLE, 1),
     "rate is wrong at update 0"),
    ("cycle one step too long", "the half cycle has a step more", _schedule, TRIANGLE, replace(
        schedules.triangular(1e-3, 0.1, half_cycle_steps=21), settings=TRIANGLE.settings), "rate is wrong at update 1"),
    ("decay one step late", "the first step of an epoch has the old rate", _schedule, STEPS, _delayed(STEPS, -1),
     "rate is wrong at update 40"),
    ("cosine over one step less", "t / (steps - 1)", _schedule, COSINE, replace(
        schedules.cosine(0.1, steps=149), settings=COSINE.settings), "rate is wrong at update 1"),
    ("warm-up one step early", "the first update has a rate", _schedule, WARM, _delayed(WARM, 1),
     "rate is wrong at update 0"),
)
LEVELS: dict[str, PartMistake] = {m.name: m for m in (
    *(PartMistake(name, about, "model", _model, {}, parts, names) for name, about, parts, names in IN_MODEL),
    *(PartMistake(name, about, "statistics", _statistics, {}, {"norm": norm}, names)
      for name, about, norm, names in IN_STATISTICS),
    *(PartMistake(name, about, check.__name__.strip("_"), check, right, broken, names)
      for name, about, check, right, broken, names in OF_UPDATES))}
