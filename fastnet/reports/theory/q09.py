"""Where SqueezeNet, AlexNet and ResNet-18 spend their products and keep their activations: stage by stage."""

from pathlib import Path
from typing import Any

import numpy as np

from fastnet.nn.models import build, entry
from fastnet.nn.summary import LayerSummary, summarize
from fastnet.plots.style import COLOURS, written
from fastnet.reports.experiment import Results
from fastnet.reports.task import Task
from fastnet.reports.theory.question import Finding, Question, line
from fastnet.reports.training import Place

MODELS = ("squeezenet", "alexnet", "resnet18")


def profile(folder: Path, place: Place, *, models: list[str]) -> dict[str, Any]:
    """{model: {"stages": those of equal maps, in order, "depth": {"macs", "activations"}: numbers layer by layer}}."""
    found = {}
    for name in models:
        rows = summarize(build(name), entry(name).input_shape)
        weighted = [row for row in rows if row.macs_forward]
        found[name] = {"stages": stages(rows), "macs": [row.macs_forward for row in weighted],
                       "activations": [row.activation_bytes // 4 for row in weighted]}
    return found


def stages(rows: list[LayerSummary]) -> list[dict[str, Any]]:
    """Neighbouring layers whose outputs are maps of one size, or vectors, added up. Activations are numbers."""
    found: list[dict[str, Any]] = []
    for row in rows:
        maps = "x".join(map(str, row.shape[:2])) if len(row.shape) == 3 else "vectors"
        if not found or found[-1]["maps"] != maps:
            found.append({"maps": maps, "macs": 0, "activations": 0, "parameters": 0})
        found[-1]["macs"] += row.macs_forward
        found[-1]["activations"] += row.activation_bytes // 4
        found[-1]["parameters"] += row.parameters
    return found


def centre(counts: list[int]) -> float:
    """The mean place of what is counted, 0 for all of it in the first layer, 1 for all in the last."""
    places = np.linspace(0, 1, len(counts)) if len(counts) > 1 else np.zeros(1)
    return float(places @ counts / sum(counts))


def tasks(results: Results) -> list[Task]:
    return [Task("fastnet.reports.theory.q09:profile", {"models": MODELS})]


def find(answers: list[Any]) -> Finding:
    rows, centres = [], {}
    for name, found in answers[0].items():
        total = {key: sum(stage[key] for stage in found["stages"]) for key in ("macs", "activations", "parameters")}
        for stage in found["stages"]:
            share = ", ".join(f"{100 * stage[key] / total[key]:.1f}" for key in total)
            rows.append(line(f"{name}, {stage['maps']}", "% of products, activations, parameters", share, note=(
                f"{stage['macs'] / 1e6:.2f} M products, {stage['activations']:,} activations, "
                f"{stage['parameters']:,} parameters")))
        centres[name] = centre(found["macs"])
        rows.append(line(name, "mean depth of the products, 0 to 1", f"{centres[name]:.2f}"))
    own = centres.pop("squeezenet")
    others = ", ".join(f"{value:.2f} in {name}" for name, value in centres.items())
    return Finding(rows, own < 0.5, f"the mean depth of SqueezeNet's products is {own:.2f} of the way through its "
                                    f"layers ({others}): pooling late keeps early maps large, and large maps cost most")


def draw(answers: list[Any], path: Path) -> None:
    with written(path, 7.2, 2.9) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, key, what in zip(axes, ("macs", "activations"), ("products", "activations"), strict=True):
            for (name, found), colour, dash in zip(answers[0].items(), COLOURS, ("-", "--", "-."), strict=False):
                summed = np.concatenate([[0], np.cumsum(found[key])]) / sum(found[key])
                axis.plot(np.linspace(0, 100, len(summed)), 100 * summed, color=colour, linestyle=dash, label=name)
            axis.plot([0, 100], [0, 100], color="0.6", linewidth=0.8, linestyle=":")
            axis.set(xlabel="Layers with weights so far (%)", ylabel=f"{what.capitalize()} so far (%)")
        axes[0].legend()


QUESTION = Question(
    "Q09", "SqueezeNet does most of its computing late", False,
    "Products and activations of an image, layer by layer, in the networks that `fastnet models` lists: SqueezeNet 1.1 "
    "and ResNet-18 as they are for 32x32 images, AlexNet for 227x227. Arithmetic, below a second.",
    tasks, find, draw, "products and activations up to each layer with weights; the dotted line is an even spread")
