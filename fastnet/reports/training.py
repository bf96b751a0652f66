"""A training run of a report as plain data, and what it leaves behind."""

import functools
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastnet.data import Augmentation, Dataset, Split, load
from fastnet.nn.models import build, fitting
from fastnet.optim import penalties
from fastnet.optim.optimizers import OPTIMIZERS
from fastnet.optim.schedules import Schedule, from_settings
from fastnet.train import checkpoint, record
from fastnet.train.evaluation import evaluate
from fastnet.train.lock import exclusive
from fastnet.train.loop import Run, fit
from fastnet.train.nonfinite import NonFiniteError

DONE, PREDICTIONS = "reproduction.json", "predictions.safetensors"


class Place(NamedTuple):
    """What all jobs share and no setting of a report says: where the data lie, and the device."""

    data_dir: str | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Training:
    """Everything that makes a run but the device: equal ones are the same run.

    optimizer  {"name": ..., and its keyword arguments}; a schedule's name and arguments likewise. Steps that a schedule
               needs and that are not given are the run's: `steps_per_epoch`, and the `steps` of a whole cosine
    penalty    {"L2": lambda} or other classes of `fastnet.optim.penalties`; {"L1": {keyword arguments}} where one
               number does not say it
    watch      'validation', or 'test': there is no validation set and the test images are looked at every epoch, as
               report R5 did; its figures then are named best_test_accuracy, never validation
    seed       of weights, shuffles and augmentation, and of the random split
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str = "cifar10"
    split: str = "45000/5000"
    order: str = "random"
    normalization: str = "pixel"
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 20
    batch_size: int = 100
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"name": "sgd"})
    schedule: Mapping[str, Any] = field(default_factory=dict)
    penalty: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "softmax_cross_entropy"
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    watch: str = "validation"
    test_divisor: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.watch not in ("validation", "test"):
            raise ValueError(f"Training: watch must be 'validation' or 'test' but is {self.watch!r}")

    def key(self, place: Place) -> str:
        """A name for its directory: a hash of all settings, the images, the device and the version of fastnet."""
        return hashed({"training": asdict(self), "data": contents(self.data, place), "device": place.device})

    def title(self) -> str:
        """A few words for a line of progress."""
        changed = [f"rate {self.schedule['lr']:g}"] if "lr" in self.schedule else []
        changed += [f"{k}={v}" for k, v in self.options.items()] + [f"{k} {_plain(v)}" for k, v in self.penalty.items()]
        return " ".join([self.model, *changed, f"{self.epochs} epochs", f"seed {self.seed}"])

    def lines(self) -> list[str]:
        """All settings but the seed as lines `name: value`, empty ones left out."""
        return [f"{name}: {_plain(value)}" for name, value in asdict(self).items()
                if name not in ("seed", "test_divisor") and value != {}]

    def inputs(self) -> tuple["Training", ...]:
        """The runs that must be there before: none."""
        return ()

    def perform(self, folder: Path, place: Place, inputs: tuple["Trained", ...] = ()) -> None:
        """Train in `folder`, from its checkpoint if it has one; write what `Trained` reads.

        A loss that stops being finite is a result. Raises what `fit` does otherwise, KeyboardInterrupt too.
        """
        data = self.dataset(place)
        splits = {name: split for name in ("test", "validation") if len(split := getattr(data, name))}
        found: dict[str, Any] = {"training": asdict(self), "data": data.identity, "diverged": None,
                                 "classes": len(data.classes),
                                 "images": {s: len(getattr(data, s)) for s in ("train", "validation", "test")}}
        resume = (folder / record.CHECKPOINT).exists()
        if not resume:
            _clear(folder)  # what a run left that was killed before its first checkpoint
        try:
            run = self.fit(data, place, out=folder, resume=resume)
        except NonFiniteError as error:
            history = record.read_history(folder) if (folder / record.HISTORY).exists() else []
            found["diverged"] = {"step": error.step, "epochs": len(history), "why": str(error)}
            right = {name: split.labels == 0 for name, split in splits.items()}  # what argmax makes of NaN
        else:
            right = {name: evaluate(run.model, split, run.standardization, loss=self.loss,
                                    loss_options=self.loss_options or None).predictions == split.labels
                     for name, split in splits.items()}
        checkpoint.save(folder / PREDICTIONS, right, {})
        record.write_json(folder / DONE, found)

    def dataset(self, place: Place) -> Dataset:
        """The images, split by the seed. With watch='test' the test images stand where validation images would."""
        data = _loaded(self.data, place.data_dir, self.split, self.order, self.seed)
        if self.test_divisor > 1:
            test = data.test
            kept = slice(None, len(test) // self.test_divisor)
            data = replace(data, test=Split(test.images[kept], test.labels[kept], test.indices[kept]),
                           identity={**data.identity, "test_images": len(test) // self.test_divisor})
        if self.watch == "test":
            data = replace(data, validation=data.test, identity={**data.identity, "validation": "the test images"})
        return data

    def fit(self, data: Dataset, place: Place, **where: Any) -> Run:
        """Train a new model on these images; `where` goes to `fastnet.fit` besides. Raises what that does."""
        options = {**self.options, **fitting(self.model, data.train.images.shape[1:], len(data.classes))}
        model = build(self.model, seed=self.seed, dtype=self.dtype, device=place.device, **options)
        named = dict(self.optimizer)
        optimizer = OPTIMIZERS[named.pop("name")](**named)
        return fit(model, data, optimizer, self.rate(len(data.train)), epochs=self.epochs, batch_size=self.batch_size,
                   penalty=[getattr(penalties, name)(**given) if isinstance(given, Mapping) else
                            getattr(penalties, name)(given) for name, given in self.penalty.items()] or None,
                   loss=self.loss, loss_options=self.loss_options or None, seed=self.seed,
                   normalization=self.normalization, verbose=False,
                   augmentation=Augmentation.from_settings(self.augmentation) if self.augmentation else None, **where)

    def rate(self, images: int) -> Schedule | None:
        """The schedule for so many training images; None for the optimizer's own rate."""
        if not self.schedule:
            return None
        given = dict(self.schedule)
        name, per_epoch = given.pop("name"), -(-images // self.batch_size)
        if given.get("unit") == "epoch":
            given.setdefault("steps_per_epoch", per_epoch)
        if name in ("cosine", "one_cycle", "warmup_linear"):
            given.setdefault("steps", self.epochs * per_epoch)
        return from_settings(name, given)


@dataclass(frozen=True)
class Trained:
    """What a finished training left in its directory."""

    folder: Path

    @functools.cached_property
    def found(self) -> dict[str, Any]:
        """Settings, the data's identity, how many images each split has, and where it diverged, if it did."""
        return record.read_json(self.folder / DONE)

    @functools.cached_property
    def history(self) -> list[dict[str, Any]]:
        """One line an epoch; none after a run that diverged in its first."""
        return record.read_history(self.folder) if (self.folder / record.HISTORY).exists() else []

    @property
    def diverged(self) -> dict[str, Any] | None:
        return self.found["diverged"]

    def value(self, metric: str) -> float:
        """A figure of the run: `test_accuracy` or another field of the last epoch, or the best epoch's.

        best_validation_accuracy is the largest of all epochs; so is best_test_accuracy, of a run that watched the test
        images. A run that diverged knows nothing: accuracy 1/classes, infinite loss. Raises KeyError for a figure that
        the run does not have.
        """
        if self.diverged:
            return 1 / self.found["classes"] if metric.endswith("accuracy") else float("inf")
        watched = self.found["training"]["watch"]
        if metric in ("best_validation_accuracy", "best_test_accuracy"):
            if metric != f"best_{watched}_accuracy":
                raise KeyError(f"{self.folder}: a run that watched the {watched} images has no {metric}")
            return max(line["validation_accuracy"] for line in self.history)
        return self.history[-1][metric]

    def images(self, metric: str) -> int:
        """How many images the figure is a mean over."""
        return self.found["images"][next(s for s in ("validation", "test", "train") if s in metric)]

    def correct(self, split: str) -> np.ndarray:
        """Which images of 'test' or 'validation' the final model gets right, bool (N,).

        After a divergence the logits are NaN, of which argmax makes class 0.
        """
        return checkpoint.load(self.folder / PREDICTIONS)[0][split]


def hashed(settings: Any) -> str:
    """Twelve hexadecimal digits for JSON-able settings, which include the version of fastnet."""
    text = json.dumps([settings, record.versions()["fastnet"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@functools.cache
def contents(name: str, place: Place) -> str:
    """What identifies the images of a data set, whatever the split."""
    return load(name, place.data_dir).identity["sha256"]


@functools.lru_cache(maxsize=2)
def _loaded(name: str, data_dir: str | None, split: str | None, order: str, seed: int) -> Dataset:
    return load(name, data_dir, split=split, order=order, seed=seed)


def _clear(folder: Path) -> None:
    """Empty the directory of a run, which no other process may be using. Raises BlockingIOError where one is."""
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        for path in folder.iterdir():
            if path.name != record.LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
