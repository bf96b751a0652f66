"""Before a run: what can be known to fail is found, and all settings are written down."""

import json
from typing import Any

from fastnet.data import Augmentation, Batches, Dataset
from fastnet.nn.sequential import Sequential
from fastnet.train.state import RunState


def check_data(model: Sequential, data: Dataset) -> None:
    """Raise ValueError where images or labels do not fit the model, or none are there to train on or to test with."""
    for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        if len(split):
            classes = model.output_shape(split.images.shape[1:])[-1]
            low, high = split.labels.min(), split.labels.max()
            if low < 0 or high >= classes:
                raise ValueError(f"fit: the {name} labels are {low}..{high}, but the model has {classes} classes, so "
                                 f"they must be in 0..{classes - 1}")
        elif name != "validation":
            raise ValueError(f"fit: there are no {name} images")


def check_metrics(data: Dataset, *watching: Any) -> None:
    """Raise ValueError where early stopping or a schedule watches a figure that the history will not have."""
    figures = [f"{split}_{key}" for split in ("train", "validation") if split == "train" or len(data.validation)
               for key in ("loss", "cost", "accuracy")]
    for watcher in watching:
        metric = getattr(watcher, "metric", figures[0])
        if metric not in figures:
            raise ValueError(f"{type(watcher).__name__}: the history of this run will have no {metric!r}; choose from "
                             f"{', '.join(figures)}")


def describe(state: RunState, data: Dataset, batches: Batches, epochs: int, normalization: str,
             augmentation: Augmentation | None) -> dict[str, Any]:
    """All settings of a run as JSON: what config.json holds, and what must not change when the run is resumed."""
    step = state.step
    model = step.model
    config = {
        "model": {"name": model.model_name or "custom", "seed": model.seed, "dtype": model.dtype.name, **model.settings,
                  "layers": [f"{layer.name}: {layer!r}" for layer in model.layers]},
        "data": data.identity,
        "normalization": normalization,
        "augmentation": augmentation.settings() if augmentation else None,
        "epochs": epochs,
        "batch_size": batches.batch_size,
        "accumulate": step.accumulate,
        "seed": step.seed,
        "loss": {"name": step.loss, **step.loss_options},
        "optimizer": {"name": step.optimizer.name, **step.optimizer.settings()},
        "rates": step.rates,
        "schedule": {"name": step.schedule.name, "settings": step.schedule.settings},
        "penalty": step.penalty.settings() if step.penalty else None,
        "average": state.average.decay if state.average else None,
        "early_stopping": state.stopping.settings() if state.stopping else None,
    }
    return json.loads(json.dumps(config))  # tuples become lists, as they will when it is read back
