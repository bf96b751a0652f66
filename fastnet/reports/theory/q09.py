"""Where SqueezeNet, AlexNet and ResNet-18 spend their products and keep their activations: stage by stage."""

from pathlib import Path
from typing import Any

import numpy as np

from fastnet.nn.blocks import Fire
from fastnet.nn.convolution import Conv2d
from fastnet.nn.layer import Layer
from fastnet.nn.layers import Dropout, ReLU
from fastnet.nn.models import build, entry
from fastnet.nn.pooling import GlobalAvgPool, MaxPool2d
from fastnet.nn.sequential import Sequential
from fastnet.nn.summary import LayerSummary, summarize
from fastnet.plots.style import COLOURS, written
from fastnet.reports.experiment import Results
from fastnet.reports.task import Task
from fastnet.reports.theory.question import Finding, Question, line
from fastnet.reports.training import Place

PAPER = "squeezenet 1.0"
MODELS = (PAPER, "squeezenet", "alexnet", "resnet18")


def squeezenet_1_0() -> Sequential:
    """The paper's network, for images of 227x227 and 1,000 classes. Source: Iandola et al., 2016, table 1."""
    def fires(channels: int, *widths: tuple[int, int]) -> list[Layer]:
        inputs = [channels, *(2 * expand for _, expand in widths)]
        return [Fire(here, squeeze, expand, expand) for here, (squeeze, expand) in zip(inputs, widths, strict=False)]

    pools = [MaxPool2d(3, 2) for _ in range(3)]
    return Sequential([Conv2d(3, 96, 7, 2), ReLU(), pools[0], *fires(96, (16, 64), (16, 64), (32, 128)), pools[1],
                       *fires(256, (32, 128), (48, 192), (48, 192), (64, 256)), pools[2], *fires(512, (64, 256)),
                       Dropout(0.5), Conv2d(512, 1000, 1), ReLU(), GlobalAvgPool()])


def profile(folder: Path, place: Place, *, models: list[str]) -> dict[str, Any]:
    """{model: {"stages": those of equal maps, in order, "macs" and "activations" of each layer with weights}}."""
    found = {}
    for name in models:
        rows = (summarize(squeezenet_1_0(), (227, 227, 3)) if name == PAPER else
                summarize(build(name), entry(name).input_shape))
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


def share_behind(stages: list[dict[str, Any]]) -> float:
    """Of all products those on the smallest maps that have any, and behind them."""
    busy = [stage["macs"] for stage in stages if stage["macs"] and stage["maps"] != "vectors"]
    vectors = sum(stage["macs"] for stage in stages if stage["maps"] == "vectors")
    return (busy[-1] + vectors) / (sum(busy) + vectors)


def tasks(results: Results) -> list[Task]:
    return [Task("fastnet.reports.theory.q09:profile", {"models": MODELS})]


def find(answers: list[Any]) -> Finding:
    rows, late = [], {}
    for name, found in answers[0].items():
        total = {key: sum(stage[key] for stage in found["stages"]) for key in ("macs", "activations", "parameters")}
        for stage in found["stages"]:
            share = ", ".join(f"{100 * stage[key] / total[key]:.1f}" for key in total)
            rows.append(line(f"{name}, {stage['maps']}", "% of products, activations, parameters", share, note=(
                f"{stage['macs'] / 1e6:.2f} M products, {stage['activations']:,} activations, "
                f"{stage['parameters']:,} parameters")))
        rows.append(line(name, "mean depth of the products, 0 to 1", f"{centre(found['macs']):.2f}"))
        late[name] = share_behind(found["stages"])
    others = ", ".join(f"{100 * value:.0f} % in {name}" for name, value in late.items() if name != PAPER)
    return Finding(rows, late[PAPER] < 0.5,
                   f"SqueezeNet does {100 * late[PAPER]:.0f} % of its products on its smallest maps and behind them "
                   f"({others}): it pools late, so that most layers work on large maps, and those cost most")


def draw(answers: list[Any], path: Path) -> None:
    with written(path, 7.2, 2.9) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, key, what in zip(axes, ("macs", "activations"), ("products", "activations"), strict=True):
            for (name, found), colour, dash in zip(answers[0].items(), COLOURS, ("-", ":", "--", "-."), strict=False):
                summed = np.concatenate([[0], np.cumsum(found[key])]) / sum(found[key])
                axis.plot(np.linspace(0, 100, len(summed)), 100 * summed, color=colour, linestyle=dash, label=name)
            axis.plot([0, 100], [0, 100], color="0.6", linewidth=0.8, linestyle=":")
            axis.set(xlabel="Layers with weights so far (%)", ylabel=f"{what.capitalize()} so far (%)")
        axes[0].legend()


QUESTION = Question(
    "Q09", "SqueezeNet does most of its computing late", False,
    "Products and activations of an image, layer by layer: SqueezeNet 1.0 as its paper has it, and of the "
    "networks that `fastnet models` lists SqueezeNet 1.1 and ResNet-18 for 32x32 images, AlexNet for "
    "227x227. Late is what is done on the smallest maps and behind them. Arithmetic, below a second.",
    tasks, find, draw, "products and activations up to each layer with weights; the dotted line is an even spread")
