"""Runs whose steps are CUDA graphs, on the emulator: they leave what runs without graphs leave, and rarely read."""

import re

import numpy as np
import pytest
from placed import dropout_net, fit, host
from test_graphs import Own
from tiny import BATCH, EPOCHS, bits, dataset, interrupting, saved

import fastnet as fn
from fastnet import cli, graphs, plots
from fastnet.optim import schedules
from fastnet.optim.plateau import reduce_on_plateau
from fastnet.optim.schedules import Schedule
from fastnet.train import checkpoint, loop, record
from fastnet.train.graphed import GraphedStep
from fastnet.train.nonfinite import NonFiniteError

pytestmark = pytest.mark.usefixtures("emulated_device")
PER_EPOCH = 3


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """They take longer than these runs."""
    monkeypatch.setattr(plots, "training_curves", lambda history, rates, path, *, title: path.write_bytes(b"figure"))


@pytest.fixture
def seen(monkeypatch):
    """What graphs do: "read" for every reading, and the number of launches of every replay that was recorded."""
    found, read, record = [], GraphedStep.read, graphs.RECORDERS["emulated"].record
    monkeypatch.setattr(GraphedStep, "read", lambda self: (found.append("read"), read(self))[1])

    def recorded(self, work):
        result, replay = record(self, work)
        found.append(replay.launches)
        return result, replay

    monkeypatch.setattr(graphs.RECORDERS["emulated"], "record", recorded)
    return found


def started(out, dtype="float32", **options):
    return fit(out, "emulated", make=lambda device: dropout_net(device=device, dtype=dtype), **options)


KINDS = {
    "sgd": {},
    "plateau": {"schedule": reduce_on_plateau(0.05, factor=0.1, patience=1)},
    "float16": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16", "penalty": [fn.L1(1e-3, proximal=True)], "rates": {"linear1.*": 0.5}},
}


@pytest.fixture
def huge(monkeypatch):
    """A first scale of the loss with which gradients overflow a few times."""
    monkeypatch.setattr("fastnet.train.scaling.START", 2.0**23)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_leaves_what_one_without_graphs_leaves(kind, tmp_path, seen, huge, capsys):
    """Augmentation, dropout, averages, early stopping, a smaller last batch; in the middle of an epoch it goes on."""
    if kind == "bfloat16":
        pytest.importorskip("ml_dtypes")
    options = {"epochs": 4, **KINDS[kind]}
    plain = started(tmp_path / "plain", graph=False, **options)
    assert not seen
    started(tmp_path / "graphs", **options)
    assert saved(tmp_path / "graphs") == saved(tmp_path / "plain")
    assert seen.count("read") == 1 + options["epochs"]  # the first loss, and then once an epoch
    assert len(seen) == 1 + options["epochs"] + 2  # a recording for each of the two sizes of batches
    assert min(n for n in seen if n != "read") > 10
    if kind == "float16":
        assert plain.result["skipped_steps"] > 2
    if kind in ("sgd", "float16"):
        with pytest.raises(KeyboardInterrupt):
            started(tmp_path / "parts", **options, schedule=interrupting(4))
        assert checkpoint.load(tmp_path / "parts" / record.CHECKPOINT)[1]["step"] == 5
        started(tmp_path / "parts", **options, resume=True)
        assert saved(tmp_path / "parts") == saved(tmp_path / "graphs")
    assert capsys.readouterr().err == ""


def diverging(step):
    """The usual rates, but in one step a huge one, after which the loss is not finite."""
    usual = schedules.triangular(1e-3, 0.05, half_cycle_steps=4)
    return Schedule(usual.name, usual.settings, lambda t: 1e30 if t == step else usual(t))


def test_a_loss_that_is_not_finite_is_found_at_the_next_reading(tmp_path, seen):
    """With the same words and batch as without graphs, and the model as it was before the step."""
    found = []
    for name, graph in (("plain", False), ("graphs", True)):
        net = dropout_net(device="emulated")
        with pytest.raises(NonFiniteError) as caught:
            fit(tmp_path / name, "emulated", make=lambda device, net=net: net, schedule=diverging(3), graph=graph)
        text = str(caught.value)
        assert re.search(r"the loss is not finite at step 4: .*\(batch saved in .*nonfinite", text)
        arrays, meta = checkpoint.load(tmp_path / name / record.NONFINITE)
        found.append((text.replace(name, ""), bits(arrays), meta, bits(host(net.state())),
                      checkpoint.load(tmp_path / name / record.CHECKPOINT)[1]["step"]))
    assert found[0] == found[1] and found[0][4] == PER_EPOCH
    assert seen.count("read") == 3  # after the first step, the first epoch, the second


def test_a_bar_asks_for_a_loss_now_and_then(seen, monkeypatch):
    monkeypatch.setattr(loop.Progress, "due", lambda self, seconds: seconds == loop.POLL_SECONDS == 2.0)
    run = started(None)
    assert seen.count("read") == EPOCHS * PER_EPOCH
    monkeypatch.setattr(loop.Progress, "due", lambda *_: False)
    assert bits(host(started(None).model.state())) == bits(host(run.model.state()))


def test_a_checkpoint_inside_an_epoch_is_read_before(tmp_path, seen, monkeypatch):
    found, save = [], loop.RunState.save
    monkeypatch.setattr(loop.RunState, "save", lambda self, path, config: (
        save(self, path, config), found.append(checkpoint.load(path)[1]["sums"])))
    for graph in (False, True):
        started(tmp_path / str(graph), checkpoint_seconds=0, graph=graph)
    for sums in found:
        del sums["seconds"]
    half = len(found) // 2
    assert half == EPOCHS * PER_EPOCH and found[:half] == found[half:]
    assert [sums["seen"] for sums in found[:3]] == [BATCH, 2 * BATCH, 0]


def test_an_optimizer_of_ones_own_trains_without_graphs(seen, capsys):
    run = fn.fit(dropout_net(device="emulated"), dataset(), Own(0.01), epochs=1, batch_size=BATCH, verbose=False)
    assert not seen and np.isfinite(run.result["train_loss"])
    assert capsys.readouterr().err == ("training goes without CUDA graphs: Own is not one of the optimizers whose "
                                       "updates can be recorded\n")


@pytest.mark.parametrize("options", [[], ["--no-graph"]], ids=["by default", "off"])
def test_the_switch(options, run, monkeypatch):
    def told(*_, graph, **__):
        raise ValueError(f"graph is {graph}")

    monkeypatch.setattr(loop, "fit", told)
    monkeypatch.setattr(cli, "_prepared", lambda *_: (dataset(), dropout_net(), {"batch_size": BATCH}))
    status, _, err = run("train", "mlp2", *options)
    assert (status, err) == (2, f"fastnet train: graph is {not options}\n")
