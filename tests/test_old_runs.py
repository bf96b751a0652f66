"""Checkpoints of every format there was still load, and their runs go on to where they would have come."""

import numpy as np
import old_runs
import pytest

from fastnet import plots
from fastnet.optim.optimizers import OPTIMIZERS
from fastnet.train import checkpoint
from fastnet.train.record import CHECKPOINT

KEPT = [(int(folder.name.removeprefix("format-")), path) for folder in sorted(old_runs.FOLDER.glob("format-*"))
        for path in sorted(folder.iterdir())]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr(plots, "training_curves", lambda history, rates, path, *, title: path.write_bytes(b"figure"))


@pytest.mark.parametrize(("number", "path"), [pytest.param(*row, id=f"{row[0]}-{row[1].stem}") for row in KEPT])
def test_an_old_run_goes_on(number, path, tmp_path):
    """As an unbroken run of today ends, but for what rounds otherwise on another machine."""
    (tmp_path / CHECKPOINT).write_bytes(path.read_bytes())
    ended = old_runs.fit(path.stem, tmp_path, resume=True)
    unbroken = old_runs.fit(path.stem, None)
    loose = 1e-2 if path.stem == "float16" else 1e-5
    for name, array in unbroken.model.state().items():
        np.testing.assert_allclose(ended.model.state()[name], array, rtol=loose, atol=loose)
    assert [line["step"] for line in ended.history] == [5, 10, 15][: len(unbroken.history)]
    for ours, theirs in zip(ended.history, unbroken.history, strict=True):
        for key in ("lr", "train_loss", "train_cost", "validation_loss"):
            assert ours[key] == pytest.approx(theirs[key], rel=loose), key


def test_what_is_kept():
    """Files of all formats, small, each of them in the middle of an epoch and with the state it is kept for."""
    assert {number for number, _ in KEPT} == set(range(1, checkpoint.FORMAT + 1))
    groups = {}
    for number, path in KEPT:
        arrays, metadata = checkpoint.load(path)
        assert path.stat().st_size < 10_000
        assert metadata["step"] == old_runs.STOP and 0 < metadata["sums"]["seen"] < 20
        if number == 1:
            groups[path.stem] = {name.partition("/")[0] for name in arrays} | set(metadata)
    assert groups.keys() == old_runs.RUNS.keys() and set(OPTIMIZERS) <= groups.keys()
    assert {"optimizer.velocity", "average", "best", "stopping"} <= groups["momentum-stopping-average"]
    assert {"optimizer.m", "optimizer.v", "schedule"} <= groups["adam-plateau"] and "scaling" in groups["float16"]
    assert {"optimizer.squares"} <= groups["adagrad"] and {"optimizer.u", "optimizer.v"} <= groups["adadelta"]
