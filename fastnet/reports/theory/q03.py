"""Augmentation: each transform switched on by itself, and whether it leaves the label what it was."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.data import Split
from fastnet.data.augmentation import Augmentation
from fastnet.nn.models import build, fitting
from fastnet.nn.sequential import Sequential
from fastnet.optim.optimizers import SGD
from fastnet.optim.schedules import cosine
from fastnet.plots.style import COLOURS, written
from fastnet.reports.experiment import Results
from fastnet.reports.task import Task
from fastnet.reports.theory import question
from fastnet.reports.theory.question import Finding, Question, line
from fastnet.reports.training import Place
from fastnet.train.evaluation import evaluate
from fastnet.train.loop import Run, fit

# The crop's border and the cutout's side are in eighths of an image.
TRANSFORMS: dict[str, dict[str, Any]] = {
    "none": {}, "crop": {"pad": 1}, "horizontal flip": {"horizontal_flip": True},
    "vertical flip": {"vertical_flip": True}, "both flips": {"horizontal_flip": True, "vertical_flip": True},
    "cutout": {"cutout": 2}}
TURNED = {"horizontal flip": (slice(None), slice(None), slice(None, None, -1)),
          "vertical flip": (slice(None), slice(None, None, -1)),
          "both flips": (slice(None), slice(None, None, -1), slice(None, None, -1))}


def ablation(folder: Path, place: Place, *, data: str, images: int, epochs: int, seed: int,
             digits: bool = False) -> dict[str, Any]:
    """Accuracy on held-out images after training with each transform alone.

    And whether a label survives: of the network trained without any, its accuracy on held-out images that are flipped,
    all of them, and for digits how many sixes it calls nine once they are turned by half a turn, and the reverse.
    """
    if digits:
        given = question.dataset("digits", place, images, 500, seed)
    else:
        given = question.dataset(data, place, images, max(100, images // 3), seed)
    shape, unit = given.train.images.shape[1:], given.train.images.shape[1] // 8
    found: dict[str, Any] = {"accuracy": {}, "flipped": {}, "taken": None, "images": len(given.validation)}
    for name, settings in TRANSFORMS.items():
        scaled: dict[str, Any] = {key: value if value is True else value * unit for key, value in settings.items()}
        model = network(shape, len(given.classes), seed)
        batch = min(50, images)
        run = fit(model, given, SGD(momentum=0.9), cosine(0.02, steps=epochs * -(-images // batch)), epochs=epochs,
                  batch_size=batch, seed=seed, augmentation=Augmentation(**scaled) if scaled else None, verbose=False)
        found["accuracy"][name] = run.history[-1]["validation_accuracy"]
        if name == "none":
            for flip, axes in TURNED.items():
                found["flipped"][flip] = evaluate(model, turned(given.validation, axes), run.standardization).accuracy
            if digits:
                found["taken"] = confused(run, turned(given.validation, TURNED["both flips"]))
    return found


def network(shape: tuple[int, ...], classes: int, seed: int) -> Sequential:
    """LeNet-5 with batch norm; on images too small for its convolutions a perceptron with it."""
    name = "lenet5-bn" if shape[0] >= 16 else "mlp3-bn"
    return build(name, seed=seed, **fitting(name, shape, classes))


def turned(split: Split, axes: tuple[slice, ...]) -> Split:
    return replace(split, images=np.ascontiguousarray(split.images[axes]))


def confused(run: Run, split: Split) -> dict[str, list[int]]:
    """{"6 as 9": [so many, of so many], "9 as 6": ...}."""
    said = evaluate(run.model, split, run.standardization).predictions
    return {f"{a} as {b}": [int((said[split.labels == a] == b).sum()), int((split.labels == a).sum())]
            for a, b in ((6, 9), (9, 6))}


def tasks(results: Results) -> list[Task]:
    digits = [Task("fastnet.reports.theory.q03:ablation", {
        "data": "digits", "digits": True, "images": min(1000, question.images(results, 1000)),
        "epochs": question.epochs(results, 12), "seed": seed}) for seed in results.seeds]
    return digits + question.seeded(results, "q03:ablation", images=question.images(results, 3000),
                                    epochs=question.epochs(results, 6))


def parts(answers: list[Any]) -> dict[str, list[Any]]:
    """The seeds of each data set."""
    half = len(answers) // 2
    return {"digits": answers[:half], "photographs": answers[half:]}


def gains(answers: list[Any], name: str) -> list[float]:
    """Accuracy with the transform less that without any, seed by seed."""
    return [one["accuracy"][name] - one["accuracy"]["none"] for one in answers]


def find(answers: list[Any]) -> Finding:
    rows, harmful = [], []
    for data, seeds in parts(answers).items():
        for name in TRANSFORMS:
            accuracy = question.spread([one["accuracy"][name] for one in seeds], factor=100)
            flipped = ("without it, on flipped images: "
                       + question.spread([one["flipped"][name] for one in seeds], factor=100) if name in TURNED else "")
            error = ""
            if name != "none":
                low, high = question.interval(gains(seeds, name))
                error = f"{100 * low:+.2f} to {100 * high:+.2f}"
                if high < 0:
                    harmful.append(f"{name} on {data} ({100 * float(np.mean(gains(seeds, name))):+.1f})")
            rows.append(line(f"{data}, {name}", "held-out %; 95 % interval of the gain", accuracy, "", error, flipped))
    turns = {key: np.sum([one["taken"][key] for one in parts(answers)["digits"]], axis=0)
             for key in ("6 as 9", "9 as 6")}
    for key, (wrong, total) in turns.items():
        rows.append(line("digits, half a turn", f"called {key}", f"{wrong} of {total}"))
    wrong, total = np.sum(list(turns.values()), axis=0)
    found = f"harm beyond its 95 % interval: {', '.join(harmful)}" if harmful else "no transform does certain harm here"
    return Finding(rows, True if harmful else None, f"{found}; {wrong} of {total} sixes and nines, turned by half a "
                                                    "turn, are read as the other: the label does not survive")


def draw(answers: list[Any], path: Path) -> None:
    with written(path, 7.2, 2.9) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        names = [name for name in TRANSFORMS if name != "none"]
        for axis, (data, seeds) in zip(axes, parts(answers).items(), strict=True):
            for place, name in enumerate(names):
                values = 100 * np.array(gains(seeds, name))
                axis.plot(values, np.full(len(values), place), linestyle="", marker="o", markersize=4, alpha=0.6,
                          color=COLOURS[0], label="a seed" if not place else None)
                axis.plot(values.mean(), place, linestyle="", marker="|", markersize=14, markeredgewidth=2,
                          color=COLOURS[1], label="mean" if not place else None)
            axis.axvline(0, color="0.4", linewidth=0.8)
            axis.set(xlabel=f"Gain of held-out accuracy (points)\n{data}", ylim=(-0.6, len(names) - 0.4))
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)


QUESTION = Question(
    "Q03", "augmentation always helps", False,
    "Each transform of `fastnet.data.Augmentation` switched on by itself: on scikit-learn's digits (1,000 images, a "
    "perceptron of 3 layers, 12 epochs) and on 3,000 of the report's photographs (LeNet-5, 6 epochs), judged by "
    "held-out images. And whether the label survives it: the network that never saw flips is asked about flipped "
    "images, and whether it reads a six that is turned by half a turn as a nine. About 20 s a seed.",
    tasks, find, draw, "what each transform adds to the accuracy on held-out images")
