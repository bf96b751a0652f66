"""Adam's eps from 1e-8 to 1: what it makes of the accuracy and of the steps.

    step / lr = m^ / (sqrt(v^) + eps)       close to +-1 where eps is far below sqrt(v^); m^/eps, momentum, far above
"""

from pathlib import Path
from typing import Any

import numpy as np

from fastnet.arrays import Array, to_numpy
from fastnet.functions.adam_update import factors
from fastnet.nn.models import build
from fastnet.optim.optimizers import Adam
from fastnet.optim.schedules import cosine
from fastnet.plots.style import COLOURS, written
from fastnet.reports.experiment import Results
from fastnet.reports.task import Task
from fastnet.reports.theory import question
from fastnet.reports.theory.question import Finding, Question, line
from fastnet.reports.training import Place
from fastnet.train.loop import fit
from fastnet.train.nonfinite import NonFiniteError
from fastnet.train.step import TrainStep

EPS = (1e-8, 1e-4, 1e-2, 1e-1, 1.0)
RATES = (1e-3, 1e-2, 1e-1, 1.0)
BINS = np.linspace(-9, 1, 41)  # of log10 |step| / lr


class Last:
    """An observer that keeps the step it is shown, whose state is then that of the whole run."""

    step: TrainStep | None = None

    def __call__(self, step: TrainStep, *batch: Any) -> Array:
        self.step = step
        return step(*batch)


def effective_steps(state: dict[str, Array], adam: Adam, updates: int) -> np.ndarray:
    """|m^| / (sqrt(v^) + eps) of every parameter: the last step over the rate."""
    size, correction = factors(updates, 1.0, adam.beta1, adam.beta2)
    m, v = (to_numpy(state[key]).astype(np.float64) for key in ("m", "v"))
    return abs(size * m) / (np.sqrt(correction * v) + adam.eps)


def sweep(folder: Path, place: Place, *, data: str, images: int, epochs: int, seed: int) -> list[dict[str, Any]]:
    """For each eps and rate the accuracy on held-out images, and how the last step was distributed.

    None for a run whose loss did not stay finite. The rate falls to 0 along a cosine; the steps are in its units.
    """
    given, found = question.dataset(data, place, images, images // 2, seed), []
    batch = min(100, images)
    for eps in EPS:
        for lr in RATES:
            last, adam = Last(), Adam(eps=eps)
            try:
                run = fit(build("mlp3", seed=seed), given, adam, cosine(lr, steps=epochs * -(-images // batch)),
                          epochs=epochs, batch_size=batch, seed=seed, observer=last, verbose=False)
            except NonFiniteError:
                found.append({"eps": eps, "lr": lr, "accuracy": None, "counts": None, "tiny": None})
                continue
            assert last.step is not None
            steps = effective_steps(last.step.state, adam, last.step.count)
            steps = steps[steps > 0]
            counts, _ = np.histogram(np.log10(steps), BINS)
            found.append({"eps": eps, "lr": lr, "accuracy": run.history[-1]["validation_accuracy"],
                          "counts": (counts / max(1, len(steps))).tolist(), "median": float(np.median(steps)),
                          "tiny": float((steps < 0.01).mean())})
    return found


def tasks(results: Results) -> list[Task]:
    return question.seeded(results, "q04:sweep", images=question.images(results, 4000),
                           epochs=question.epochs(results, 5))


def accuracies(answers: list[Any], eps: float, lr: float) -> list[float]:
    """Of each seed; a run that failed knows nothing."""
    cells = [next(cell for cell in one if (cell["eps"], cell["lr"]) == (eps, lr)) for one in answers]
    return [0.1 if cell["accuracy"] is None else cell["accuracy"] for cell in cells]


def best(answers: list[Any], eps: float) -> float:
    """The rate of the best mean."""
    return max(RATES, key=lambda lr: float(np.mean(accuracies(answers, eps, lr))))


def find(answers: list[Any]) -> Finding:
    rows = []
    for eps in EPS:
        lr = best(answers, eps)
        cells = [next(cell for cell in one if (cell["eps"], cell["lr"]) == (eps, RATES[0])) for one in answers]
        tiny = [cell["tiny"] for cell in cells if cell["tiny"] is not None]
        rows += [line(f"eps {eps:g}", f"held-out % at rate {RATES[0]:g}",
                      question.spread(accuracies(answers, eps, RATES[0]), factor=100),
                      note=f"last steps below 1 % of the rate: {question.spread(tiny, '.0f', 100)} %"),
                 line(f"eps {eps:g}", "held-out % at the best rate",
                      question.spread(accuracies(answers, eps, lr), factor=100), note=f"rate {lr:g}")]
    same = np.subtract(accuracies(answers, 1.0, RATES[0]), accuracies(answers, EPS[0], RATES[0]))
    large, small = (accuracies(answers, eps, best(answers, eps)) for eps in (1.0, EPS[0]))
    tuned = np.subtract(large, small)
    low, high = question.interval(tuned.tolist())
    return Finding(rows, True if high >= 0 and low > -0.1 else False if high < 0 else None,
                   f"with its rate found anew eps = 1 changes the accuracy by {100 * tuned.mean():+.1f} points (95 % "
                   f"interval {100 * low:+.1f} to {100 * high:+.1f}); at the rate {RATES[0]:g} of the small eps by "
                   f"{100 * same.mean():+.1f}, since steps shrink: then Adam is momentum")


def draw(answers: list[Any], path: Path) -> None:
    with written(path, 7.2, 2.9) as figure:
        left, right = figure.subplots(1, 2)
        middle = (BINS[1:] + BINS[:-1]) / 2
        for eps, colour, dash in zip(EPS, COLOURS, ("-", "--", "-.", ":", "-"), strict=False):
            cell = next(c for c in answers[0] if (c["eps"], c["lr"]) == (eps, RATES[0]))
            if cell["counts"] is not None:
                left.plot(middle, 100 * np.array(cell["counts"]), color=colour, linestyle=dash, label=f"{eps:g}")
        left.set(xlabel=r"$\log_{10}$ of the step over the rate", ylabel="Parameters (%)", ylim=(0, None),
                 xlim=(-6, 0.5))
        left.legend(title=r"$\epsilon$", fontsize=8, loc="upper left")
        for k, (label, rate) in enumerate((("rate 0.001", lambda eps: RATES[0]),
                                           ("best rate", lambda eps: best(answers, eps)))):
            values = 100 * np.array([accuracies(answers, eps, rate(eps)) for eps in EPS])
            right.errorbar(EPS, values.mean(1), [values.mean(1) - values.min(1), values.max(1) - values.mean(1)],
                           color=COLOURS[k], marker="os"[k], markersize=5, capsize=3, label=label)
        right.set(xscale="log", xlabel=r"$\epsilon$", ylabel="Held-out accuracy (%)")
        right.legend(fontsize=8)


QUESTION = Question(
    "Q04", "raising Adam's eps, up to 1.0, can help", True,
    "Adam with eps from 1e-8 to 1 and rates from 0.001 to 1 (a cosine down to 0) on the 3-layer perceptron: 4,000 "
    "images, 5 epochs, judged by 2,000 held-out ones; and the size of the last step of every parameter that moved, in "
    "units of the rate. About 10 s a seed.",
    tasks, find, draw, "left: how large the last steps are, first seed, rate 0.001; right: accuracy, bars from the "
                       "lowest to the highest seed")
