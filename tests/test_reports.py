"""`fastnet reproduce`: experiments as data, runs that are shared and survive, pages. On shapes10, seconds."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from fastnet.reports import r1, r2, r3, reproduce, running, verdicts
from fastnet.reports import training as training_module
from fastnet.reports.decisions import DECISIONS
from fastnet.reports.experiment import Cell, Effect, Experiment, Results
from fastnet.reports.scale import SCALES, Scale
from fastnet.reports.search import Search
from fastnet.reports.task import Task
from fastnet.reports.training import DONE, Place, Trained, Training

ALL = [e for module in reproduce.reports().values() for e in module.EXPERIMENTS]
TINY = Scale("tiny", images=100, epochs=5, test=10, data="shapes10")
HERE = Place()
SMALL = Training("mlp2", options={"hidden": (8,)}, data="shapes10", split="60/20", epochs=2, batch_size=20,
                 schedule={"name": "triangular", "half_cycle_steps": 3}, penalty={"L2": 0.01})


def empty():
    return Results(HERE, Scale(data="shapes10"), (0, 1), {}, {})


def run(experiments, out, workers=0, seeds=(0, 1)):
    """Run experiments without a page; the results and what was told."""
    results, told = replace(empty(), seeds=seeds), []
    running.Runner(results, out, workers, told.append).run(lambda: [j for e in experiments for j in e.jobs(results)])
    return results, told


# The reports as data

def test_experiments_of_the_first_three_reports_are_all_there():
    ids = [e.id for e in ALL]
    assert len(set(ids)) == len(ids)
    assert {f"E{n:02}" for n in range(1, 20)} <= set(ids)


@pytest.mark.parametrize("experiment", ALL, ids=lambda e: e.id)
def test_an_experiment_is_whole(experiment):
    labels = [cell.label for cell in experiment.cells]
    assert len(set(labels)) == len(labels)
    assert experiment.claim and (experiment.cells or experiment.rows)
    for effect in experiment.effects:
        assert {effect.better, effect.worse} <= set(labels)
    assert set(experiment.decisions) <= set(DECISIONS)


def test_every_decision_is_shown_somewhere():
    assert set(DECISIONS) == {name for e in ALL for name in e.decisions}


@pytest.mark.parametrize(("training", "updates"), [
    (r1.SHORT, 1000), (r1.LONG, 4800), (r1.with_lambda(0.1), 1200), (r1.FINAL, 11760), (r2.THREE, 9000),
    (r2.BEST, 13500), (r3.NARROW, 3000), (r3.CYCLICAL, 3000)])
def test_settings_give_the_updates_that_the_report_states(training, updates):
    images = int(training.split.partition("/")[0])
    per_epoch = -(-images // training.batch_size)
    assert training.epochs * per_epoch == updates
    cycles = updates / (2 * training.schedule.get("half_cycle_steps", updates / 2))
    assert cycles == int(cycles)


@pytest.mark.parametrize(("training", "parameters"), [
    (r1.FINAL, 154_160), (r2.THREE, 156_710), (r2.THREE_BN, 156_910), (r2.NINE, 156_870), (r2.NINE_BN, 157_190),
    (r3.WIDE, 327_360), (r3.normalised(r3.WIDE), 328_060)])
def test_models_have_the_parameters_of_the_report(training, parameters):
    from fastnet.nn.models import build

    assert build(training.model, **{**training.options, "init": "zeros"}).num_parameters() == parameters


def test_adams_rate_by_epoch_and_by_update():
    by_epoch, by_step = (t.rate(45_000) for t in (r3.NARROW, r3.per_step(r3.NARROW)))
    assert by_epoch(99) == 2e-3 and by_epoch(100) == pytest.approx(2e-3 * 0.995)
    assert by_epoch(2999) == pytest.approx(2e-3 * 0.995**29)
    assert by_step(2999) == pytest.approx(2e-3 * 0.995**2999)


# Trainings and scales

def test_every_setting_has_its_part_in_the_name(monkeypatch):
    monkeypatch.setattr(training_module, "contents", lambda name, place: name)  # without reading any
    other = {"model": "mlp3", "options": {}, "data": "digits", "split": "60/10", "order": "file",
             "normalization": "channel", "augmentation": {"pad": 1}, "epochs": 3, "batch_size": 30,
             "optimizer": {"name": "adam"}, "schedule": {}, "penalty": {}, "loss": "huber",
             "loss_options": {"delta": 2.0}, "dtype": "float64", "watch": "test", "test_divisor": 2, "seed": 1}
    assert set(other) == {f.name for f in dataclasses.fields(Training)}
    keys = {SMALL.key(HERE), *(replace(SMALL, **{k: v}).key(HERE) for k, v in other.items())}
    assert len(keys) == 1 + len(other)
    assert SMALL.key(HERE) == replace(SMALL).key(HERE) != SMALL.key(Place(device="cuda"))


def test_a_quick_run_is_the_published_one_in_small():
    quick = SCALES["quick"].apply(r1.FINAL)
    assert (quick.split, quick.epochs, quick.schedule["half_cycle_steps"]) == ("4900/100", 24, 196)
    assert SCALES["full"].apply(r1.FINAL) is r1.FINAL
    assert not SCALES["full"].notice()
    assert "1/10 of the training" in SCALES["quick"].notice()
    tiny = TINY.apply(r3.NARROW)
    assert (tiny.data, tiny.split, tiny.epochs, tiny.batch_size) == ("shapes10", "450/50", 6, 450)


def test_a_run_may_watch_the_test_images_under_their_own_name(tmp_path):
    watched = replace(SMALL, watch="test", split="60/0", test_divisor=20)
    watched.perform(tmp_path / "a", HERE)
    run = Trained(tmp_path / "a")
    best = max(line["validation_accuracy"] for line in run.history)
    assert run.value("best_test_accuracy") == best
    assert run.images("best_test_accuracy") == 100
    assert run.found["data"]["validation"] == "the test images"
    with pytest.raises(KeyError, match="watched the test images has no best_validation_accuracy"):
        run.value("best_validation_accuracy")
    with pytest.raises(ValueError, match="watch must be"):
        replace(SMALL, watch="both")


def test_predictions_are_kept_image_by_image(here):
    run = Trained(here[0] / SMALL.key(HERE))
    for split in ("test", "validation"):
        assert run.correct(split).shape == (run.images(f"{split}_accuracy"),)
        assert run.correct(split).mean() == pytest.approx(run.value(f"{split}_accuracy"))
    assert run.value("best_validation_accuracy") >= run.value("validation_accuracy")


# Running

EXPERIMENT = Experiment("X1", "one beats the other", cells=(
    Cell("one", SMALL, 0.3), Cell("again", replace(SMALL), 0.3), Cell("other", replace(SMALL, penalty={}), 0.1)),
    effects=(Effect("really", "one", "other"),))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """EXPERIMENT run in this process: the folder, the results, what was told."""
    out = tmp_path_factory.mktemp("here")
    return (out, *run([EXPERIMENT], out))


def test_a_run_is_shared_and_done_once(here):
    out, results, told = here
    assert len(told) == len(results.folders) == 4  # two trainings, two seeds
    again, told = run([EXPERIMENT], out)
    assert told == [] and again.folders == results.folders
    rows = EXPERIMENT.table(again)
    assert [row.label for row in rows] == ["one", "again", "other", "one > other: really"]
    assert rows[0].ours == rows[1].ours and rows[3].note.startswith("McNemar p ")


def test_cells_published_alike_claim_no_difference(here):
    effect = Effect("an own question", "one", "again")
    row = replace(EXPERIMENT, effects=(effect,)).table(here[1])[-1]
    assert (row.reported, row.ours) == ("-", "+0.00")
    assert EXPERIMENT.table(here[1])[-1].reported == "+20.00"


def test_what_was_killed_before_its_first_checkpoint_starts_anew(here, tmp_path):
    whole, folder = here[0] / SMALL.key(HERE), tmp_path / "killed"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "checkpoint.safetensors.part").write_bytes(b"half")
    SMALL.perform(folder, HERE)
    assert (Trained(folder).correct("test") == Trained(whole).correct("test")).all()


def test_processes_change_nothing(here, tmp_path):
    there, told = run([EXPERIMENT], tmp_path, workers=2)
    assert len(told) == 4 and not there.failures
    for key, folder in here[1].folders.items():
        for split in ("test", "validation"):
            assert (Trained(folder).correct(split) == Trained(there.folders[key]).correct(split)).all()
        assert Trained(folder).value("test_loss") == Trained(there.folders[key]).value("test_loss")


def test_a_run_that_diverges_is_a_result(tmp_path):
    wild = replace(SMALL, epochs=1, schedule={}, optimizer={"name": "sgd", "lr": 1e30})
    experiment = Experiment("X2", "", cells=(Cell("wild", wild, 0.1),))
    with np.errstate(all="ignore"):
        results, told = run([experiment], tmp_path)
    row, = experiment.table(results)
    assert (row.ours, row.difference) == ("10.00 ± 0.00", "+0.00")
    assert "seed 0 diverged at step" in row.note and "diverged at step" in told[0]
    runs = results.runs(wild)
    assert runs[0].correct("test").shape == (2000,) and runs[0].value("test_loss") == float("inf")


def test_what_cannot_run_says_why_and_stops_nothing_else(tmp_path):
    bad = replace(SMALL, options={"hidden": (8,), "activation": "nothing"})
    task = Task("fastnet.reports.normalization:inference_statistics", after=(bad,))
    experiment = Experiment("X3", "", cells=(Cell("bad", bad, 0.5), Cell("good", SMALL, 0.5)), tasks=(task,),
                            effects=(Effect("", "bad", "good"),))
    results, _ = run([experiment], tmp_path)
    rows = experiment.table(results)
    assert [row.verdict == verdicts.NOT_RUN for row in rows] == [True, False, True]
    assert "ValueError" in rows[0].note and "'nothing'" in rows[0].note
    assert results.failure(task).startswith("a run that it needs failed: ValueError")


def test_a_process_that_dies_is_tried_again_and_then_given_up(tmp_path, monkeypatch):
    once = Task("tests_deadly:die", {"times": 1, "file": str(tmp_path / "once")})
    always = Task("tests_deadly:die", {"times": 9, "file": str(tmp_path / "always")})
    (tmp_path / "tests_deadly.py").write_text(
        "import os, pathlib\n"
        "def die(folder, place, times, file):\n"
        "    path = pathlib.Path(file)\n"
        "    count = len(path.read_text()) if path.exists() else 0\n"
        "    path.write_text('x' * (count + 1))\n"
        "    if count < times:\n"
        "        os._exit(1)\n"
        "    return count\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    results, _ = run([Experiment("X4", "", tasks=(once, always))], tmp_path / "out", workers=1)
    assert results.answer(once) == 1
    assert "its process died (exit status 1), 2 times" in results.failure(always)


SCRIPT = """
from pathlib import Path
from dataclasses import replace
from fastnet.reports.experiment import Cell, Experiment, Results
from fastnet.reports.running import Runner
from fastnet.reports.scale import Scale
from fastnet.reports.training import Place, Training

LONG = Training("mlp2", data="shapes10", split="5000/100", epochs=4000, batch_size=50,
                schedule={"name": "triangular", "half_cycle_steps": 3})
if __name__ == "__main__":
    results = Results(Place(), Scale(data="shapes10"), (0, 1), {}, {})
    experiment = Experiment("X", "", cells=(Cell("long", LONG),))
    try:
        Runner(results, Path("out"), 2, print).run(lambda: experiment.jobs(results))
    except KeyboardInterrupt:
        raise SystemExit(130)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_saves_every_running_training(tmp_path):
    (tmp_path / "long.py").write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, "long.py"], cwd=tmp_path)
    try:
        wait(lambda: len(list(tmp_path.glob("out/*/history.jsonl"))) == 2)
        before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("out/*/checkpoint.safetensors")}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
    # Saved where they were stopped, inside an epoch as a rule, and not done.
    assert all(path.stat().st_mtime_ns > at for path, at in before.items())
    assert not list(tmp_path.glob(f"out/*/{DONE}"))


BEATING = """
import sys, time
from pathlib import Path
from fastnet.reports.experiment import Experiment, Results
from fastnet.reports.running import Runner
from fastnet.reports.scale import Scale
from fastnet.reports.task import Task
from fastnet.reports.training import Place

def beat(folder, place):
    while True:
        (folder / "beat").write_text(str(time.monotonic()))
        time.sleep(0.05)

if __name__ == "__main__":
    results = Results(Place(), Scale(), (0,), {}, {})
    experiment = Experiment("X", "", tasks=(Task("beating:beat"),))
    Runner(results, Path("out"), 1, print).run(lambda: experiment.jobs(results))
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "beating.py").write_text(BEATING)
    process = subprocess.Popen([sys.executable, "beating.py"], cwd=tmp_path)
    try:
        wait(lambda: list(tmp_path.glob("out/*/beat")))
    finally:
        process.kill()
    process.wait()
    beat, = tmp_path.glob("out/*/beat")
    wait(lambda: unchanged(beat))


def unchanged(path):
    """Whether nobody writes to a file in half a second."""
    before = path.read_text()
    time.sleep(0.5)
    return before and before == path.read_text()


def wait(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


# Searches

def test_a_fine_search_goes_on_from_the_best_of_the_coarse_one(tmp_path):
    def make(strength):
        return replace(SMALL, epochs=1, penalty={"L2": strength})

    search = Search(make, 1e-4, 1e-1, [("coarse", {"trials": 3}), ("window", {"trials": 2, "margin": 0.25})])
    experiment = Experiment("X6", "", more=search.trainings,
                            rows=lambda results: [search.row(results, "best", 0.5)])
    before = replace(empty(), seeds=(0,))
    assert len(list(search.trainings(before))) == 3  # the others are not known yet
    assert experiment.table(before)[0].verdict == verdicts.NOT_RUN
    results, told = run([experiment], tmp_path, seeds=(0,))
    points = search.points(results)
    assert len(told) == 5 and [p.stage for p in points] == ["coarse"] * 3 + ["window"] * 2
    coarse = sorted(points[:3], key=lambda p: (-p.value, p.trial))
    ends = sorted(p.parameters["value"] for p in coarse[:2])
    for point in points[3:]:
        assert ends[0] / 10**0.25 <= point.parameters["value"] <= ends[1] * 10**0.25
    best = search.best(results)
    assert best.value == max(p.value for p in points)
    mean = np.mean([one.value("validation_accuracy") for one in results.runs(make(best.parameters["value"]))])
    assert best.value == pytest.approx(mean)
    assert f"at {best.parameters['value']:.3g}" in experiment.table(results)[0].note
    for point in points[3:]:  # as if it had been killed behind the coarse search, whose runs are all there
        for one in results.runs(make(point.parameters["value"])):
            (one.folder / DONE).unlink()
    again, told = run([experiment], tmp_path, seeds=(0,))
    assert len(told) == 2 and search.best(again) == best
    again, told = run([experiment], tmp_path, seeds=(0,))
    assert not told and search.best(again) == best
