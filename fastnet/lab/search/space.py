"""What a search draws from: a distribution for each parameter, and what becomes of it in a narrower search.

Every draw is a function of (seed, number of the trial, place of the parameter), by Philox: whoever runs a trial,
wherever and when, finds the same parameters.
"""

import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.functions import philox

Value = float | int | str | bool
Parameters = dict[str, Value]


@dataclass(frozen=True)
class Uniform:
    """low + (high - low) U, U uniform in [0, 1). A narrower search stays between the bounds."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_bounds("Uniform", self.low, self.high)

    def at(self, u: float) -> float:
        return self.low + (self.high - self.low) * u

    def grid(self, points: int) -> list[Value]:
        return [float(x) for x in np.linspace(float(self.low), float(self.high), points)]

    def window(self, first: Any, second: Any, margin: float) -> "Distribution":
        """From the lesser to the larger of two values and beyond: as much of the range as `margin` is of 4 decades."""
        beyond = (self.high - self.low) * margin / 4
        return self._inside(min(first, second) - beyond, max(first, second) + beyond)

    def scaled(self, best: Any, low: float, high: float) -> "Distribution":
        return self._inside(*sorted((low * best, high * best)))

    def holds(self, value: Any) -> bool:
        return _is_number(value) and self.low <= value <= self.high

    def settings(self) -> list[Any]:
        return ["uniform", self.low, self.high]

    def _inside(self, low: float, high: float) -> "Distribution":
        low, high = max(low, self.low), min(high, self.high)
        return Uniform(low, high) if low < high else Choice((low,))


@dataclass(frozen=True)
class Log:
    """10^(l + (h - l) U), l and h the bounds' decimal logarithms. A narrower search may leave the bounds: they say
    where to look first."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_bounds("Log", self.low, self.high)
        if self.low <= 0:
            raise ValueError(f"Log: bounds must be positive but low is {self.low}")

    def at(self, u: float) -> float:
        low, high = math.log10(self.low), math.log10(self.high)
        return 10.0 ** (low + (high - low) * u)

    def grid(self, points: int) -> list[Value]:
        return [float(x) for x in np.geomspace(float(self.low), float(self.high), points)]

    def window(self, first: Any, second: Any, margin: float) -> "Distribution":
        return Log(min(first, second) / 10.0**margin, max(first, second) * 10.0**margin)

    def scaled(self, best: Any, low: float, high: float) -> "Distribution":
        return Uniform(low * best, high * best)

    def holds(self, value: Any) -> bool:
        return _is_number(value) and self.low <= value <= self.high

    def settings(self) -> list[Any]:
        return ["log", self.low, self.high]


@dataclass(frozen=True)
class Choice:
    """One of some values: numbers, text, True or False. A narrower search keeps the best one."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not isinstance(self.values, Sequence) or not self.values:
            raise ValueError(f"Choice: needs a list of at least one value but got {self.values!r}")
        object.__setattr__(self, "values", tuple(self.values))
        if bad := [v for v in self.values if not isinstance(v, str | bool) and not _is_number(v)]:
            raise ValueError(f"Choice: values must be finite numbers, text, True or False but {bad[0]!r} is not")

    def at(self, u: float) -> Value:
        return self.values[int(u * len(self.values))]

    def grid(self, points: int) -> list[Value]:
        return list(self.values)

    def window(self, first: Any, second: Any, margin: float) -> "Distribution":
        return Choice((first,))

    def scaled(self, best: Any, low: float, high: float) -> "Distribution":
        return Choice((best,))

    def holds(self, value: Any) -> bool:
        return any(type(value) is type(v) and value == v for v in self.values)

    def settings(self) -> list[Any]:
        return ["choice", *self.values]


Distribution = Uniform | Log | Choice
Space = dict[str, Distribution]


def check_space(space: Mapping[str, Any]) -> Space:
    """The space with lists as choices. Raises ValueError or TypeError."""
    if not space:
        raise ValueError("the space has no parameters; give at least one, such as {'l2': Log(1e-5, 1e-1)}")
    found: Space = {}
    for name, given in space.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"parameter {name!r} is no name")
        if isinstance(given, list | tuple):
            given = Choice(tuple(given))
        if not isinstance(given, Uniform | Log | Choice):
            raise TypeError(f"parameter {name!r} is {given!r}, but Log, Uniform, Choice or a list of values is needed")
        found[name] = given
    return found


def from_settings(settings: Any) -> Distribution:
    """The distribution that `settings()` describes. Raises ValueError for anything else."""
    match settings:
        case ["log", low, high] if _is_number(low) and _is_number(high):
            return Log(low, high)
        case ["uniform", low, high] if _is_number(low) and _is_number(high):
            return Uniform(low, high)
        case ["choice", *values]:
            return Choice(tuple(values))
    raise ValueError(f"{str(settings)[:80]} is no distribution")


def parse(text: str) -> Distribution:
    """log:LOW:HIGH, uniform:LOW:HIGH, or values with commas between them. Raises ValueError for anything else."""
    kind, *bounds = text.split(":")
    if kind in ("log", "uniform"):
        try:
            low, high = (float(bound) for bound in bounds)
        except ValueError:
            raise ValueError(f"{text!r} is not {kind}:LOW:HIGH, such as {kind}:1e-5:1e-1") from None
        return Log(low, high) if kind == "log" else Uniform(low, high)
    values = text.split(",")
    if not all(values):
        raise ValueError(f"{text!r} is no log:LOW:HIGH, no uniform:LOW:HIGH and no list of values such as 0.1,0.05")
    return Choice(tuple(_scalar(value) for value in values))


def draw(space: Space, trial: int, seed: int) -> Parameters:
    """The parameters of a trial: parameter j takes word j of sample `trial`."""
    words = philox.run(np.array([trial]), seed=seed, stream=philox.SEARCH, count=len(space))
    return {name: one.at(float(u)) for (name, one), u in zip(space.items(), philox.uniform(words)[0], strict=True)}


def grid(space: Space, points: int) -> list[Parameters]:
    """Every combination; `points` values, bounds included, of what is continuous. The last parameter changes first."""
    return [dict(zip(space, values, strict=True))
            for values in itertools.product(*(one.grid(points) for one in space.values()))]


def _scalar(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _check_bounds(name: str, low: Any, high: Any) -> None:
    if not (_is_number(low) and _is_number(high)):
        raise ValueError(f"{name}: bounds must be finite numbers but are {low!r} and {high!r}")
    if low >= high:
        raise ValueError(f"{name}: low must be less than high but they are {low} and {high}")
