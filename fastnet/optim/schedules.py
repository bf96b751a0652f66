"""Learning rates as functions of the step; update t (t = 0, 1, ...) uses rate(t)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """A rate for every step, with the name and settings that make it again (see `from_settings`)."""

    name: str
    settings: dict[str, Any]
    rate: Callable[[int], float]

    def __call__(self, step: int) -> float:
        return self.rate(step)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in self.settings.items())})"


def constant(lr: float) -> Schedule:
    """The same rate at every step."""
    _positive("constant", lr=lr)
    return Schedule("constant", {"lr": lr}, lambda step: lr)


def triangular(lr_min: float = 1e-5, lr_max: float = 0.1, *, half_cycle_steps: int) -> Schedule:
    """From lr_min linearly up to lr_max in half_cycle_steps updates and back in as many, over and over.

    Source: Smith, "Cyclical learning rates for training neural networks", 2017, the triangular policy; t = 0 is
    at lr_min, t = half_cycle_steps at lr_max.
    """
    _positive("triangular", lr_min=lr_min, lr_max=lr_max, half_cycle_steps=half_cycle_steps)
    if lr_min > lr_max:
        raise ValueError(f"triangular: lr_min ({lr_min}) is larger than lr_max ({lr_max})")

    def rate(step: int) -> float:
        position = step % (2 * half_cycle_steps)
        height = min(position, 2 * half_cycle_steps - position) / half_cycle_steps
        return lr_min + (lr_max - lr_min) * height

    return Schedule("triangular", {"lr_min": lr_min, "lr_max": lr_max, "half_cycle_steps": half_cycle_steps}, rate)


def exponential(lr: float, decay: float, *, unit: str, steps_per_epoch: int | None = None) -> Schedule:
    """lr decay^k, k counting steps (`unit="step"`) or whole epochs (`unit="epoch"`, with steps_per_epoch)."""
    _positive("exponential", lr=lr, decay=decay)
    if unit not in ("step", "epoch"):
        raise ValueError(f"exponential: unit must be 'step' or 'epoch' but is {unit!r}")
    every = 1
    if unit == "epoch":
        if steps_per_epoch is None:
            raise ValueError("exponential: unit='epoch' needs steps_per_epoch")
        _positive("exponential", steps_per_epoch=steps_per_epoch)
        every = steps_per_epoch
    return Schedule("exponential", {"lr": lr, "decay": decay, "unit": unit, "steps_per_epoch": steps_per_epoch},
                    lambda step: lr * decay ** (step // every))


SCHEDULES: dict[str, Callable[..., Schedule]] = {f.__name__: f for f in (constant, triangular, exponential)}


def from_settings(name: str, settings: dict[str, Any]) -> Schedule:
    """The schedule with that name and these settings. Raises ValueError for an unknown name."""
    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r} is not known; choose from {', '.join(SCHEDULES)}")
    return SCHEDULES[name](**settings)


def _positive(schedule: str, **values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{schedule}: {name} must be a positive number but is {value}")
