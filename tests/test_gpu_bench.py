"""The measurements on a card, without one: the watchdog on stages that misbehave, ours on the emulator."""

import importlib
import json
import os
import sys
import time
from pathlib import Path

import pytest
from emulator import arrays, engine

from fastnet import devices
from fastnet.bench.gpu import __main__ as main
from fastnet.bench.gpu import card, ceilings, environment, ops, peers, report, steps, training, watchdog
from fastnet.bench.gpu.watchdog import Stage
from fastnet.bench.workload import Workload
from fastnet.timer import Timing, alternate


@pytest.fixture
def stages(monkeypatch, tmp_path):
    """Run stages that are functions of fake_stages.py: (record, what went to the log)."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

    def run(*listed, seconds=60.0, **settings):
        log = tmp_path / "log"
        record = watchdog.run([Stage(s, f"fake_stages:{s}") if isinstance(s, str) else s for s in listed],
                              tmp_path / "record.json", {"log": str(log), **settings}, seconds)
        assert json.loads((tmp_path / "record.json").read_text()) == record
        return record["stages"], log.read_text() if log.exists() else ""
    return run


def test_bad_stages_are_recorded_and_the_next_one_starts(stages):
    found, log = stages(Stage("hangs", "fake_stages:hangs", 60, patience=1.5), "dies", "prints_garbage", "tells",
                        question=42)
    assert [stage["status"] for stage in found.values()] == ["failed"] * 3 + ["done"]
    assert found["tells"]["rows"] == [{"answer": 42}] and not found["tells"]["failures"]
    (hung,) = found["hangs"]["failures"]
    assert hung["part"] == "b" and hung["why"] == "hung for 1.5 s"
    assert any("in hangs" in line for line in hung["output"])  # where it was
    assert [row["part"] for row in found["hangs"]["rows"]] == ["a", "b", "c"]
    died, raised = found["dies"]["failures"]
    assert (died["part"], died["why"]) == ("b", "died of signal 6")
    assert (raised["part"], raised["why"]) == ("c", "failed with exit status 1")
    assert raised["output"][-1] == "RuntimeError: the card fell off" and raised["output"][-1] in log
    assert [row["part"] for row in found["dies"]["rows"]] == ["a", "d"]
    (garbage,) = found["prints_garbage"]["failures"]
    assert garbage["part"] is None and garbage["why"] == "failed with exit status 3" and len(garbage["output"]) == 15


def test_time_is_limited(stages):
    found, _ = stages(Stage("forks", "fake_stages:forks", 2.5), Stage("tells", "fake_stages:tells"), seconds=2.0,
                      question=1)
    assert found["forks"]["status"] == "out of time" and found["tells"]["status"] == "not reached"
    assert found["forks"]["failures"][0]["why"].startswith("out of time after ")
    ((row,), gone) = found["forks"]["rows"], time.monotonic() + 5
    while time.monotonic() < gone:  # what it started has ended too
        try:
            os.kill(row["pid"], 0)
            if (Path("/proc") / str(row["pid"]) / "stat").read_text().split()[2] == "Z":
                break
        except (ProcessLookupError, FileNotFoundError):
            break
    else:
        pytest.fail("a child lives on")


def test_workers_share_the_parts(stages):
    found, _ = stages(Stage("shares", "fake_stages:shares", workers=3))
    assert sorted(row["part"] for row in found["shares"]["rows"]) == list("abcdef")
    again, _ = stages("tells", question=2)
    assert set(again) == {"shares", "tells"}  # an earlier record is added to


# What the stages measure, on the emulator and on PyTorch's CPU.


class Kept:
    """A report that keeps its rows."""

    share = (0, 1)

    def __init__(self):
        self.begun, self.rows = [], []

    def begin(self, part):
        self.begun.append(part)
        return True

    def row(self, **values):
        self.rows.append(json.loads(json.dumps(values)))


RESNET = Workload("resnet18", 2, shape=(8, 8, 3), options={"filter_multiplier": 1 / 16})
MLP = Workload("mlp3", 4, shape=(8, 8, 3), options={"hidden": (8,)})


@pytest.fixture
def measured(monkeypatch):
    """Run a stage's function with tiny workloads: its rows."""
    for package in ("ml_dtypes", "numba_cuda"):  # of the extra gpu-test
        pytest.importorskip(package)
    engine.install()
    monkeypatch.setitem(devices.LIBRARIES, "emulated", lambda: arrays.NAMESPACE)
    monkeypatch.setattr(card, "SECONDS", 1e-9)
    for name, value in {"SIZE": 16, "LARGE": 256, "SMALL": 256, "LAUNCHES": 3}.items():
        monkeypatch.setattr(ceilings, name, value)
    monkeypatch.setattr(card, "alternate", lambda calls, seconds: alternate(calls, 1e-4, 2))
    monkeypatch.setattr(steps, "IMAGES", 10)
    for module, workload in ((ops, RESNET), (steps, MLP), (peers, MLP)):
        monkeypatch.setattr(module, "WORKLOADS", (workload,))

    def run(stage, device="emulated"):
        kept = Kept()
        stage(kept, {"device": device})
        assert len(set(kept.begun)) == len(kept.begun)
        return kept.rows
    return run


def test_tables_of_what_is_measured_without_a_card(measured):
    record = {"stages": {name: {"status": "done", "seconds": 1.0, "failures": [], "rows": measured(stage)}
                         for name, stage in (("environment", environment.run), ("ceilings", ceilings.run),
                                             ("ops", ops.run), ("steps", steps.run))}}
    rows = {name: stage["rows"] for name, stage in record["stages"].items()}
    assert {row["ceiling"] for row in rows["ceilings"]} >= {"copy", "product bfloat16", "launch"}
    assert all(row["same_bits"] and row["finite"] for row in rows["steps"]) and len(rows["steps"]) == 2
    parts = [row for row in rows["ops"] if row["workload"] == RESNET.label and row["dtype"] == "bfloat16"]
    calls = parts.pop()["calls"]
    assert set(calls) == {row["op"] for row in parts}
    assert sum(calls[row["op"]] * row["operations"] for row in parts) == RESNET.operations
    assert {row["run_by"] for row in parts if row["op"].startswith("conv2d")} == {"cuda"}
    assert all(row[clock] > 0 for row in parts for clock in ("cold", "warm", "host"))
    text = report.tables(record)
    assert "| mlp3, hidden (8,), 8x8x3 | 4 | float32 |" in text and "same bits" in text and "%" in text
    assert "## Ops" in report.short(record) and "## Machine" in text and "## Machine" not in report.short(record)


def test_ratios_are_of_pytorchs_best():
    def stage(*rows):
        return {"status": "done", "seconds": 1.0, "failures": [], "rows": list(rows)}

    def row(dtype, rival, seconds, **more):
        return {"workload": "resnet18", "batch_size": 128, "dtype": dtype, "rival": rival,
                "seconds": Timing(seconds, seconds, seconds, 3)._asdict(), **more}

    ours = {"same_bits": False, "operations": 10**9}
    from_bytes = {"median": 0.0025}
    record = {"stages": {
        "ceilings": stage({"ceiling": "product bfloat16", "rate": 1e12}),
        "steps": stage(row("bfloat16", "fastnet", 0.002, **ours, from_bytes=from_bytes),
                       row("float32", "fastnet", 0.01, **ours)),
        "peers": stage(row("bfloat16", "eager", 0.004), row("bfloat16", "graph", 0.003), row("tf32", "eager", 0.004),
                       row("float32", "graph", 0.02), {"workload": "resnet18", "disagreement": 1e-15})}}
    lines = report.tables(record).splitlines()
    assert "| resnet18 | 128 | bfloat16 | 2.00 | 2.50 | DIFFER | 50.0% | 4.00 | 3.00 | - | 1.50 | 1.30 |" in lines
    assert "| resnet18 | 128 | float32 | 10.00 | - | DIFFER | - | 4.00 | - | 20.00 | 0.40 | - |" in lines
    failed = {"status": "failed", "seconds": 2.0, "rows": [
        {"test": "tests/a.py::test_x", "outcome": "failed", "why": "E  wrong", "seconds": 0.1}],
        "failures": [{"part": "b", "why": "hung for 45 s", "output": ["", "in relu", ""]}]}
    text = report.tables({"stages": {"correctness": failed}})
    assert "b: hung for 45 s, in relu" in text and "0 passed, 1 failed" in text and "test_x: E  wrong" in text


def test_pytorchs_steps(measured, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(peers, "VARIANTS", ("eager",))
    monkeypatch.setattr(peers, "ONLY", {})
    agreement, *rows = measured(peers.run, "cpu")
    assert agreement["disagreement"] < 1e-12
    assert [row["dtype"] for row in rows] == list(peers.PRECISIONS)
    assert all(row["seconds"]["median"] > 0 for row in rows)
    assert rows[2]["loss_apart"] < 1e-6 < rows[0]["loss_apart"]
    monkeypatch.setattr(peers, "loss_on_the_cpu", lambda workload: 7.0)
    with pytest.raises(AssertionError, match=r"the first loss is .* but 7.0 on the CPU"):
        peers.measure(MLP, "float32", "eager", "cpu")


def test_the_tests_rows_run_on_the_card(stages, monkeypatch, tmp_path):
    """Here on a library that calls itself CuPy and makes emulated arrays."""
    pytest.importorskip("ml_dtypes")
    (tmp_path / "cupy.py").write_text("from emulator.arrays import emulated as asarray\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parent}")
    found, log = stages(Stage("conformance", "fastnet.bench.gpu.suite:conformance"))
    assert found["conformance"]["status"] == "done", log
    rows = found["conformance"]["rows"]
    assert len(rows) > 10 and all("cupy" in row["test"] and row["outcome"] == "passed" for row in rows)


TRAINER = """
import json, pathlib, signal, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(exist_ok=True)
done = len((out / "history.jsonl").read_text().splitlines()) if "--resume" in sys.argv else 0
with (out / "history.jsonl").open("a") as file:
    file.write(json.dumps({"epoch": done + 1, "given": sys.argv[1:]}) + "\\n")
(out / "checkpoint.safetensors").touch()
if done:
    (out / "result.json").write_text("{}")
    sys.exit(2)
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
time.sleep(60)
"""


def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    (tmp_path / "trainer.py").write_text(TRAINER)
    monkeypatch.setattr(training, "COMMAND", (sys.executable, str(tmp_path / "trainer.py")))
    settings = {"device": "cuda", "dtype": "bfloat16", "run": str(tmp_path / "run"), "data": "there",
                "seconds": training.SAVING + 1}
    kept = Kept()
    training.run(kept, settings)
    given = ["--device", "cuda", "--dtype", "bfloat16", "--out", settings["run"], "--data-dir", "there"]
    assert kept.rows == [{"epoch": 1, "given": given}]
    with pytest.raises(RuntimeError, match="exit status 2"):
        training.run(kept, settings)
    assert kept.rows[1:] == [{"epoch": 2, "given": [*given, "--resume"]}, {"result": {}}]


def test_every_stage_is_there(capsys, monkeypatch, tmp_path):
    for stage in main.STAGES.values():
        module, _, name = stage.target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
    path = tmp_path / "record.json"
    monkeypatch.setitem(devices.LIBRARIES, "cuda", lambda: None)
    monkeypatch.setattr(sys, "argv", ["gpu", "--json", str(path), "--out", str(tmp_path), "--minutes", "1e-9"])
    main.main()
    assert {stage["status"] for stage in json.loads(path.read_text())["stages"].values()} == {"not reached"}
    monkeypatch.setattr(sys, "argv", ["gpu", "--json", str(path), "--table"])
    capsys.readouterr()
    main.main()
    assert capsys.readouterr().out.strip() == (tmp_path / "gpu.md").read_text().strip()


def test_without_a_card_one_line_says_so(capsys, monkeypatch, tmp_path):
    def missing():
        raise devices.DeviceError("there is no NVIDIA GPU")

    path = tmp_path / "record.json"
    monkeypatch.setitem(devices.LIBRARIES, "cuda", missing)
    monkeypatch.setattr(sys, "argv", ["gpu", "--json", str(path)])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2 and not path.exists()
    assert capsys.readouterr() == ("", "fastnet.bench.gpu: there is no NVIDIA GPU\n")
