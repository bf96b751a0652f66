"""Lines about networks rather than accuracies: their parameters, and how long an epoch takes."""

import numpy as np

from fastnet.nn.models import build
from fastnet.reports import verdicts
from fastnet.reports.experiment import Results, Row, not_run
from fastnet.reports.training import Training


def parameter_row(label: str, model: str, millions: float) -> Row:
    """The parameters of the network as published, whatever the scale of the runs, in millions."""
    count = build(model, init="zeros").num_parameters()
    verdict = verdicts.AGREES if f"{count / 1e6:.2f}" == f"{millions:.2f}" else verdicts.DIFFERS
    return Row(f"{label}: parameters", "millions", f"{millions:.2f}", f"{count / 1e6:.2f}", "-", "-", verdict,
               f"{count:,}")


def seconds_row(label: str, training: Training, seconds: float, results: Results) -> Row:
    """The median epoch's training, evaluation not counted, without the first epoch of each run."""
    label, measured, said = f"{label}: training of an epoch", "seconds", f"{seconds:g}"
    runs = results.runs(training)
    if runs is None:
        return not_run(label, measured, said, results.failure(training))
    epochs = [line["seconds"] for run in runs for line in run.history[1:]]
    ours = f"{np.median(epochs):.2f}" if epochs else "-"
    return Row(label, measured, said, ours, "-", "-", verdicts.NO_CLAIM,
               f"published: on a V100; ours: {results.place.device}, batches of {training.batch_size}")
