"""What changes while a run goes on, and its way into a checkpoint and back.

All random numbers are functions of (seed, epoch, sample), so this is little more than arrays and a step count.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.arrays import Array, assign, to_numpy
from fastnet.train import checkpoint, record
from fastnet.train.scaling import LossScale
from fastnet.train.step import TrainStep
from fastnet.train.stopping import EarlyStopping
from fastnet.train.sums import Sums


class RunState:
    """The model and the optimizer (in `step`), the history, the sums of this epoch, the average, the best epoch."""

    def __init__(self, step: TrainStep, stopping: EarlyStopping | None) -> None:
        self.step, self.average, self.stopping = step, step.average, stopping
        if stopping:
            stopping.start()
        self.history: list[dict[str, Any]] = []
        self.sums = Sums()
        self.first_loss: float | None = None
        self.versions = record.versions()  # once: looking them up takes longer than writing a small checkpoint

    def save(self, path: Path, config: dict[str, Any]) -> None:
        """Write a checkpoint. Raises OSError; the one before stays then."""
        metadata = {"step": self.step.count, "sums": self.sums.settings(), "history": self.history, "config": config,
                    "first_loss": self.first_loss, "versions": self.versions}
        if hasattr(self.step.schedule, "state"):
            metadata["schedule"] = self.step.schedule.state()
        if self.step.scaling:
            metadata["scaling"] = self.step.scaling.state()
        if self.stopping:
            metadata["stopping"] = {"best_epoch": self.stopping.best_epoch, "best_value": self.stopping.best_value}
        arrays = {f"{group}/{name}": to_numpy(value) for group, named in self._groups().items()
                  for name, value in named.items()}
        if self.stopping:
            arrays |= {f"best/{name}": to_numpy(value) for name, value in self.stopping.best_state.items()}
        checkpoint.save(path, arrays, metadata)

    def restore(self, path: Path, config: dict[str, Any]) -> None:
        """Take over a checkpoint. Raises ValueError for one that is damaged or of another run, before any change.

        The settings may differ in the number of epochs only; all that differ are named, and so are all arrays that
        are missing, extra, misshapen or not finite.
        """
        arrays, metadata = checkpoint.load(path)
        try:
            if changed := record.differences({**metadata["config"], "epochs": None}, {**config, "epochs": None}):
                raise ValueError(f"--resume: the settings are not the run's: {'; '.join(changed)}")
            history, sums, count, first_loss = _progress(metadata)
            schedule = metadata["schedule"] if hasattr(self.step.schedule, "state") else None
            if schedule is not None:
                copy.copy(self.step.schedule).load_state(schedule)  # type: ignore[attr-defined]  # before any change
            scaling = LossScale()
            if self.step.scaling:
                scaling.load_state(metadata["scaling"])
            best = {key: metadata["stopping"][key] for key in ("best_epoch", "best_value")} if self.stopping else {}
            if best and not (_is_count(best["best_epoch"]) and best["best_epoch"] <= len(history)
                             and _is_number(best["best_value"])):
                raise TypeError("its best epoch is none of its epochs")
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a checkpoint of a run ({type(error).__name__}: {error})") from None
        groups, best_state = self._groups(), {}
        if best.get("best_epoch"):
            groups["best"] = best_state = self.step.model.state()
        targets = {f"{group}/{name}": value for group, named in groups.items() for name, value in named.items()}
        if problems := _problems(targets, arrays):
            raise ValueError(f"{path} does not fit this run: {'; '.join(problems)}")
        for name, value in targets.items():
            assign(value, arrays[name])
        self.history, self.sums, self.step.count, self.first_loss = history, sums, count, first_loss
        if self.step.scaling:
            self.step.scaling = scaling
        if schedule is not None:
            self.step.schedule.load_state(schedule)  # type: ignore[attr-defined]
        if self.stopping:
            self.stopping.best_epoch, self.stopping.best_value = best["best_epoch"], best["best_value"]
            self.stopping.best_state = best_state

    def _groups(self) -> dict[str, dict[str, Array]]:
        """{group: {name: view}} of all arrays but the best epoch's, as they are named in a checkpoint."""
        model = self.step.model
        groups = {"model": {**model.parameters(), **model.statistics()}}
        groups |= {f"optimizer.{key}": model.store.views(vector) for key, vector in self.step.state.items()}
        if self.average:
            groups["average"] = model.store.views(self.average.vector)
        return groups


def _progress(metadata: dict[str, Any]) -> tuple[list[dict[str, Any]], Sums, int, float | None]:
    """(history, sums, steps, first loss) in a checkpoint. Raises KeyError or TypeError where they are not there."""
    history, sums, steps = metadata["history"], Sums(**metadata["sums"]), metadata["step"]
    if not isinstance(history, list):
        raise TypeError("its history is no list")
    for epoch, line in enumerate(history, start=1):
        if line["epoch"] != epoch or not all(_is_number(line[key]) for key in ("step", "lr", "train_loss", "seconds")):
            raise TypeError(f"line {epoch} of its history is not the record of this epoch")
    if not all(map(_is_count, (steps, sums.correct, sums.seen))) or not all(map(_is_number, (sums.loss, sums.seconds))):
        raise TypeError("its steps, or the sums of its last epoch, are no numbers")
    if metadata["first_loss"] is not None and not _is_number(metadata["first_loss"]):
        raise TypeError("its first loss is no number")
    return history, sums, steps, metadata["first_loss"]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    """Whether it is one that a float can be."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _problems(targets: dict[str, Array], found: dict[str, np.ndarray]) -> list[str]:
    problems = [f"{name} is missing" for name in targets if name not in found]
    problems += [f"{name} belongs to nothing in it" for name in found if name not in targets]
    for name in targets.keys() & found.keys():
        if found[name].shape != targets[name].shape or found[name].dtype != targets[name].dtype:
            problems.append(f"{name} is {found[name].dtype}{found[name].shape}, not {targets[name].dtype}"
                            f"{targets[name].shape}")
        elif not np.isfinite(found[name]).all():
            problems.append(f"{name} holds {int((~np.isfinite(found[name])).sum())} entries that are not finite")
    return sorted(problems)
