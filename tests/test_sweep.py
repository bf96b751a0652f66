"""Sweeps with processes of their own: killed, interrupted, joined, on a cluster, and from the command line."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import searched
from searched import SPACE, bowl, search, unlucky
from test_cli import one_line, tiny_data  # noqa: F401

from fastnet import cli_sweep
from fastnet.lab import Tuner
from fastnet.lab.search import runner
from fastnet.lab.search.processes import Processes
from fastnet.train import checkpoint

HERE = Path(__file__).parent


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.jsonl"


@pytest.fixture(scope="module")
def undisturbed():
    return search(unlucky).table(False)


def start(path, workers=1, lease=1.0, objective="waiting"):
    return subprocess.Popen([sys.executable, str(HERE / "searched.py"), str(path), str(workers), str(lease), objective],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(found, seconds=40):
    """What `found` returns as soon as it is true."""
    for _ in range(int(seconds / 0.02)):
        if answer := found():
            return answer
        time.sleep(0.02)
    raise AssertionError("it never came")


def waiting(path, trial):
    """The process that waits in a trial of `searched.waiting`."""
    return until(lambda: [int(file.stem) for file in (path.with_suffix("") / f"trial-{trial:04}").glob("*.waiting")])[0]


def kinds(path, kind):
    return [event["trial"] for event in map(json.loads, path.read_text().splitlines()) if event.get("event") == kind]


def is_there(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    return False


# --- what survives ---

def test_workers_that_are_killed_change_nothing(path, undisturbed):
    """Twenty trials, two workers, two SIGKILLs: the table is that of one worker whom nobody disturbed."""
    sweep = start(path, workers=2, lease=60.0)
    for trial in searched.WAITING:
        os.kill(waiting(path, trial), signal.SIGKILL)
    out, err = sweep.communicate(timeout=60)
    assert (out, err, sweep.returncode) == (undisturbed + "\n", "", 0)
    assert kinds(path, "lost") == list(searched.WAITING)
    assert sorted(kinds(path, "claim")) == sorted([*range(20), *searched.WAITING])  # each kill cost one trial


def test_a_process_that_is_killed_with_its_workers_is_replaced_by_one_that_joins(path, undisturbed):
    """Its worker goes with it, and another process, which waits for the lease, ends what it has begun."""
    first = start(path, workers=2)
    worker = waiting(path, 3)
    second = start(path)
    first.kill()
    first.communicate()
    waiting(path, 11)
    third = start(path)
    second.kill()
    second.communicate()
    out, err = third.communicate(timeout=60)
    assert (out, err) == (undisturbed + "\n", "")
    until(lambda: not is_there(worker), 5)
    assert kinds(path, "claim").count(3) == kinds(path, "claim").count(11) == 2


def test_ctrl_c_gives_trials_back(path):
    """Ctrl-C to the one process that a script is: its workers hear of it, and none stays behind."""
    sweep = start(path, workers=2)
    worker = waiting(path, 3)
    sweep.send_signal(signal.SIGINT)
    _, err = sweep.communicate(timeout=30)
    assert "KeyboardInterrupt" in err and sweep.returncode != 0
    assert 3 in kinds(path, "released") and not kinds(path, "lost")
    until(lambda: not is_there(worker), 5)


def test_ctrl_c_saves_what_trains(path):
    """Two runs in two processes, in the middle of their second epoch, end with a checkpoint from there."""
    sweep = start(path, workers=2, objective="training")
    until(lambda: len(list(path.with_suffix("").glob("*/history.jsonl"))) == 2)
    sweep.send_signal(signal.SIGINT)
    _, err = sweep.communicate(timeout=30)
    assert err.rstrip().endswith("KeyboardInterrupt") and err.count("Traceback") == 1
    assert sorted(kinds(path, "released")) == [0, 1] and not kinds(path, "lost")
    for number in (0, 1):
        _, saved = checkpoint.load(path.with_suffix("") / f"trial-000{number}" / "checkpoint.safetensors")
        assert 30 < saved["step"] < 60 and saved["sums"]["seen"] == 2 * (saved["step"] - 30)


def test_a_trial_that_its_process_dies_of_fails(path, monkeypatch):
    monkeypatch.setattr(runner, "MOST_LOSSES", 2)
    tuner = Tuner(searched.dying, SPACE, journal=path, workers=2).coarse(3)
    assert [r.state for r in tuner.results] == ["done", "failed", "done"]
    assert tuner.results[1].error == "the process that tried it died 2 times"


# --- executors ---

def test_processes():
    with Processes(1, threads=1) as pool:
        assert pool.submit(os.getpid).result(60) != os.getpid()
        assert pool.submit(os.getenv, "NUMBA_NUM_THREADS").result(10) == "1"
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result(10)
        with pytest.raises(BrokenExecutor, match=r"its process died \(exit status 7\)"):
            pool.submit(os._exit, 7).result(10)
        with pytest.raises(TypeError, match="it must be a function at the top of a module"):
            pool.submit(lambda: 0)
        assert pool.submit(len, "abc").result(60) == 3
        pid = pool.submit(os.getpid).result(10)
    assert not is_there(pid)


def test_any_executor(undisturbed):
    with ThreadPoolExecutor(3) as pool:
        assert search(unlucky, executor=pool, workers=3).table(False) == undisturbed
        assert pool.submit(len, "abc").result() == 3  # it is still its owner's


def test_an_objective_that_cannot_be_sent(path):
    with pytest.raises(TypeError, match="one worker runs anything"):
        Tuner(lambda trial: 0.0, SPACE, journal=path, workers=2).coarse(2)
    assert kinds(path, "claim") == kinds(path, "released") == [0, 1]


@pytest.mark.filterwarnings("ignore")  # distributed's own, which differ from version to version
def test_dask(path, undisturbed):
    distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, \
            distributed.Client(cluster) as client:
        client.run(lambda: sys.path.insert(0, str(HERE)))
        killed = []

        def kill(result):
            if not killed:
                killed.append(client.run(os.getpid).popitem()[1])
                os.kill(killed[0], signal.SIGKILL)

        tuner = search(unlucky, path, executor=client.get_executor(), workers=2, report=kill)
    assert tuner.table(False) == undisturbed and killed


def test_dask_is_missing(run, without, tiny_data):  # noqa: F811
    without("distributed")
    status, _, err = run("sweep", "mlp2", "--over", "l2=1,2", "--dask", "tcp://127.0.0.1:1", "--epochs", 1)
    assert status == 2 and err == "fastnet sweep: --dask needs distributed: pip install 'fastnet[cluster]'\n"


# --- the command line ---

@pytest.fixture
def sweep(run, tiny_data, monkeypatch):  # noqa: F811
    monkeypatch.setattr("fastnet.train.loop.draw_curves", lambda folder: None)  # half of the time of a tiny run
    cli_sweep._load.cache_clear()
    yield lambda *arguments: run("sweep", *(("mlp2", "--epochs", 1, "--batch-size", 50) if arguments[0] != "--join"
                                            else ()), *arguments)
    cli_sweep._load.cache_clear()


def test_sweep(sweep, run, monkeypatch):
    status, out, err = sweep("--over", "l2=log:1e-5:1e-1", "--trials", 2, "--search", "fine")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    (journal,) = Path("runs").glob("*.jsonl")
    assert lines[0] == f"mlp2: fine search over l2 by validation accuracy -> {journal}"
    assert [line.split(":")[0] for line in lines[1:5]] == [f"trial {k}" for k in range(4)]
    assert sum("window" in line for line in lines) == 2
    assert journal.with_suffix(".png").exists() and len(list(journal.with_suffix("").glob("trial-*/result.json"))) == 4
    best = lines[-2].split()[2].rstrip(",")
    value = json.loads((journal.with_suffix("") / f"trial-000{best}" / "result.json").read_text())
    assert f"validation accuracy {value['validation_accuracy']:.4f}" in lines[-2]
    status, out, _ = run(*lines[-1].split()[1:], "--out", "again")  # the command that it ends with
    again = json.loads(Path("again/result.json").read_text())
    assert status == 0 and again["validation_accuracy"] == value["validation_accuracy"]

    monkeypatch.setattr(cli_sweep.Trial, "fit", None)  # nothing is trained twice
    status, out, _ = sweep("--over", "l2=log:1e-5:1e-1", "--trials", 2, "--search", "fine")
    assert status == 0 and out.splitlines()[1:] == lines[5:] and "4 trials have ended before" in out.splitlines()[0]
    status, out, _ = run("sweep", "--join", journal)
    assert status == 0 and out.splitlines()[1:] == lines[5:]


def test_sweep_over_lists_is_a_grid(sweep):
    status, out, _ = sweep("--over", "optimizer=sgd,adam", "--over", "batch-size=20,50", "--by", "validation_loss",
                           "--journal", "a.jsonl")
    assert status == 0 and "grid search over optimizer, batch_size by validation loss -> a.jsonl" in out
    found = [json.loads(Path(f"a/trial-000{k}/config.json").read_text()) for k in range(4)]
    assert [(c["optimizer"]["name"], c["batch_size"]) for c in found] == [
        ("sgd", 20), ("sgd", 50), ("adam", 20), ("adam", 50)]
    losses = [json.loads(Path(f"a/trial-000{k}/history.jsonl").read_text())["validation_loss"] for k in range(4)]
    assert f"best: trial {losses.index(min(losses))}, validation loss {min(losses):.4f}" in out


def test_joining_runs_what_the_options_say(sweep, run, monkeypatch):
    """One process plans and is interrupted at once; who joins it knows all the rest from the journal."""
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    options = ("--over", "l2=1e-3,1e-4", "--vertical-flip", "--no-flip", "--option", "hidden=(20,)",
               "--resized-crop", 0.5, 1, "--journal", "a.jsonl", "--rate", "linear1.*=0.5", "--l1", 1e-5, "--proximal")
    with monkeypatch.context() as patch:
        patch.setattr(cli_sweep.Trial, "fit", interrupted)
        status, _, err = sweep(*options)
    assert status == 130 and err == "\ninterrupted; the same command goes on from a.jsonl\n"
    status, out, _ = run("sweep", "--join", "a.jsonl")
    assert status == 0 and "ended before" not in out
    assert sweep(*options)[1].splitlines()[1:] == out.splitlines()[3:]  # the command finds its sweep ended
    config = json.loads(Path("a/trial-0001/config.json").read_text())
    assert config["epochs"] == 1 and config["rates"] == {"linear1.*": 0.5} and config["augmentation"]["vertical_flip"]
    assert config["augmentation"]["resized_crop"] == [0.5, 1.0] and config["model"]["options"]["hidden"] == [20]
    assert not config["augmentation"]["horizontal_flip"] and "1e-05" in str(config["penalty"])


def test_every_trial_fails(sweep):
    status, out, err = sweep("--over", "batch_size=200,300")
    assert status == 1 and err == "fastnet sweep: all 2 trials failed\n"
    assert out.count("failed: ValueError: batch size") == 4  # as it comes, and in the table


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "a sweep needs --over OPTION=VALUES"),
    (["--over", "l2"], "--over 'l2' is not OPTION=VALUES"), (["--over", "nope=1"], "'nope=1' is not OPTION=VALUES"),
    (["--over", "workers=1,2"], "'workers=1,2' is not OPTION=VALUES"), (["--over", "model=mlp2"], "is not OPTION"),
    (["--over", "l2=log:0:1"], "Log: bounds must be positive but low is 0"),
    (["--over", "l2=1,2", "--over", "l2=3"], "--over l2 is given twice"),
    (["--over", "l2=1,2", "--workers", 0], "--workers must be at least 1 but is 0"),
    (["--over", "l2=1,2", "--trials", 0], "--trials must be at least 1 but is 0"),
    (["--over", "batch_size=10,x"], "argument --batch-size: invalid int value: 'x'"),
    (["--over", "optimizer=sgd,foo"], "argument --optimizer: invalid choice: 'foo'"),
    (["--over", "beta1=0.9,0.8"], "--beta1 does not belong to sgd"),
    (["--over", "l2=1,2", "--journal", "runs/a"], "the journal runs/a needs a suffix"),
    (["--over", "l2=1,2", "--dask", "tcp://x:1", "--threads", 2], "--threads and --dask"),
    (["--over", "l2=1,2", "--out", "x"], "unrecognized arguments: --out"),
    (["--join", "nothere.jsonl"], "there is no journal nothere.jsonl"),
])
def test_mistakes_are_said_before_anything_is_trained(sweep, arguments, message):
    status, out, err = sweep(*arguments or ["--seed", 0])
    assert status == 2 and message in err and one_line(err) and out == ""
    assert not Path("runs").exists()


def test_joining_the_journal_of_a_script(path, run):
    search(bowl, path)
    status, _, err = run("sweep", "--join", path)
    assert status == 2 and err == f"fastnet sweep: {path} is not the journal of 'fastnet sweep'\n"


@pytest.mark.parametrize("settings", [
    {"train": {"model": "mlp2", "--help": True}, "by": "validation_loss"}, {"train": {"model": "--help"}, "by": "x"},
    {"train": {"model": "mlp2", "l2": {"a": 1}}, "by": "validation_loss"}, {"train": {"model": "mlp2"}, "by": "test"},
    {"train": {"model": "mlp2", "run": "rm"}, "by": "validation_loss"}, {"train": [], "by": 1},
    {"train": {"model": ["mlp2"]}, "by": "validation_loss"}])
def test_joining_a_hostile_journal(path, run, settings):
    Tuner(bowl, {"l2": [1]}, journal=path, settings=settings).grid()
    status, out, err = run("sweep", "--join", path)
    assert status == 2 and one_line(err) and out == ""
