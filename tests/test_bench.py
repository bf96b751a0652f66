"""The benchmarks: the timer is fair, the twin in PyTorch computes the same, the command line prints and records."""

import json
import time

import numpy as np
import pytest

from fastnet import backend, cli
from fastnet.bench import overfit, steps
from fastnet.bench.profile import profile, training_step
from fastnet.bench.timer import alternate

SMALL = {"filter_multiplier": 1 / 16}


def test_rivals_take_turns():
    order = []
    found = alternate({"a": lambda: order.append("a") or time.sleep(0.012),
                       "b": lambda: order.append("b") or time.sleep(0.024)}, seconds=0.05, least=4)
    counted = order[4:]  # each was called twice before: to warm up, and to see how long it takes
    assert counted == ["a", "b"] * (len(counted) // 2)
    assert found["a"].rounds == found["b"].rounds >= 4
    assert found["a"].low <= found["a"].median <= found["a"].high
    assert 1.3 < found["b"].median / found["a"].median < 3


def test_short_calls_are_repeated_within_a_turn():
    calls = []
    found = alternate({"a": lambda: calls.append(1)}, seconds=0.001, least=3, most=3)
    assert found["a"].rounds == 3
    assert len(calls) > 1000


@pytest.mark.parametrize(("name", "options"), [
    ("mlp3-bn", {}), ("lenet5", {}), ("vgg-a-bn", SMALL), ("resnet18", SMALL), ("resnet20", SMALL),
    ("mobilenet", {**SMALL, "activation": "swish"}), ("squeezenet", {**SMALL, "dropout": 0.0})])
def test_the_twin_computes_the_same(name, options):
    pytest.importorskip("torch")
    assert steps.disagreement(name, **options) < steps.AGREEMENT


def test_without_agreement_nothing_is_timed(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(steps, "disagreement", lambda name, **options: 1e-3)
    with pytest.raises(AssertionError, match=r"gradients differ from PyTorch's by 1\.0e-03"):
        steps.measure("mlp3", 10)


def test_profile_adds_up():
    rows = profile(training_step("lenet5", 8), repeats=3)
    seconds = {name: spent for name, spent, _ in rows}
    assert any(name.startswith("conv2d 32x32x3 5x5 6") and name.endswith("dw") for name in seconds)
    assert not any(name.startswith("conv2d 32x32x3") and name.endswith("dx") for name in seconds)  # nobody needs it
    whole = seconds.pop("the step")
    assert sum(seconds.values()) == pytest.approx(whole)
    assert backend.pair.__module__ == "fastnet.backend"


def test_command_prints_and_records(tmp_path, capsys):
    record = tmp_path / "bench.json"
    assert cli.main(["bench", "mlp3", "lenet5", "--batch-size", "8", "16", "--no-torch", "--seconds", "0.01",
                     "--json", str(record)]) == 0
    out = capsys.readouterr().out
    assert "without PyTorch" in out and out.count("lenet5") == 4  # as it is measured, and in the table
    results = json.loads(record.read_text())["results"]
    assert [(r["workload"], r["batch_size"]) for r in results] == [("mlp3", 8), ("mlp3", 16), ("lenet5", 8),
                                                                   ("lenet5", 16)]
    assert results[2]["operations"] == 2 * 8 * (651_720 + 651_720 + 651_720 - 28 * 28 * 6 * 75)  # no dx of the first
    assert cli.main(["bench", "mlp3", "--batch-size", "8", "--profile"]) == 0
    assert "linear backward" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (["nonsense"], "model 'nonsense' is not known"), (["--threads", "0"], "at least 1"),
    (["--threads", "1000"], "--threads: there are"), (["--batch-size", "0"], "at least 1"),
    (["--seconds", "0"], "--seconds must be positive")])
def test_bad_input_is_one_line(arguments, message, capsys):
    assert cli.main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_model_learns_by_heart():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((200, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, 200)
    found = overfit.overfit("mlp2", x, labels)
    assert found["accuracy"] == 1
    assert found["epochs"] < overfit.MOST_EPOCHS
