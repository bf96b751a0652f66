"""The moments of activations before and after batch norm, with its gamma and beta.

    y = gamma (x - mean) / sqrt(var + eps) + beta       so the mean of y is beta and its deviation
                                                        |gamma| sqrt(var / (var + eps)), channel by channel

The report's answer leaves gamma and beta out. They start at 1 and 0, and are trained.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fastnet.arrays import to_numpy
from fastnet.lab.moments import Moments
from fastnet.nn.layers import BatchNorm
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


def moments(model: Sequential, x: Any) -> dict[str, dict[str, list[float]]]:
    """For each batch norm the channels' means and deviations on either side of it, and its gamma and beta."""
    layers, found = dict(named_layers(model)), {}
    values, before = trace(model, x, training=True), ""
    for name, y in values.items():
        norm = layers[name]
        if isinstance(norm, BatchNorm):
            sides = Moments(), Moments()
            sides[0].add(values[before])
            sides[1].add(y)
            own = {key: to_numpy(model.parameters()[f"{name}.{key}"]).astype(float) for key in ("gamma", "beta")}
            expected = abs(own["gamma"]) * np.sqrt(sides[0].variance / (sides[0].variance + norm.eps))
            found[name] = {
                "mean_before": sides[0].mean.tolist(), "std_before": np.sqrt(sides[0].variance).tolist(),
                "mean_after": sides[1].mean.tolist(), "std_after": np.sqrt(sides[1].variance).tolist(),
                "beta": own["beta"].tolist(), "std_expected": expected.tolist()}
        before = name
    return found


def before_and_after(folder: Path, place: Place, *, data: str, images: int, epochs: int,
                     seed: int) -> dict[str, Any]:
    """Those of an untrained LeNet-5 with batch norm, and of it trained on so many images."""
    given = question.dataset(data, place, images, images // 4, seed)
    model = build("lenet5-bn", seed=seed)
    start = model.copy()
    run = fit(model, given, SGD(lr=0.02, momentum=0.9), epochs=epochs, batch_size=min(100, images), seed=seed,
              verbose=False)
    x = run.standardization.apply(given.validation.images[:500], "float32")
    return {"untrained": moments(start, x), "trained": moments(model, x)}


def tasks(results: Results) -> list[Task]:
    return question.seeded(results, "q01:before_and_after", images=question.images(results, 5000),
                           epochs=question.epochs(results, 3))


def largest(answers: list[Any], state: str, key: str) -> list[float]:
    """The largest size of a channel's number, over all layers, for each seed."""
    return [max(float(np.max(np.abs(layer[key]))) for layer in one[state].values()) for one in answers]


def away(answers: list[Any], state: str, mean: str = "mean_after", target: str = "beta") -> float:
    """How far the means after batch norm are from beta at most."""
    return max(float(np.max(np.abs(np.subtract(layer[mean], layer[target]))))
               for one in answers for layer in one[state].values())


def find(answers: list[Any]) -> Finding:
    rows = []
    for state in ("untrained", "trained"):
        for key, side in (("mean_before", "before"), ("mean_after", "after")):
            rows.append(line(f"LeNet-5 with BN, {state}", f"largest mean of a channel {side} it",
                             question.spread(largest(answers, state, key), ".2g")))
        rows.append(line(f"LeNet-5 with BN, {state}", "largest |mean after - beta|", f"{away(answers, state):.1g}"))
        rows.append(line(f"LeNet-5 with BN, {state}", "largest |std after - |gamma| std/sqrt(var + eps)|",
                         f"{away(answers, state, 'std_after', 'std_expected'):.1g}"))
    zero, moved = away(answers, "untrained"), max(largest(answers, "trained", "mean_after"))
    follows = max(away(answers, state) for state in ("untrained", "trained"))
    return Finding(rows, zero < 1e-4 and follows < 1e-4,
                   f"at the start every mean is 0 to {zero:.0e}; what batch norm fixes is that the mean is beta, which "
                   f"training moves, here as far as {moved:.2f}")


def draw(answers: list[Any], path: Path) -> None:
    with written(path, 7.2, 2.8) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, state in zip(axes, ("untrained", "trained"), strict=True):
            layers = answers[0][state]
            for k, (side, marker) in enumerate((("before", "o"), ("after", "s"))):
                for place, layer in enumerate(layers.values()):
                    means = layer[f"mean_{side}"]
                    axis.plot(np.full(len(means), place + 0.3 * k - 0.15), means, linestyle="", marker=marker,
                              markersize=3, alpha=0.5, color=COLOURS[k], label=f"{side} batch norm" if not place
                              else None)
            axis.set_xticks(range(len(layers)), list(layers))
            axis.set(xlabel=f"Layer, {state}")
        axes[0].set(ylabel="Mean of a channel")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)


QUESTION = Question(
    "Q01", "batch normalisation pushes the mean of activations to 0", True,
    "Means of every channel before and after each batch norm of LeNet-5, over 500 held-out images in training mode, "
    "before training and after 3 epochs of 5,000 images. About 5 s a seed.",
    tasks, find, draw, "means of the channels of each layer, first seed")
