"""How much of the published settings is run: `full` is all of it, `quick` says with every number what it left out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastnet.data.splits import sizes
from fastnet.nn.models import entry

# The settings of schedules that count updates: with fewer images they shrink with the epoch.
_IN_STEPS = ("half_cycle_steps", "warmup_steps", "steps")
# Those that count epochs shrink with the number of epochs.
_IN_EPOCHS = ("every", "patience")


@dataclass(frozen=True)
class Scale:
    """The divisors of training and validation images (and so of the updates), of epochs, test images, and filters.

    `filters` is for the widths of convolutional networks; perceptrons are run as they are.
    """

    name: str = "full"
    images: int = 1
    epochs: int = 1
    test: int = 1
    data: str = "cifar10"
    filters: int = 1

    def apply(self, training: Any) -> Any:
        """The training at this scale. Schedules keep their shape: cycles get shorter with the epochs."""
        if self == Scale(data=training.data):
            return training
        schedule = {key: self._shorter(key, value) for key, value in training.schedule.items()}
        train, validation = (size // self.images for size in sizes(training.split))
        return replace(training, data=self.data, split=f"{train}/{validation}", schedule=schedule,
                       options=self._narrower(training.model, training.options),
                       batch_size=min(training.batch_size, train), epochs=max(1, training.epochs // self.epochs),
                       test_divisor=self.test)

    def _shorter(self, key: str, value: Any) -> Any:
        """A setting of a schedule."""
        if key in _IN_EPOCHS:
            return [self._shorter(key, one) for one in value] if isinstance(value, list) else max(
                1, round(value / self.epochs))
        return max(1, round(value / (self.images * self.epochs))) if key in _IN_STEPS else value

    def _narrower(self, model: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """The options of a model with fewer filters."""
        if self.filters == 1 or model.startswith("mlp"):
            return options
        known = {"filter_multiplier": 1.0, **entry(model).options, **options}
        return {**options, **{key: known[key] / self.filters for key in ("filter_multiplier", "stem_multiplier")
                              if known.get(key) is not None}}

    def notice(self) -> str:
        """What a reader has to know, in one line; empty at full scale."""
        parts = [f"1/{self.images} of the training and validation images" if self.images > 1 else "",
                 f"1/{self.epochs} of the epochs" if self.epochs > 1 else "",
                 f"1/{self.test} of the test images" if self.test > 1 else "",
                 f"1/{self.filters} of the filters" if self.filters > 1 else "",
                 f"on {self.data}" if self.data != "cifar10" else ""]
        said = ", ".join(part for part in parts if part)
        return f"scale {self.name}: {said}; not the published settings" if said else ""


SCALES = {"quick": Scale("quick", images=10), "full": Scale()}
