"""Checks of settings; `owner` is what the message begins with."""

import math


def positive(owner: str, **values: float) -> None:
    """Raise ValueError unless every value is a positive finite number."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{owner}: {name} must be a positive number but is {value}")


def at_least_zero(owner: str, **values: float) -> None:
    """Raise ValueError unless every value is a finite number of at least 0."""
    for name, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{owner}: {name} must be a number of at least 0 but is {value}")


def below_one(owner: str, **values: float) -> None:
    """Raise ValueError unless every value is in [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{owner}: {name} must be in [0, 1) but is {value}")


def one_of(owner: str, choices: tuple[str, ...], **values: str) -> None:
    """Raise ValueError unless every value is one of the choices."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{owner}: {name} must be one of {', '.join(choices)} but is {value!r}")
