"""What a schedule is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """A rate for every step, with the name and settings that make it again (see `schedules.from_settings`)."""

    name: str
    settings: dict[str, Any]
    rate: Callable[[int], float]

    def __call__(self, step: int) -> float:
        return self.rate(step)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in self.settings.items())})"
