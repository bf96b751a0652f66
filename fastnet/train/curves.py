"""The figures of a run, drawn from its record alone."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from fastnet import plots
from fastnet.optim.schedules import SCHEDULES, from_settings
from fastnet.train import record

MOST = 100_000  # rates in a figure, which has some hundred pixels across
FIGURES = ("lr", *(f"{split}_{what}" for split in ("train", "validation") for what in ("loss", "cost", "accuracy")))
NEEDED = ("lr", "train_loss", "train_cost", "train_accuracy")


def draw_curves(folder: Path) -> Path:
    """Draw curves.png of a run directory; return its path. Raises OSError or ValueError for a damaged record."""
    history, rates, title = learning_rates(folder)
    plots.training_curves(history, rates, folder / record.CURVES, title=title)
    return folder / record.CURVES


def learning_rates(folder: Path) -> tuple[list[dict[str, Any]], list[float], str]:
    """(history, learning rates, title) of a run directory: the rates of all updates, or of `MOST` between them.

    Raises OSError or ValueError for a damaged record.
    """
    config, history = record.read_json(folder / record.CONFIG), record.read_history(folder)
    try:
        name, settings = config["schedule"]["name"], config["schedule"]["settings"]
        title = f"{config['model']['name']} on {config['data']['name']}, seed {config['seed']}"
        _check(history)
        ends = [line["step"] for line in history]
        at = np.linspace(0, ends[-1] - 1, min(ends[-1], MOST)).astype(np.int64)
        schedule = from_settings(name, settings) if name in SCHEDULES else None
        if schedule is None or hasattr(schedule, "observe"):  # only the run knew it: the epochs' last ones
            rates = [history[epoch]["lr"] for epoch in np.searchsorted(ends, at, side="right").tolist()]
        else:
            rates = [schedule(t) for t in at.tolist()]
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{folder} holds no whole record of a run ({type(error).__name__}: {error})") from None
    return history, rates, title


def _check(history: list[dict[str, Any]]) -> None:
    """Raise TypeError or LookupError where the lines are not those of epochs, one after the other."""
    for line in history:
        if type(line["step"]) is not int or not 0 < line["step"] < 2**53:
            raise TypeError(f"step {str(line['step'])[:40]} is no number of steps")
        # Each figure that is drawn is in all lines or in none; what a run adds besides is its own affair.
        for key in FIGURES:
            if (key in line) != (key in history[0]) or (key not in line and key in NEEDED):
                raise LookupError(f"{key} is not in every line")
            if key in line and (isinstance(line[key], bool) or not isinstance(line[key], int | float)):
                raise TypeError(f"{key} is {str(line[key])[:40]!r}, not a number")
    if any(a["step"] >= b["step"] for a, b in itertools.pairwise(history)):
        raise TypeError("its steps do not ascend")
