"""L2 and dropout, each with and without the other: where data are few, and where the network cannot learn them all."""

from pathlib import Path
from typing import Any

import numpy as np

from fastnet.nn.layer import Layer
from fastnet.nn.layers import Dropout, Linear, ReLU
from fastnet.nn.sequential import Sequential
from fastnet.optim.optimizers import SGD
from fastnet.optim.penalties import L2
from fastnet.optim.schedules import cosine
from fastnet.plots.style import COLOURS, written
from fastnet.reports.experiment import Results
from fastnet.reports.task import Task
from fastnet.reports.theory import question
from fastnet.reports.theory.question import Finding, Question, line
from fastnet.reports.training import Place
from fastnet.train.loop import fit

CELLS = {"neither": (0.0, 0.0), "L2": (0.003, 0.0), "dropout": (0.0, 0.5), "both": (0.003, 0.5)}
# Images, epochs, hidden units: one that can learn its images by heart, and one that cannot.
REGIMES = {"few images, wide": (2000, 30, 200), "many images, narrow": (12000, 5, 20)}


def two_by_two(folder: Path, place: Place, *, data: str, seed: int, divisor: int = 1,
               shorter: int = 1) -> dict[str, dict[str, list[float]]]:
    """{regime: {cell: [accuracy on held-out images, accuracy on those trained with]}}."""
    found: dict[str, dict[str, list[float]]] = {}
    for regime, (count, length, hidden) in REGIMES.items():
        images, epochs = max(60, count // divisor), max(1, length // shorter)
        given, batch = question.dataset(data, place, images, max(60, 4000 // divisor), seed), min(100, images)
        found[regime] = {}
        for cell, (strength, p) in CELLS.items():
            layers: list[Layer] = [Linear(given.train.images[0].size, hidden), ReLU(),
                                   *([Dropout(p)] if p else []), Linear(hidden, len(given.classes))]
            run = fit(Sequential(layers, seed=seed), given, SGD(momentum=0.9),
                      cosine(0.02, steps=epochs * -(-images // batch)), epochs=epochs, batch_size=batch, seed=seed,
                      penalty=L2(strength) if strength else None, verbose=False)
            found[regime][cell] = [run.history[-1][f"{split}_accuracy"] for split in ("validation", "train")]
    return found


def tasks(results: Results) -> list[Task]:
    return question.seeded(results, "q05:two_by_two", divisor=results.scale.images, shorter=results.scale.epochs)


def values(answers: list[Any], regime: str, cell: str, which: int = 0) -> np.ndarray:
    """The accuracies of the seeds: held-out (0) or training (1)."""
    return np.array([one[regime][cell][which] for one in answers])


def difference(answers: list[Any], regime: str) -> tuple[str, np.ndarray]:
    """The best cell but 'both', and by how much both together are better than it, seed by seed."""
    rival = max((cell for cell in CELLS if cell != "both"), key=lambda cell: values(answers, regime, cell).mean())
    return rival, values(answers, regime, "both") - values(answers, regime, rival)


def find(answers: list[Any]) -> Finding:
    rows, told, worse, unclear = [], [], False, False
    for regime in REGIMES:
        for cell in CELLS:
            low, high = question.interval(values(answers, regime, cell).tolist())
            rows.append(line(f"{regime}, {cell}", "held-out %, 95 % interval",
                             question.spread(values(answers, regime, cell).tolist(), factor=100), "",
                             f"{100 * low:.2f} to {100 * high:.2f}",
                             f"training {question.spread(values(answers, regime, cell, 1).tolist(), factor=100)}"))
        rival, gain = difference(answers, regime)
        interaction = (values(answers, regime, "both") - values(answers, regime, "L2")
                       - values(answers, regime, "dropout") + values(answers, regime, "neither"))
        for what, series in ((f"both less {rival}", gain), ("interaction", interaction)):
            low, high = question.interval(series.tolist())
            rows.append(line(regime, f"{what}, points", question.spread(series.tolist(), "+.2f", 100), "",
                             f"{100 * low:+.2f} to {100 * high:+.2f}"))
        low, high = question.interval(gain.tolist())
        worse, unclear = worse or high < 0, unclear or low <= 0
        told.append(f"with {regime} both together are {100 * gain.mean():+.1f} points from {rival} "
                    f"({100 * low:+.1f} to {100 * high:+.1f})")
    return Finding(rows, True if worse else None if unclear else False, "; ".join(told))


def draw(answers: list[Any], path: Path) -> None:
    with written(path, 7.2, 2.8) as figure:
        axes = figure.subplots(1, 2)
        for axis, regime in zip(axes, REGIMES, strict=True):
            for place, cell in enumerate(CELLS):
                each = 100 * values(answers, regime, cell)
                axis.plot(np.full(len(each), place), each, linestyle="", marker="o", markersize=4, alpha=0.6,
                          color=COLOURS[0], label="a seed" if not place else None)
                low, high = question.interval(each.tolist())
                if np.isfinite(low):
                    axis.errorbar(place + 0.15, each.mean(), [[each.mean() - low], [high - each.mean()]],
                                  color=COLOURS[1], marker="s", markersize=4, capsize=3,
                                  label="mean, 95 % interval" if not place else None)
            axis.set_xticks(range(len(CELLS)), list(CELLS))
            axis.set(xlabel=regime, ylabel="Held-out accuracy (%)", xlim=(-0.5, len(CELLS) - 0.4))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)


QUESTION = Question(
    "Q05", "an L-norm penalty and dropout together are always better", False,
    "Both, either and neither (L2 .003, dropout .5) in a 2-layer perceptron: 200 hidden units on 2,000 images for 30 "
    "epochs, which it learns by heart, and 20 on 12,000 for 5 epochs, which it cannot. Judged by 4,000 held-out "
    "images; the same seed means the same images and weights, so cells are compared seed by seed, with Student's "
    "intervals (`--seeds 5` makes them narrow). About 15 s a seed.",
    tasks, find, draw, "accuracy with and without either")
