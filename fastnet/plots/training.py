"""Figures of training: its curves, its learning rates, the range test."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.plots.style import RATE, TRAIN, VALIDATION, written


def training_curves(history: Sequence[Mapping[str, Any]], rates: Sequence[float], path: Path, *, title: str) -> None:
    """Loss, cost and accuracy of training and validation, and the learning rate, each over the update steps.

    `history` is a run's record, a mapping an epoch; `rates` holds the rate of every update, or of updates that are
    evenly apart from the first to the last.
    """
    with written(path, 7.2, 4.8, title) as figure:
        axes = figure.subplots(2, 2, sharex=True)
        steps = [line["step"] for line in history]
        for axis, key, label in ((axes[0, 0], "loss", "Loss (nats)"), (axes[0, 1], "cost", "Cost = loss + penalty"),
                                 (axes[1, 0], "accuracy", "Accuracy (%)")):
            scale = 100 if key == "accuracy" else 1
            for split, colour, marker in (("train", TRAIN, "o"), ("validation", VALIDATION, "s")):
                if f"{split}_{key}" in history[0]:
                    axis.plot(steps, [scale * line[f"{split}_{key}"] for line in history], color=colour, marker=marker,
                              markersize=3, label="training" if split == "train" else split)
            axis.set_ylabel(label)
        if "test_accuracy" in history[-1]:
            accuracy = 100 * history[-1]["test_accuracy"]
            axes[1, 0].axhline(accuracy, color="0.4", linestyle="--", linewidth=1, label=f"test, final: {accuracy:.2f}")
        axes[0, 0].legend()
        axes[1, 0].legend()
        axes[1, 1].plot(np.linspace(0, steps[-1] - 1, len(rates)), rates, color=RATE)
        axes[1, 1].set_ylabel("Learning rate")
        axes[1, 1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        for axis in axes[1]:
            axis.set_xlabel("Update step")
        axes[0, 0].set_xlim(left=0)


def schedule(rates: Sequence[float], path: Path, *, title: str) -> None:
    """The learning rate of every update."""
    with written(path, 4.8, 2.8) as figure:
        axis = figure.subplots()
        axis.plot(range(len(rates)), rates, color=RATE)
        axis.set(title=title, xlabel="Update step", ylabel="Learning rate", ylim=(0, None), xlim=(0, None))


def lr_range(rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggestion: float,
             path: Path, *, title: str) -> None:
    """The loss over the learning rate of a range test, and the rate that it suggests."""
    with written(path, 4.8, 3.2) as figure:
        axis = figure.subplots()
        axis.plot(rates, losses, color=TRAIN, alpha=0.35, linewidth=1, label="loss of a batch (nats)")
        axis.plot(rates, smoothed, color=TRAIN, label="smoothed")
        axis.axvline(suggestion, color=VALIDATION, linestyle="--", linewidth=1, label=f"suggestion: {suggestion:.2g}")
        # The last values, where the loss breaks away, would flatten all the others.
        axis.set(title=title, xscale="log", xlabel="Learning rate", ylabel="Loss (nats)",
                 ylim=(0.8 * min(smoothed), 1.3 * max(smoothed[0], min(losses))))
        axis.legend()
