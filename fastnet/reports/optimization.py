"""What batch norm does to the optimisation of a network: E26, E27 and E28 of report R5.

A network is trained at several constant rates with and without batch norm. Of every update the loss of its batch is
known; of every tenth also how the gradient of the batch changes by it, in the last linear layer (predictiveness) and in
all parameters (smoothness), as `fastnet.lab.recorder` defines it. Over the rates these make a band.

A claim that batch norm makes a figure smaller agrees where it does so for every seed, differs where it makes it larger
for every seed, and cannot be told otherwise.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastnet.arrays import Array
from fastnet.lab.landscape import Band, band
from fastnet.lab.plain import plain
from fastnet.lab.recorder import ALONG, COLUMNS, Recorder, last_linear
from fastnet.nn.models import build, fitting
from fastnet.plots.landscape import bands
from fastnet.reports import verdicts
from fastnet.reports.experiment import Drawn, Experiment, Results, Row, claim_row, not_run
from fastnet.reports.training import Place, Training
from fastnet.train import checkpoint
from fastnet.train.nonfinite import NonFiniteError
from fastnet.train.step import TrainStep

RECORDING = "recording.safetensors"
EVERY = 10
Arrays = Mapping[str, np.ndarray]
Found = dict[int, dict[str, dict[float, Arrays]]]  # by seed, network (without batch norm first), rate


class Measure(NamedTuple):
    """A figure of the recordings.

    key    array of `recorded`
    name   in the table
    axis   of the figure's panel; empty for none
    kind   what the table has the mean over the steps of: 'width' of the band over the rates, its 'largest' value, or
           the 'mean' over them
    part   of the steps, the last ones, that count
    log    whether the axis is logarithmic
    """

    key: str
    name: str
    axis: str
    kind: str
    part: float = 1.0
    log: bool = False

    def band(self, runs: Mapping[float, Arrays]) -> Band:
        """Over the rates; of several step sizes along the gradient the largest value counts."""
        steps = None if self.key == "losses" else max((arrays["steps"] for arrays in runs.values()), key=len)
        return band({rate: self.curve(arrays) for rate, arrays in runs.items()}, steps)

    def curve(self, arrays: Arrays) -> np.ndarray:
        """One run's."""
        values = arrays[self.key]
        return values.max(1) if values.ndim == 2 else values

    def value(self, runs: Mapping[float, Arrays]) -> float:
        """The figure in the table; NaN where there is nothing to take it of, as when no two runs are left."""
        found = self.band(runs)
        at = slice(round(len(found.steps) * (1 - self.part)), None)
        if self.kind == "width":
            values = np.where(found.curves > 1, found.high - found.low, np.nan)[at]
        elif self.kind == "largest":
            values = found.high[at]
        else:
            values = np.concatenate([self.curve(arrays)[at] for arrays in runs.values()])
        finite = values[np.isfinite(values)]
        return float(finite.mean()) if finite.size else np.nan


def recorded(folder: Path, place: Place, *, training: dict[str, Any], rates: list[float], data: str) -> dict[str, Any]:
    """Train, and write what each update did; a loss that stops being finite ends it and is a result.

    Arrays: `losses` (T,) of every update, `steps` (K,) those that were looked at; of the last linear layer's weights
    `gradient_norm`, predictiveness (K,) as `same_batch`, `relative` (the part of the gradient that this is),
    `consecutive` and, along the gradient by each rate, `along_predictiveness` (K, E); of all parameters `smoothness`
    and `published_smoothness` (K,).
    """
    run = Training(**training)
    images = run.dataset(place)
    options = {**run.options, **fitting(run.model, images.train.images.shape[1:], len(images.classes))}
    last = Recorder(parameters=last_linear(build(run.model, **{**options, "init": "zeros"})), step_sizes=rates,
                    every=EVERY)
    whole = Recorder(every=EVERY)

    def both(step: TrainStep, *batch: Any) -> Array:
        return last(_Watched(step, whole), *batch)  # type: ignore[arg-type]

    diverged_at = None
    try:
        run.fit(images, place, observer=both)
    except NonFiniteError as error:
        diverged_at = error.step
    ours, all_of_it = last.recording(), whole.recording()
    arrays = {name: getattr(ours, name) for name in ("losses", "steps", *COLUMNS, *ALONG)}
    arrays |= {name: getattr(all_of_it, name) for name in ("smoothness", "published_smoothness", "update_norm")}
    arrays["relative"] = arrays["same_batch"] / arrays["gradient_norm"]
    checkpoint.save(folder / RECORDING, {name: np.ascontiguousarray(values) for name, values in arrays.items()}, {})
    return {"steps": len(ours.losses), "diverged_at": diverged_at}


class _Watched:
    """A step that a recorder takes: another recorder can look at the same one."""

    def __init__(self, step: TrainStep, recorder: Recorder) -> None:
        self._step, self._recorder = step, recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def __call__(self, *batch: Any) -> Array:
        return self._recorder(self._step, *batch)


def read(folder: Path) -> Arrays:
    """What `recorded` wrote."""
    return checkpoint.load(folder / RECORDING)[0]


def rows(found: Found | None, claim: str, measures: Sequence[Measure], results: Results, failure: str) -> list[Row]:
    """A line for each measure: without batch norm, with it, and whether it is smaller with it."""
    if found is None:
        return [not_run(measure.name, "no BN; BN", claim, failure) for measure in measures]
    lost = [f"{net} at rate {rate:g} diverged (seed {seed}, step {len(arrays['losses']) - 1})"
            for seed, nets in found.items() for net, runs in nets.items() for rate, arrays in runs.items()
            if not np.isfinite(arrays["losses"]).all()]
    lines = []
    for measure in measures:
        pairs = np.array([[measure.value(runs) for runs in nets.values()] for nets in found.values()])
        smaller, larger = (bool(test.all()) for test in (pairs[:, 1] < pairs[:, 0], pairs[:, 1] > pairs[:, 0]))
        verdict = verdicts.AGREES if smaller else verdicts.DIFFERS if larger else verdicts.INDISTINGUISHABLE
        ratios = ", ".join(f"{after / before:.2g}" if before > 0 else "-" for before, after in pairs)
        lines.append(claim_row(measure.name, "no BN; BN", claim, "; ".join(f"{v:.3g}" for v in pairs.mean(0)), verdict,
                               results, f"BN / no BN by seed: {ratios}", *lost))
    return lines


def draw(experiment: Experiment, found: Found | None, measures: Sequence[Measure], results: Results,
         folder: Path) -> list[Drawn]:
    """The bands of the first seed, a panel for each axis (F08)."""
    if found is None:
        return []
    nets = found[results.seeds[0]]
    panels = {measure.axis: {net: plain(measure.band(runs)) for net, runs in nets.items()} for measure in measures
              if measure.axis and any(np.isfinite(measure.band(runs).high).any() for runs in nets.values())}
    file = f"{experiment.id}-band.png"
    notice = results.scale.notice()
    rates = ", ".join(f"{rate:g}" for rate in next(iter(nets.values())))
    title = f"VGG-A at rates {rates}: least to largest at each step"
    bands(panels, folder / file, title="\n".join([title, *textwrap.wrap(notice, 64 if len(panels) == 1 else 96)]),
          log=[measure.axis for measure in measures if measure.log])
    return [Drawn(file, f"{experiment.id}: one seed{f' ({notice})' if notice else ''}")]
