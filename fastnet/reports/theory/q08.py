"""Depthwise separable convolutions: products by the formula, and the time that is really saved.

    3x3         9 M N D^2               M input and N output channels on a D x D map
    separable   9 M D^2 + M N D^2       3x3 on each channel by itself, then 1x1
    ratio       9 N / (9 + N)           below 9 whatever N is, and whatever M and D are

The report's formula has lost the plus. Source: Howard et al., "MobileNets", 2017, section 3.1.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastnet import timer
from fastnet.arrays import single_threaded_blas
from fastnet.nn.convolution import Conv2d
from fastnet.nn.layer import Context
from fastnet.nn.sequential import Sequential
from fastnet.plots.style import COLOURS, written
from fastnet.reports.experiment import Results
from fastnet.reports.task import Task
from fastnet.reports.theory.question import Finding, Question, line
from fastnet.reports.training import Place

CHANNELS = (64, 128, 256, 512)
RIVALS = ("separable", "3x3", "3x3, direct")


def mac_ratio(outputs: int) -> float:
    """Products of a 3x3 convolution over those of a depthwise separable one with so many output channels."""
    return 9 * outputs / (9 + outputs)


def layers(channels: int) -> dict[str, Sequential]:
    """What is compared, without batch norm and activations: the products alone."""
    return {"separable": Sequential([Conv2d(channels, channels, 3, pad=1, groups=channels, bias=False),
                                     Conv2d(channels, channels, 1, bias=False)]),
            "3x3": Sequential([Conv2d(channels, channels, 3, pad=1, bias=False)]),
            "3x3, direct": Sequential([Conv2d(channels, channels, 3, pad=1, bias=False, conv_algorithm="direct")])}


def measure(folder: Path, place: Place, *, channels: list[int], side: int, batch: int,
            seconds: float) -> list[dict[str, Any]]:
    """For each width (at `side` 64 / width pixels a side, as in ResNet) products of an image and time of a batch.

    The time is that of a pass forward and back to the input, median and quartiles, the rivals taking turns.
    """
    found = []
    for width in channels:
        size = max(1, side * 64 // width)
        rng = np.random.default_rng(width)
        x, dy = rng.standard_normal((2, batch, size, size, width)).astype(np.float32)
        models = layers(width)

        def both_ways(model: Sequential, x: Any = x, dy: Any = dy) -> Callable[[], object]:
            model.store  # noqa: B018  (draws the weights)
            return lambda: model(x, Context(training=True))[1](dy)

        with single_threaded_blas():
            times = timer.alternate({name: both_ways(model) for name, model in models.items()}, seconds)
        found.append({"channels": width, "size": size,
                      "macs": {name: model.macs((size, size, width)) for name, model in models.items()},
                      "time_s": {name: [t.median, t.low, t.high] for name, t in times.items()}})
    return found


def tasks(results: Results) -> list[Task]:
    return [Task("fastnet.reports.theory.q08:measure", {
        "channels": CHANNELS, "side": max(4, 32 // results.scale.images), "batch": 32 // results.scale.epochs or 1,
        "seconds": 1.0 / results.scale.images})]


def speedup(row: dict[str, Any], rival: str) -> tuple[float, float, float]:
    """The rival's time over the separable one's: median, and as far as the quartiles of both allow."""
    own, other = row["time_s"]["separable"], row["time_s"][rival]
    return other[0] / own[0], other[1] / own[2], other[2] / own[1]


def find(answers: list[Any]) -> Finding:
    rows, macs = [], []
    times: dict[str, list[float]] = {rival: [] for rival in RIVALS[1:]}
    for row in answers[0]:
        label = f"{row['channels']} channels, {row['size']}x{row['size']} maps"
        macs.append(row["macs"]["3x3"] / row["macs"]["separable"])
        rows.append(line(label, "products, 3x3 / separable", f"{macs[-1]:.2f}", f"{mac_ratio(row['channels']):.2f}"))
        for rival in RIVALS[1:]:
            median, low, high = speedup(row, rival)
            rows.append(line(label, f"time, {rival} / separable", f"{median:.2f}", "", f"{low:.2f} to {high:.2f}"))
            times[rival].append(median)
    holds = all(7.5 < ratio < 9 for ratio in macs)
    fast, direct = (f"{min(ratios):.1f} to {max(ratios):.1f}" for ratios in times.values())
    return Finding(rows, holds, f"the products are {min(macs):.2f} to {max(macs):.2f} times fewer, never quite 9; the "
                                f"time, forward and back, is {fast} times less than that of the 3x3 convolutions that "
                                f"fastnet runs, {direct} times less than that of direct sums")


def draw(answers: list[Any], path: Path) -> None:
    rows = answers[0]
    channels = np.array([row["channels"] for row in rows])
    with written(path, 4.8, 3.2) as figure:
        axis = figure.subplots()
        dense = np.geomspace(channels[0], channels[-1], 50)
        axis.plot(dense, 9 * dense / (9 + dense), color="0.2", label="products: $9N/(9+N)$")
        for rival, colour, marker in zip(RIVALS[1:], COLOURS, "os", strict=False):
            ratios = np.array([speedup(row, rival) for row in rows])
            axis.errorbar(channels, ratios[:, 0], [ratios[:, 0] - ratios[:, 1], ratios[:, 2] - ratios[:, 0]],
                          color=colour, marker=marker, markersize=5, capsize=3,
                          label="time, direct 3x3" if "direct" in rival else "time, 3x3 (Winograd where faster)")
        axis.axhline(1, color="0.5", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xlabel="Channels $N$", ylabel="3x3 / depthwise separable", ylim=(0, None))
        axis.set_xticks(channels, [str(c) for c in channels])
        axis.minorticks_off()
        axis.legend(fontsize=8)


QUESTION = Question(
    "Q08", "a depthwise separable 3x3 convolution costs about 9 times less", True,
    "Products counted by the layers themselves beside the formula 9N/(9+N), and the time of a pass forward and back "
    "beside ordinary 3x3 convolutions: as fastnet runs them (Winograd's algorithm, which saves products too, where "
    "that is faster) and as direct sums. Batches of 32, maps as large as ResNet has them at that width, the rivals "
    "taking turns; the time depends on the machine and on what else it does. About 15 s.",
    tasks, find, draw, "what a depthwise separable convolution saves; bars from quartile to quartile", ("A60",))
