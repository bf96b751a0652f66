"""Learning rates as functions of the step; update t (t = 0, 1, ...) uses rate(t). Lengths are in updates."""

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from fastnet.optim._checks import at_least_zero, positive
from fastnet.optim.plateau import reduce_on_plateau
from fastnet.optim.schedule import Schedule


def constant(lr: float) -> Schedule:
    """The same rate at every step."""
    positive("constant", lr=lr)
    return Schedule("constant", {"lr": lr}, lambda step: lr)


def triangular(lr_min: float = 1e-5, lr_max: float = 0.1, *, half_cycle_steps: int) -> Schedule:
    """From lr_min linearly up to lr_max in half_cycle_steps updates and back in as many, over and over.

    Source: Smith, "Cyclical learning rates for training neural networks", 2017, the triangular policy; t = 0 is
    at lr_min, t = half_cycle_steps at lr_max.
    """
    positive("triangular", lr_min=lr_min, lr_max=lr_max, half_cycle_steps=half_cycle_steps)
    if lr_min > lr_max:
        raise ValueError(f"triangular: lr_min ({lr_min}) is larger than lr_max ({lr_max})")

    def rate(step: int) -> float:
        position = step % (2 * half_cycle_steps)
        height = min(position, 2 * half_cycle_steps - position) / half_cycle_steps
        return lr_min + (lr_max - lr_min) * height

    return Schedule("triangular", {"lr_min": lr_min, "lr_max": lr_max, "half_cycle_steps": half_cycle_steps}, rate)


def exponential(lr: float, decay: float, *, unit: str, steps_per_epoch: int | None = None) -> Schedule:
    """lr decay^k, k counting steps (`unit="step"`) or whole epochs (`unit="epoch"`, with steps_per_epoch)."""
    positive("exponential", lr=lr, decay=decay)
    length = _unit("exponential", unit, steps_per_epoch)
    return Schedule("exponential", {"lr": lr, "decay": decay, "unit": unit, "steps_per_epoch": steps_per_epoch},
                    lambda step: lr * decay ** (step // length))


def step_decay(lr: float, factor: float, every: int | Sequence[int], *, unit: str,
               steps_per_epoch: int | None = None) -> Schedule:
    """lr factor^k, where k grows by one after each `every` units, or once at each of the milestones in a list.

    `step_decay(0.2, 0.1, [25], unit="epoch", steps_per_epoch=n)` is 0.2 in the first 25 epochs and 0.02 after them.
    A unit is a step or an epoch, as in `exponential`.
    """
    positive("step_decay", lr=lr, factor=factor)
    length = _unit("step_decay", unit, steps_per_epoch)
    milestones = [every] if isinstance(every, int) else list(every) if isinstance(every, Sequence) else []
    if not milestones or any(type(m) is not int or m < 1 for m in milestones) or sorted(set(milestones)) != milestones:
        raise ValueError(f"step_decay: every must be a whole number of at least 1 or a rising list of such but is "
                         f"{every}")

    def rate(step: int) -> float:
        done = step // length
        return lr * factor ** (done // every if isinstance(every, int) else bisect_right(milestones, done))

    return Schedule("step_decay", {"lr": lr, "factor": factor, "every": every if isinstance(every, int) else milestones,
                                   "unit": unit, "steps_per_epoch": steps_per_epoch}, rate)


def cosine(lr: float, *, steps: int, floor: float = 0.0) -> Schedule:
    """Half a cosine from lr at t = 0 down to `floor` at t = steps, and `floor` from there on.

    Source: Loshchilov & Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5, no restart.
    """
    positive("cosine", lr=lr, steps=steps)
    at_least_zero("cosine", floor=floor)
    if floor > lr:
        raise ValueError(f"cosine: floor ({floor}) is larger than lr ({lr})")
    return Schedule("cosine", {"lr": lr, "steps": steps, "floor": floor},
                    lambda step: floor + (lr - floor) * (1 + math.cos(math.pi * min(step / steps, 1))) / 2)


def one_cycle(lr: float, *, steps: int, rise: float = 0.45, start: float = 0.1, end: float = 0.001) -> Schedule:
    """Lines from start lr up to lr in the share `rise` of the steps, back in as many, and down to end lr at t = steps.

    Source: Smith & Topin, "Super-convergence: very fast training of neural networks using large learning rates", 2018:
    the published form, three straight phases. fastai's and PyTorch's default is another: two phases of half a cosine,
    the first 0.3 of the steps, from lr/25, to lr/250000. Momentum stays as it is; they lower it while lr is high.
    """
    positive("one_cycle", lr=lr, steps=steps, rise=rise, start=start)
    at_least_zero("one_cycle", end=end)
    if rise > 0.5:
        raise ValueError(f"one_cycle: rise must be at most 0.5 (up and down are equally long) but is {rise}")
    if start > 1 or end > start:
        raise ValueError(f"one_cycle: end <= start <= 1 is needed, but start is {start} and end is {end}")
    corners = [(0.0, start), (rise * steps, 1.0), (2 * rise * steps, start), (float(steps), end)]
    return Schedule("one_cycle", {"lr": lr, "steps": steps, "rise": rise, "start": start, "end": end},
                    lambda step: lr * _polyline(corners, step))


def warmup_linear(lr: float, *, warmup_steps: int, steps: int) -> Schedule:
    """A line from 0 at t = 0 up to lr at t = warmup_steps, and one down to 0 at t = steps, where it stays.

    Update 0 moves nothing but fills the optimizer's averages. Source: Goyal et al., "Accurate, large minibatch SGD",
    2017, for the warm-up; the whole as in Devlin et al., "BERT", 2019.
    """
    positive("warmup_linear", lr=lr, steps=steps)
    at_least_zero("warmup_linear", warmup_steps=warmup_steps)
    if warmup_steps >= steps:
        raise ValueError(f"warmup_linear: warmup_steps ({warmup_steps}) must be below steps ({steps})")
    corners = [(0.0, 0.0)] * bool(warmup_steps) + [(float(warmup_steps), 1.0), (float(steps), 0.0)]
    return Schedule("warmup_linear", {"lr": lr, "warmup_steps": warmup_steps, "steps": steps},
                    lambda step: lr * _polyline(corners, step))


SCHEDULES: dict[str, Callable[..., Schedule]] = {f.__name__: f for f in (
    constant, triangular, exponential, step_decay, cosine, one_cycle, warmup_linear, reduce_on_plateau)}


def from_settings(name: str, settings: dict[str, Any]) -> Schedule:
    """The schedule with that name and these settings. Raises ValueError for an unknown name."""
    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r} is not known; choose from {', '.join(SCHEDULES)}")
    return SCHEDULES[name](**settings)


def _unit(schedule: str, unit: str, steps_per_epoch: int | None) -> int:
    """The steps in a unit."""
    if unit not in ("step", "epoch"):
        raise ValueError(f"{schedule}: unit must be 'step' or 'epoch' but is {unit!r}")
    if unit == "step":
        return 1
    if steps_per_epoch is None:
        raise ValueError(f"{schedule}: unit='epoch' needs steps_per_epoch")
    positive(schedule, steps_per_epoch=steps_per_epoch)
    return steps_per_epoch


def _polyline(corners: list[tuple[float, float]], t: float) -> float:
    """The height at t of the line through the corners (t, height); constant behind the last."""
    for (t0, y0), (t1, y1) in itertools.pairwise(corners):
        if t < t1:
            return y0 + (y1 - y0) * (t - t0) / (t1 - t0)
    return corners[-1][1]
