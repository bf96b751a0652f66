"""The laboratory's results as JSON."""

import dataclasses
import math
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Dataclasses as dicts, arrays and tuples as lists, numbers that JSON has not (NaN, infinities) as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
