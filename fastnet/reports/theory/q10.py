"""The loss around a trained network, with and without residual connections.

Lines and a plane along filter-normalised directions (`fastnet.lab.surface`); both networks have the same parameters,
drawn from the same seed, and the same training.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fastnet.lab.plain import plain
from fastnet.lab.surface import loss_surface
from fastnet.nn.models import build
from fastnet.optim.optimizers import SGD
from fastnet.optim.schedules import cosine
from fastnet.plots.landscape import loss_contours
from fastnet.reports.experiment import Results
from fastnet.reports.task import Task
from fastnet.reports.theory import question
from fastnet.reports.theory.question import Finding, Question, line
from fastnet.reports.training import Place
from fastnet.train.loop import fit

SHORTCUTS = {"with shortcuts": "zero_pad", "without": "none"}


def around(folder: Path, place: Place, *, data: str, images: int, epochs: int, blocks: int, points: int, lines: int,
           looked_at: int, seed: int) -> dict[str, Any]:
    """Train ResNet with `blocks` blocks a stage and a quarter of the filters, each way, and look around it.

    {"with shortcuts": {"lines": of some directions, "plane": {...}, "accuracy", "loss"}, "without": ...}; the plane for
    the first seed only.
    """
    given, batch, found = question.dataset(data, place, images, images // 2, seed), min(100, images), {}
    offsets = np.linspace(-1, 1, points)
    for name, shortcut in SHORTCUTS.items():
        model = build("resnet20", seed=seed, shortcut=shortcut, filter_multiplier=0.25, blocks=(blocks,) * 3)
        run = fit(model, given, SGD(momentum=0.9), cosine(0.1, steps=epochs * -(-images // batch)), epochs=epochs,
                  batch_size=batch, seed=seed, normalization="channel", verbose=False)
        shared: dict[str, Any] = {"images": min(looked_at, images)}
        along = [loss_surface(model, given.train, run.standardization, a=offsets, seed=1000 * seed + k, **shared)
                 for k in range(lines)]
        plane = None if seed else plain(loss_surface(model, given.train, run.standardization, a=offsets[::2],
                                                     b=offsets[::2], **shared))
        found[name] = {"lines": [plain(one.losses) for one in along], "offsets": plain(offsets), "plane": plane,
                       "accuracy": run.history[-1]["validation_accuracy"], "loss": run.history[-1]["train_loss"]}
    return found


def tasks(results: Results) -> list[Task]:
    small = results.scale.images > 1
    return question.seeded(results, "q10:around", images=question.images(results, 2000),
                           epochs=question.epochs(results, 8), blocks=1 if small else 3, points=9 if small else 21,
                           lines=2 if small else 3, looked_at=question.images(results, 300))


def rise(losses: list[float | None]) -> float:
    """How much more than in the middle the loss is at most, in nats; infinite where it is not finite."""
    values = np.array([np.inf if value is None else value for value in losses])
    return float(values.max() - values[len(values) // 2])


def bent(losses: list[float | None]) -> float:
    """The share of inner points where the line bends downwards: 0 for a convex one."""
    values = np.array([np.nan if value is None else value for value in losses])
    second = np.diff(values, 2)
    second = second[np.isfinite(second)]
    return float((second < -1e-3 * abs(second).max()).mean()) if len(second) and second.any() else 0.0


def find(answers: list[Any]) -> Finding:
    rows, measured = [], {}
    for name in SHORTCUTS:
        here = [one[name] for one in answers]
        figures = {"largest rise within an offset of 1, nats": [float(np.mean([rise(line_) for line_ in row["lines"]]))
                                                               for row in here],
                   "points that bend downwards, %": [100 * float(np.mean([bent(line_) for line_ in row["lines"]]))
                                                     for row in here]}
        measured[name] = figures
        rows += [line(name, what, question.spread(values)) for what, values in figures.items()]
        rows.append(line(name, "held-out %", question.spread([row["accuracy"] for row in here], factor=100),
                         note=f"training loss {question.spread([row['loss'] for row in here], '.3f')}"))
    intervals, said = [], []
    for what in measured["without"]:
        gap = np.subtract(measured["without"][what], measured["with shortcuts"][what])
        intervals.append(question.interval(gap.tolist()))
        said.append(f"{what}: {np.mean(measured['with shortcuts'][what]):.2f} with shortcuts, "
                    f"{np.mean(measured['without'][what]):.2f} without (95 % interval of the difference "
                    f"{intervals[-1][0]:+.2f} to {intervals[-1][1]:+.2f})")
    smoother, rougher = any(low > 0 for low, _ in intervals), any(high < 0 for _, high in intervals)
    return Finding(rows, None if smoother == rougher else smoother, "; ".join(said))


def draw(answers: list[Any], path: Path) -> None:
    loss_contours({name: found["plane"] for name, found in answers[0].items()}, path,
                  title="ResNet-20, a quarter of the filters, the loss of training images")


QUESTION = Question(
    "Q10", "residual connections smooth the loss surface", True,
    "ResNet-20 with a quarter of the filters, and the same network without its shortcuts: 2,000 images, 8 epochs, then "
    "the loss of 300 of them along three filter-normalised directions, and over a plane for the first seed. Two "
    "figures for smoothness: how far the loss rises, and how much of a line is not convex. About a minute a seed.",
    tasks, find, draw, "the loss over a plane through the trained network, first seed")
