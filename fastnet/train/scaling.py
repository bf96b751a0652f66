"""Loss scaling: many gradients are too small for float16, so the loss is multiplied before the way back and the
gradients are divided after it.

Source: Micikevicius et al., "Mixed precision training", 2018, section 3.2; the factor is found as training goes: it is
doubled when all has gone well for a while, and halved when a gradient overflows, whose update is left out.
"""

import math
import operator
from collections.abc import Mapping
from typing import Any

from fastnet.arrays import Array, array_module

START = 2.0**15
PATIENCE = 2000  # good steps before the scale is doubled
LEAST = 1.0  # below it scaling is no help: the gradients themselves overflow


class LossScale:
    """The factor of the loss, always a power of two, so that it changes no digit; how many steps in a row were good.

    `skipped` counts the steps without an update.
    """

    def __init__(self) -> None:
        self.scale, self.good, self.skipped = START, 0, 0

    def unscale(self, gradient: Array) -> bool:
        """Divide `gradient` by the scale in place and choose the next one; False where an entry is not finite."""
        gradient *= 1 / self.scale
        if not bool(array_module(gradient).isfinite(gradient).all()):
            self.scale, self.good, self.skipped = self.scale / 2, 0, self.skipped + 1
            return False
        self.good += 1
        if self.good == PATIENCE:
            self.scale, self.good = self.scale * 2, 0
        return True

    def state(self) -> dict[str, Any]:
        """As plain JSON, for a checkpoint."""
        return dict(vars(self))

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`. Raises KeyError, TypeError or ValueError for what is not one."""
        good, skipped = operator.index(state["good"]), operator.index(state["skipped"])
        scale = state["scale"] + 0.0
        if not 0 < scale < math.inf or math.frexp(scale)[0] != 0.5 or not (0 <= good < PATIENCE and skipped >= 0):
            raise ValueError(f"a scale of the loss is a power of two, with counts of good and of skipped steps, but "
                             f"this is {scale}, with {str(good)[:40]} and {str(skipped)[:40]}")
        self.scale, self.good, self.skipped = scale, good, skipped
