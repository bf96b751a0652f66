"""Zeros under L1, by its subgradient and by its proximal step, and under L2."""

from pathlib import Path
from typing import Any

import numpy as np

from fastnet.nn.models import build
from fastnet.optim.optimizers import SGD
from fastnet.optim.penalties import L1, L2, Penalty, sparsity
from fastnet.optim.schedules import cosine
from fastnet.plots.style import COLOURS, written
from fastnet.reports.experiment import Results
from fastnet.reports.task import Task
from fastnet.reports.theory import question
from fastnet.reports.theory.question import Finding, Question, line
from fastnet.reports.training import Place
from fastnet.train.loop import fit

STRENGTHS = {"none": (0.0,), "L2": (0.001, 0.003, 0.01), "L1, subgradient": (0.0003, 0.001, 0.003),
             "L1, proximal": (0.0003, 0.001, 0.003)}
NEAR = 1e-3


def penalty(kind: str, strength: float) -> Penalty | None:
    if kind == "none":
        return None
    return L2(strength) if kind == "L2" else L1(strength, proximal=kind == "L1, proximal")


def zeros(folder: Path, place: Place, *, data: str, images: int, epochs: int, seed: int) -> list[dict[str, Any]]:
    """For each penalty and strength the shares of weights at 0 and within NEAR of it, losses and accuracy."""
    given, batch, found = question.dataset(data, place, images, images // 2, seed), min(100, images), []
    for kind, strengths in STRENGTHS.items():
        for strength in strengths:
            run = fit(build("mlp3", seed=seed), given, SGD(momentum=0.9),
                      cosine(0.03, steps=epochs * -(-images // batch)), epochs=epochs, batch_size=batch, seed=seed,
                      penalty=penalty(kind, strength), normalization="pixel", verbose=False)
            last = run.history[-1]
            found.append({"kind": kind, "strength": strength, "zero": sparsity(run.model)["all"],
                          "near": sparsity(run.model, NEAR)["all"], "loss": last["train_loss"],
                          "accuracy": last["validation_accuracy"]})
    return found


def tasks(results: Results) -> list[Task]:
    return question.seeded(results, "q07:zeros", images=question.images(results, 4000),
                           epochs=question.epochs(results, 10))


def means(answers: list[Any], key: str) -> dict[tuple[str, float], float]:
    """{(penalty, strength): mean over the seeds}."""
    return {(row["kind"], row["strength"]): float(np.mean([one[i][key] for one in answers]))
            for i, row in enumerate(answers[0])}


def matched(answers: list[Any], kind: str, strength: float) -> float:
    """The strength of L2 whose training loss is nearest."""
    loss = means(answers, "loss")
    return min(STRENGTHS["L2"], key=lambda other: abs(loss["L2", other] - loss[kind, strength]))


def find(answers: list[Any]) -> Finding:
    rows = []
    for i, row in enumerate(answers[0]):
        each = {key: [one[i][key] for one in answers] for key in ("zero", "near", "loss", "accuracy")}
        label = row["kind"] + (f" {row['strength']:g}" if row["strength"] else "")
        beside = (f"; nearest in training loss: L2 {matched(answers, row['kind'], row['strength']):g}"
                  if row["kind"].startswith("L1") else "")
        rows.append(line(label, f"zeros, |w| <= {NEAR:g}, held-out; %", ", ".join(
            question.spread(each[key], ".1f", 100) for key in ("zero", "near", "accuracy")),
            note=f"training loss {question.spread(each['loss'], '.3f')}{beside}"))
    zero, near = means(answers, "zero"), means(answers, "near")
    proximal = [zero["L1, proximal", s] for s in STRENGTHS["L1, proximal"]]
    others = max(zero[kind, s] for kind in ("L2", "L1, subgradient") for s in STRENGTHS[kind])
    closer = all(near[kind, s] > near["L2", matched(answers, kind, s)]
                 for kind in ("L1, subgradient", "L1, proximal") for s in STRENGTHS[kind])
    return Finding(rows, closer and min(proximal) > others,
                   f"L1 by its proximal step makes {100 * min(proximal):.2g} to {100 * max(proximal):.0f} % of the "
                   f"weights exactly 0, its subgradient and L2 at most {100 * others:.2g} %; within {NEAR:g} of 0 are "
                   f"more under L1, either way, than under L2 of like training loss: {'so' if closer else 'not so'} at "
                   "every strength")


def draw(answers: list[Any], path: Path) -> None:
    accuracy, drawn = means(answers, "accuracy"), {"zero": means(answers, "zero"), "near": means(answers, "near")}
    with written(path, 7.2, 2.9) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, key, what in zip(axes, drawn, ("exactly 0", f"within {NEAR:g} of 0"), strict=True):
            for (kind, strengths), colour, marker in zip(STRENGTHS.items(), ("0.3", *COLOURS), "xosD", strict=False):
                axis.plot([100 * accuracy[kind, s] for s in strengths], [100 * drawn[key][kind, s] for s in strengths],
                          color=colour, marker=marker, markersize=5, label="no penalty" if kind == "none" else kind)
            axis.set(xlabel="Held-out accuracy (%)", ylim=(-4, 104))
            axis.set_title(what, fontsize=9)
        axes[0].set(ylabel="Weights (%)")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)


QUESTION = Question(
    "Q07", "L1 gives sparser weights than L2", True,
    "The 3-layer perceptron on 4,000 images for 10 epochs with each penalty at three strengths; L1 by its subgradient "
    "and by its proximal step (a soft threshold after each update). Since strengths of L1 and L2 do not compare, each "
    "L1 stands beside the L2 whose training loss is nearest. About 10 s a seed.",
    tasks, find, draw, "weights at and near 0 over accuracy; a line for a penalty, strengths grow along it, means of "
                       "the seeds")
