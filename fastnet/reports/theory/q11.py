"""The loss before training: ln K where the logits are nearly equal, and what else to expect where they are not.

If the last layer's weights are N(0, sigma^2), then given its input h its logits are K independent N(0, s^2), with
s = sigma |h|, and for any label

    E loss = E log sum exp(z) - E z_y = E log sum exp(z)        z ~ N(0, s^2)^K
           = integral over u of  exp(-e^u) - phi(u)^K,          phi(u) = E exp(-e^(u + z)), z ~ N(0, s^2)

by log a = integral over t > 0 of (e^-t - e^-at)/t, with t = e^u. It is ln K for s = 0 and grows like 1.54 s for K = 10,
the mean of the largest of ten normal numbers. So ln K at the start is a check of logits that are nearly equal, no more.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.arrays import Array
from fastnet.data import Standardization
from fastnet.nn.layers import Linear
from fastnet.nn.losses import loss_and_gradients
from fastnet.nn.models import build
from fastnet.nn.sequential import Sequential
from fastnet.nn.trace import trace
from fastnet.plots.style import COLOURS, written
from fastnet.reports.experiment import Results
from fastnet.reports.task import Task
from fastnet.reports.theory import question
from fastnet.reports.theory.question import Finding, Question, line
from fastnet.reports.training import Place

SIGMAS = (1e-3, 1e-2, 3e-2, 6e-2, 1e-1, 2e-1, 3e-1)
MODELS = ("mlp2", "mlp3", "mlp3-bn", "lenet5", "lenet5-bn", "resnet20")


def expected_loss(s: float, classes: int) -> float:
    """E log sum exp of so many independent N(0, s^2) numbers, to 1e-8, for s <= 1000.

    The trapezoidal rule, whose error falls exponentially for functions as smooth as these. Below s = 0.01, where it
    would take ever smaller steps, by the beginning of the series: ln K + s^2 (1 - 1/K)/2.
    """
    if s < 0.01:
        return math.log(classes) + s * s * (1 - 1 / classes) / 2
    from scipy.signal import fftconvolve

    step = min(0.25, s)
    reach = math.ceil(9 * s / step)
    weights = np.exp(-((np.arange(-reach, reach + 1) * step / s) ** 2) / 2)
    # Beyond these ends exp(-e^u) and phi are both 1 or both 0, to the last digit.
    u = np.arange(-9 * s - 45, 9 * s + 8, step)
    wide = np.concatenate([u[0] - step * np.arange(reach, 0, -1), u, u[-1] + step * np.arange(1, reach + 1)])
    with np.errstate(over="ignore", under="ignore"):
        phi = fftconvolve(np.exp(-np.exp(wide)), weights / weights.sum(), "valid")
        difference = np.exp(-np.exp(u)) - phi**classes
    return float(difference.sum() * step)


@functools.cache
def curve(classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """`expected_loss` of many s at once, to 1e-6, through a spline over the logarithm of s."""
    from scipy.interpolate import CubicSpline

    known = np.geomspace(1e-2, 1e3, 150)
    spline = CubicSpline(np.log(known), [expected_loss(float(s), classes) for s in known])
    return lambda s: np.where(s < known[0], math.log(classes) + s * s * (1 - 1 / classes) / 2,
                              spline(np.log(np.maximum(s, known[0]))))


def expectation(model: Sequential, x: Array, sigma: float) -> float:
    """The mean over images x of the expected loss, given what goes into the last layer, a linear one."""
    *below, last = model.children()
    assert isinstance(last, Linear)
    hidden = trace(model, x)[below[-1].name] if below else x.reshape(len(x), -1)
    scales = sigma * np.sqrt((hidden.astype(np.float64) ** 2).sum(axis=1))
    return float(curve(last.out_features)(scales).mean())


def initial(folder: Path, place: Place, *, data: str, images: int, draws: int) -> dict[str, Any]:
    """The loss of untrained networks on standardised images for some seeds of their weights.

    {"classes", "models": {name: losses}, "sigmas": [[sigma, losses, expectations], ...] of mlp3}
    """
    given = question.dataset(data, place, images, 60, seed=0)
    x = Standardization.fit(given.train.images, "channel").apply(given.train.images, "float32")
    labels = given.train.labels

    def loss(model: Sequential) -> float:
        # In training mode: the running statistics of batch norm are not those of anything yet.
        return float(loss_and_gradients(model, x, labels)[0])

    models = {name: [loss(build(name, seed=seed)) for seed in range(3)] for name in MODELS}
    sigmas = []
    for sigma in SIGMAS:
        nets = [build("mlp3", seed=seed, init=f"normal:{sigma:g}") for seed in range(draws)]
        sigmas.append([sigma, [loss(net) for net in nets], [expectation(net, x, sigma) for net in nets]])
    return {"classes": len(given.classes), "models": models, "sigmas": sigmas}


def tasks(results: Results) -> list[Task]:
    return [Task("fastnet.reports.theory.q11:initial", {"images": question.images(results, 300),
                                                        "draws": max(4, 24 // results.scale.images)}, data="cifar10")]


def find(answers: list[Any]) -> Finding:
    found = answers[0]
    rule, rows = math.log(found["classes"]), []
    for name, losses in found["models"].items():
        rows.append(line(name, "loss before training, nats", question.spread(losses, ".3f"), f"{rule:.3f}"))
    worst = 0.0
    for sigma, losses, expected in found["sigmas"]:
        gap = np.subtract(losses, expected)
        error = float(gap.std(ddof=1)) / math.sqrt(len(gap))
        # Rounding to float32, and the table of expectations, bound what sigma near 0 can show.
        worst = max(worst, abs(float(gap.mean())) / (error + 1e-4 * float(np.mean(expected))))
        rows.append(line(f"mlp3, N(0, {sigma:g}^2)", "loss before training, nats", question.spread(losses, ".4g"),
                         f"{rule:.3f}", f"{error:.2g}", f"expected for this initialisation {np.mean(expected):.4g}"))
    small, large = found["sigmas"][0], found["sigmas"][-1]
    near = abs(float(np.mean(small[1])) - rule) < 0.01
    return Finding(rows, near and worst < 4,
                   f"with small weights the loss is ln {found['classes']} = {rule:.3f}; with N(0, {large[0]:g}^2) it "
                   f"is {np.mean(large[1]):.3g}, as expected for such logits ({np.mean(large[2]):.3g}): the means are "
                   f"within {worst:.1f} standard errors of what is expected")


def draw(answers: list[Any], path: Path) -> None:
    found = answers[0]
    with written(path, 4.8, 3.2) as figure:
        axis = figure.subplots()
        sigmas = [row[0] for row in found["sigmas"]]
        axis.axhline(math.log(found["classes"]), color="0.4", linewidth=1, linestyle=":",
                     label=rf"$\ln\,{found['classes']}$")
        axis.plot(sigmas, [np.mean(row[2]) for row in found["sigmas"]], color=COLOURS[0], label="expected")
        for k, row in enumerate(found["sigmas"]):
            axis.plot(np.full(len(row[1]), row[0]), row[1], linestyle="", marker="o", markersize=3, alpha=0.5,
                      color=COLOURS[1], label=None if k else "measured, each draw of the weights")
        axis.set(xscale="log", yscale="log", xlabel=r"Deviation $\sigma$ of all weights", ylabel="Initial loss (nats)")
        axis.set_yticks(ticks := [2, 5, 10, 20, 50, 100], list(map(str, ticks)))
        axis.minorticks_off()
        axis.legend(fontsize=8)


QUESTION = Question(
    "Q11", "before training the loss is ln K", "ln K",
    "The loss of untrained networks on 300 standardised images, and of the 3-layer perceptron with weights from "
    "N(0, sigma^2), 24 draws each, beside what is to be expected for its logits, which is ln K only where these are "
    "small. About 5 s.",
    tasks, find, draw, "loss of the untrained 3-layer perceptron over the deviation of its weights")
