"""Units that died under ReLU and under leaky ReLU, layer by layer and epoch by epoch, and how steady training is.

A unit is silent where it is not above 0 for any of the images looked at. Under ReLU it then passes no gradient on and
stays as it is: it is dead. Under leaky ReLU it passes the slope, and its weights still move.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fastnet.arrays import Array, to_numpy
from fastnet.data import Standardization
from fastnet.nn.layers import ACTIVATIONS
from fastnet.nn.losses import loss_and_gradients
from fastnet.nn.models import build
from fastnet.nn.sequential import Sequential, named_layers
from fastnet.nn.trace import trace
from fastnet.optim.optimizers import SGD
from fastnet.plots.style import COLOURS, written
from fastnet.reports.experiment import Results
from fastnet.reports.task import Task
from fastnet.reports.theory import question
from fastnet.reports.theory.question import Finding, Question, line
from fastnet.reports.training import Place
from fastnet.train.loop import fit
from fastnet.train.nonfinite import NonFiniteError
from fastnet.train.step import TrainStep

KINDS = ("relu", "leaky_relu")
RATES = (0.01, 0.03, 0.06)
HIDDEN = (50, 50, 50, 50, 50)


def silent(model: Sequential, x: Array) -> dict[str, list[int]]:
    """{activation: [units never above 0 on x, units]}, in the order of the layers."""
    kinds, layers = tuple(ACTIVATIONS.values()), dict(named_layers(model))
    found = {}
    for name, y in trace(model, x).items():
        if isinstance(layers[name], kinds):
            active = (y > 0).any(axis=tuple(range(y.ndim - 1)))
            found[name] = [int((~active).sum()), y.shape[-1]]
    return found


def stuck(model: Sequential, x: Array, labels: Array) -> int:
    """Hidden units whose incoming weights get no gradient at all from these images: nothing will move them."""
    _, gradients = loss_and_gradients(model, x, labels)
    weights = [to_numpy(g) for name, g in gradients.items() if name.endswith(".w")]
    return sum(int((abs(g).reshape(-1, g.shape[-1]).max(axis=0) == 0).sum()) for g in weights[:-1])


class _Epochs:
    """An observer that counts silent units before the first step of every epoch."""

    def __init__(self, x: Array) -> None:
        self.x, self.found = x, []  # type: ignore[var-annotated]

    def __call__(self, step: TrainStep, x: Array, labels: Array, samples: Array, epoch: int) -> Array:
        if len(self.found) == epoch:
            self.found.append(silent(step.model, self.x))
        return step(x, labels, samples, epoch)


def census(folder: Path, place: Place, *, data: str, images: int, epochs: int, seed: int) -> list[dict[str, Any]]:
    """For each activation and rate: silent units by epoch and layer, stuck ones in the end, loss, divergence."""
    given, found = question.dataset(data, place, images, images // 2, seed), []
    x = Standardization.fit(given.train.images, "pixel").apply(given.train.images[:1000], "float32")
    for kind in KINDS:
        for lr in RATES:
            model, watch = build("mlp7", seed=seed, activation=kind, hidden=HIDDEN, init="kaiming_normal"), _Epochs(x)
            row: dict[str, Any] = {"kind": kind, "lr": lr, "diverged": False}
            try:
                run = fit(model, given, SGD(lr=lr, momentum=0.9), epochs=epochs, batch_size=min(100, images),
                          seed=seed, normalization="pixel", observer=watch, verbose=False)
                row |= {"accuracy": run.history[-1]["validation_accuracy"], "loss": run.history[-1]["train_loss"]}
                watch.found.append(silent(model, x))
                row["stuck"] = stuck(model, x, given.train.labels[:1000])
            except NonFiniteError:
                row |= {"diverged": True, "accuracy": 1 / len(given.classes), "loss": None, "stuck": None}
            found.append({**row, "silent": watch.found})
    return found


def tasks(results: Results) -> list[Task]:
    return question.seeded(results, "q06:census", images=question.images(results, 4000),
                           epochs=question.epochs(results, 6))


def cells(answers: list[Any], kind: str, lr: float) -> list[dict[str, Any]]:
    """That combination, of every seed."""
    return [next(row for row in one if (row["kind"], row["lr"]) == (kind, lr)) for one in answers]


def share(record: dict[str, list[int]]) -> float:
    """Silent units of all layers over all units."""
    return sum(a for a, _ in record.values()) / sum(b for _, b in record.values())


def pooled(groups: list[list[float]]) -> tuple[float, int]:
    """The deviation within groups, and its degrees of freedom."""
    freedom = sum(max(0, len(group) - 1) for group in groups)
    squares = sum(float(np.var(group)) * len(group) for group in groups if group)
    return (float(np.sqrt(squares / freedom)) if freedom else 0.0), freedom


def noisier(one: tuple[float, int], other: tuple[float, int]) -> float:
    """The probability, by Fisher's F, of so large a ratio of the first's variance to the other's if they are equal."""
    from scipy.stats import f

    if not (one[1] and other[1] and other[0]):
        return 1.0
    return float(f.sf((one[0] / other[0]) ** 2, one[1], other[1]))


def find(answers: list[Any]) -> Finding:
    rows = []
    for lr in RATES:
        for kind in KINDS:
            here = cells(answers, kind, lr)
            ended = [row for row in here if not row["diverged"]]
            label, units = f"{kind.replace('_', ' ')}, rate {lr:g}", sum(HIDDEN)
            if ended:
                rows.append(line(label, "silent units in the end, %",
                                 question.spread([share(row["silent"][-1]) for row in ended], ".1f", 100),
                                 note="by layer, first seed: " + ", ".join(
                                     str(a) for a, _ in ended[0]["silent"][-1].values())))
                rows.append(line(label, f"without any gradient, of {units}",
                                 question.spread([row["stuck"] for row in ended], ".1f")))
            rows.append(line(label, "held-out %", question.spread([row["accuracy"] for row in here], factor=100),
                             note=f"{len(here) - len(ended)} of {len(here)} diverged"))
    kept = {kind: [row for lr in RATES for row in cells(answers, kind, lr)] for kind in KINDS}
    failed = {kind: sum(row["diverged"] for row in rows) for kind, rows in kept.items()}
    noise = {kind: pooled([[row["accuracy"] for row in cells(answers, kind, lr) if not row["diverged"]]
                           for lr in RATES]) for kind in KINDS}
    dead = {kind: sum(row["stuck"] or 0 for row in rows) for kind, rows in kept.items()}
    p = noisier(noise["leaky_relu"], noise["relu"])
    holds = False if p < 0.05 else None if failed["leaky_relu"] > failed["relu"] else True
    return Finding(rows, holds, (
        f"units without any gradient: {dead['relu']} under ReLU, {dead['leaky_relu']} under leaky ReLU, in all runs; "
        f"of {len(kept['relu'])} runs {failed['relu']} and {failed['leaky_relu']} diverged, and the deviation between "
        f"seeds of the others is {100 * noise['relu'][0]:.1f} and {100 * noise['leaky_relu'][0]:.1f} points "
        f"(leaky ReLU's larger by chance: p = {p:.2g})"))


def draw(answers: list[Any], path: Path) -> None:
    with written(path, 7.2, 2.9) as figure:
        axes, most = figure.subplots(1, len(RATES), sharey=True), 10.0
        for axis, lr in zip(axes, RATES, strict=True):
            for kind, dash in zip(KINDS, ("-", "--"), strict=True):
                history = max((row["silent"] for row in cells(answers, kind, lr)), key=len)  # a divergence ends it
                for k, layer in enumerate(history[0]):
                    counts = [100 * epoch[layer][0] / epoch[layer][1] for epoch in history]
                    most = max(most, *counts)
                    axis.plot(range(len(counts)), counts, dash, color=COLOURS[k % len(COLOURS)],
                              label=f"layer {k + 1}" if dash == "-" else None)
            axis.set(xlabel=f"Epoch (rate {lr:g})")
            axis.xaxis.get_major_locator().set_params(integer=True)
        axes[0].set(ylabel="Silent units (%)", ylim=(-0.03 * most, 1.08 * most))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)


QUESTION = Question(
    "Q06", "leaky ReLU solves dying ReLUs, but is unstable", False,
    "A perceptron of five hidden layers of 50 units, without batch norm, at three rates (SGD with momentum .9): 4,000 "
    "images, 6 epochs. Counted over 1,000 training images before every epoch: units that are never above 0, and in the "
    "end those whose weights get no gradient at all. About 10 s a seed.",
    tasks, find, draw, "units never above 0, by layer: ReLU solid, leaky ReLU dashed; the first "
                       "seed that did not diverge")
