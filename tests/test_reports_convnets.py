"""Reports R4 and R5: their experiments as data, and what they measure besides accuracies. On shapes10, seconds."""

import dataclasses
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import fastnet as fn
from fastnet.lab.recorder import Recorder, last_linear
from fastnet.nn.models import build
from fastnet.reports import initial, networks, optimization, page, pictures, r4, r5, reproduce, running, sparsity
from fastnet.reports import training as training_module
from fastnet.reports.experiment import Cell, Experiment, Results, claim_row
from fastnet.reports.figures import overlay
from fastnet.reports.scale import SCALES, Scale
from fastnet.reports.task import Task
from fastnet.reports.training import Place, Training
from fastnet.reports.verdicts import AGREES, DIFFERS, INDISTINGUISHABLE, NO_CLAIM, NOT_RUN, REDUCED, spread_verdict

HERE = Place()
FULL, TINY = Scale(data="shapes10"), Scale("quick", images=500, epochs=15, test=20, data="shapes10", filters=16)
ALL = {e.id: e for module in (r4, r5) for e in module.EXPERIMENTS}
NET = Training("vgg-a-bn", options={"filter_multiplier": 1 / 16}, data="shapes10", split="60/0", watch="test", epochs=1,
               batch_size=20, schedule={"name": "constant", "lr": 0.05}, normalization="channel", test_divisor=50)


def results(scale=FULL, seeds=(0,)):
    return Results(HERE, scale, seeds, {}, {})


def performed(found, tmp_path, *jobs):
    """The results with these jobs done."""
    running.Runner(found, tmp_path / "runs", 0, lambda line: None).run(lambda: [
        seeded for job in jobs for seeded in (found.seeded(job) if isinstance(job, Training) else [found.scaled(job)])])
    assert not found.failures
    return found


# As data

def test_the_experiments_of_both_reports_are_there():
    assert [e.id for e in r4.EXPERIMENTS] == [f"E{n}" for n in range(29, 39)]
    assert [e.id for e in r5.EXPERIMENTS] == [f"E{n}" for n in range(20, 29)]


@pytest.mark.parametrize(("training", "parameters"), [
    (r4.PLAIN, 62_006), (r5.SHORT, 11_173_962), (r5.deep("resnet18-x2"), 44_595_786), (r5.deep("resnet34"), 21_282_122),
    (r5.VGG, 9_750_922)])
def test_networks_have_the_parameters_of_the_reports(training, parameters):
    assert build(training.model, init="zeros", **training.options).num_parameters() == parameters


@pytest.mark.parametrize("experiment", ALL.values(), ids=lambda e: e.id)
def test_trainings_can_be_built_at_every_scale(experiment):
    for scale in {id(s): s for s in (FULL, experiment.quick or SCALES["quick"], TINY)}.values():
        for cell in experiment.cells:
            training = scale.apply(cell.training)
            images = int(training.split.partition("/")[0])
            assert training.rate(images)(0) == pytest.approx(cell.training.schedule["lr"])
            assert 1 <= training.batch_size <= images


def test_reports_of_best_test_accuracy_never_let_the_test_images_decide_about_the_rate():
    for cell in (cell for e in r5.EXPERIMENTS for cell in e.cells):
        watched, metric = cell.training.watch, cell.training.schedule.get("metric", "train_loss")
        assert metric == ("train_loss" if watched == "test" else "validation_loss")
        assert cell.metric.startswith("best_") is False or cell.metric == f"best_{watched}_accuracy"


def test_all_cells_of_a_network_in_the_table_share_its_run():
    cells = ALL["E20"].cells[:3]
    assert {cell.metric for cell in cells} == {"best_test_accuracy", "test_accuracy", "train_accuracy"}
    assert len({id(cell.training) for cell in cells}) == 1
    assert [label for label, _ in page._settings(ALL["E20"])] == [
        "CE", "BCE", "MSE", "Huber", "SoftMargin", "CE, random resized crop"]


# Reduced scales

def test_fewer_filters_of_convolutional_networks_only():
    scale = Scale("quick", filters=4)
    assert scale.apply(r5.SHORT).options == {"filter_multiplier": 0.25}
    assert scale.apply(r5.deep("resnet18-x2")).options == {"filter_multiplier": 0.5, "stem_multiplier": 0.25}
    assert scale.apply(replace(r5.SHORT, options={"activation": "elu"})).options == {
        "activation": "elu", "filter_multiplier": 0.25}
    assert scale.apply(Training("mlp3")).options == {}
    assert "1/4 of the filters" in scale.notice()


def test_schedules_in_epochs_shrink_with_the_epochs():
    scale = Scale("quick", epochs=5)
    assert scale.apply(r4.RESNET20).schedule["every"] == [5]
    assert scale.apply(replace(r4.RESNET20, schedule=r4.EVERY)).schedule["every"] == 5
    assert scale.apply(r5.LONG).schedule["patience"] == 1
    assert Scale("quick", epochs=200).apply(r5.LONG).schedule["patience"] == 1


def test_an_experiment_says_its_own_reductions(tmp_path, monkeypatch):
    cell = Cell("net", Training("mlp2", options={"hidden": (4,)}, epochs=2))
    experiment = Experiment("E99", "says so", cells=(cell,), figures=(overlay("x"),),
                            quick=Scale("quick", images=900, epochs=2, test=100, data="shapes10"))
    monkeypatch.setattr(r4, "EXPERIMENTS", (experiment,))
    told = []
    found = reproduce.reproduce("R4", ["E99"], seeds=1, scale=Scale("quick", data="shapes10", images=7), workers=0,
                                out=tmp_path, tell=told.append)
    said = "scale quick: 1/900 of the training and validation images"
    assert found.sections[0].notice.startswith(said)
    assert f"*{said}" in found.page.read_text()
    assert any(line.startswith(f"E99: {said}") for line in told)


# Verdicts

def test_a_figure_without_sampling_error_has_the_spread_of_its_seeds():
    values = [20, 22, 24]  # s = 2: the bound is 2 * 2 * sqrt(4/3) = 4.62
    assert spread_verdict(values, 26.6) == AGREES
    assert spread_verdict(values, 26.7) == DIFFERS
    assert spread_verdict(values, 17.3) == DIFFERS
    assert spread_verdict([22], 22) == INDISTINGUISHABLE


def test_a_claim_has_a_verdict_at_full_scale_only():
    assert claim_row("a", "b", "", "c", AGREES, results(Scale())).verdict == AGREES
    assert claim_row("a", "b", "", "c", AGREES, results(Scale("quick", images=2))).verdict == REDUCED
    assert claim_row("a", "b", "", "c", NO_CLAIM, results(Scale("quick", images=2))).verdict == NO_CLAIM


class Runs:
    """Results of runs by their training, each known by which of 1,000 validation images it gets right."""

    def __init__(self, runs, scale=None):
        self.known, self.scale, self.seeds = runs, scale or Scale(), (0,)

    def runs(self, training):
        return next((found for known, found in self.known if known == training), None)

    def failure(self, training):
        return "it was not to be"


def run_with(right, history=(), **values):
    correct = np.arange(1000) < right
    return SimpleNamespace(value=lambda metric: {"validation_accuracy": right / 1000, **values}[metric],
                           correct=lambda split: correct, history=list(history), diverged=None)


def swept(**right):
    known = {f"{rate:g}": 300 for rate in r4.RATES} | {"1": 100} | {k.removeprefix("r"): v for k, v in right.items()}
    return Runs([(r4.rated(r4.SWEEP, rate), [run_with(known[f"{rate:g}"])]) for rate in r4.RATES])


@pytest.mark.parametrize(("right", "best", "verdict"), [
    ({"r0.05": 600}, "0.05", AGREES), ({"r0.02": 600}, "0.02", AGREES), ({"r0.01": 600}, "0.01", DIFFERS),
    ({"r0.01": 600, "r0.02": 599}, "0.01", INDISTINGUISHABLE)])
def test_the_best_rate(right, best, verdict):
    found, fails = r4.rate_rows(swept(**right))
    assert (found.ours, found.verdict) == (best, verdict)
    assert (fails.ours, fails.verdict) == ("10.00", AGREES)


def test_a_rate_of_1_that_trains_and_one_that_is_missing():
    assert r4.rate_rows(swept(r1=400))[1].verdict == DIFFERS
    runs = swept()
    runs.known.pop()
    assert [(row.verdict, row.note) for row in r4.rate_rows(runs)] == [(NOT_RUN, "it was not to be")]


def test_the_epoch_of_the_least_validation_loss():
    def run(*losses):
        return run_with(500, [{"validation_loss": loss} for loss in losses])

    runs = Runs([(r4.PLAIN, [run(3, 2, 1, 4), run(3, 1, 2, 4)])])
    (row,) = r4.overfitting_rows(runs)
    assert (row.ours, row.verdict) == ("3, 2", DIFFERS)


def test_small_strengths_of_l2():
    nets = {strength: replace(r4.SWEEP, penalty={"L2": strength} if strength else {}) for strength in (0, 1e-5, 1e-4)}
    rows = r4.strength_rows(Runs([(nets[0], [run_with(500)]), (nets[1e-5], [run_with(501)]),
                                  (nets[1e-4], [run_with(600)])]))
    assert [row.verdict for row in rows] == [AGREES, AGREES]  # no effect, and one for the better
    rows = r4.strength_rows(Runs([(nets[0], [run_with(500)]), (nets[1e-5], [run_with(600)]),
                                  (nets[1e-4], [run_with(400)])]))
    assert [row.verdict for row in rows] == [DIFFERS, DIFFERS]


# The loss before training

def test_the_loss_before_training_is_that_of_the_untrained_network(tmp_path):
    how = {"model": "lenet5", "seeds": [3], "split": "60/40", "data": "shapes10"}
    equal = initial.losses(tmp_path, HERE, init="zeros", **how)
    assert equal == {"loss": [pytest.approx(math.log(10))], "expected": [pytest.approx(math.log(10))]}
    wide = initial.losses(tmp_path, HERE, init="normal:0.3", **how)
    data = fn.data.load("shapes10", split="60/40", order="random", seed=3)
    x = fn.data.Standardization.fit(data.train.images, "channel").apply(data.validation.images, "float32")
    model = build("lenet5", seed=3, init="normal:0.3")
    loss, _ = fn.loss_and_gradients(model, x, data.validation.labels)
    assert wide["loss"] == [pytest.approx(float(loss), rel=1e-5)]
    every = [float(fn.loss_and_gradients(model, x, np.full(40, label))[0]) for label in range(10)]
    assert wide["expected"] == [pytest.approx(np.mean(every), rel=1e-5)]
    assert wide["expected"][0] > 3


@pytest.mark.parametrize(("loss", "published", "verdict"), [
    (2.34, True, AGREES), (2.36, True, DIFFERS), (2.36, False, NO_CLAIM)])
def test_about_230(loss, published, verdict):
    answers = SimpleNamespace(answer=lambda task: {"loss": [loss], "expected": [2.3]}, scale=Scale())
    assert initial.row(answers, None, published, "lenet5", "zeros").verdict == verdict


# Sparsity

def test_only_proximal_l1_gives_exact_zeros_and_is_matched_by_the_training_loss(tmp_path):
    base = Training("mlp2", options={"hidden": (8,)}, data="shapes10", split="60/20", epochs=4, batch_size=20,
                    optimizer={"name": "sgd", "momentum": 0.9}, schedule={"name": "constant", "lr": 0.02})
    penalties = {"L2": {"L2": 0.01}, "L1 strong, proximal": {"L1": {"strength": 0.03, "proximal": True}},
                 "L1, subgradient": {"L1": 0.003}, "L1, proximal": {"L1": {"strength": 0.003, "proximal": True}}}
    cells = tuple(Cell(name, replace(base, penalty=penalty)) for name, penalty in penalties.items())
    found = performed(results(), tmp_path, *(cell.training for cell in cells))
    rows = {row.label: row for row in sparsity.rows(cells, found)}
    assert rows["weights under L2"].ours == rows["weights under L1, subgradient"].ours == "0.00"
    assert float(rows["weights under L1 strong, proximal"].ours) > float(rows["weights under L1, proximal"].ours) > 1
    losses = {cell.label: found.runs(cell.training)[0].value("train_loss") for cell in cells}
    nearest = min((name for name in losses if name.endswith("proximal")), key=lambda name: abs(
        losses[name] - losses["L2"]))
    assert sparsity.matched(cells, found, "proximal").label == nearest
    claimed = rows["zeros, L1 by subgradient matched to L2"]
    assert (claimed.reported, claimed.verdict) == ("no more than L2", REDUCED)
    drawn = sparsity.histograms(Experiment("E36", "", cells=cells), found, tmp_path)
    assert (tmp_path / drawn[0].file).stat().st_size > 10_000


# What updates do

def test_both_recorders_see_what_each_alone_sees_and_training_is_unchanged(tmp_path):
    settings = dataclasses.asdict(replace(NET, epochs=4))
    answer = optimization.recorded(tmp_path, HERE, training=settings, rates=[0.1, 0.05], data="shapes10")
    assert answer == {"steps": 12, "diverged_at": None}
    found = optimization.read(tmp_path)
    run = replace(NET, epochs=4)
    data, last = run.dataset(HERE), last_linear(build("vgg-a-bn", init="zeros", filter_multiplier=1 / 16))
    assert last == "classifier.4.w"
    for recorder, names in (
            (Recorder(parameters=last, step_sizes=[0.1, 0.05], every=10), (
                "losses", "steps", "same_batch", "consecutive", "along_predictiveness", "gradient_norm")),
            (Recorder(every=10), ("losses", "smoothness", "published_smoothness"))):
        run.fit(data, HERE, observer=recorder)
        for name in names:
            np.testing.assert_array_equal(found[name], getattr(recorder.recording(), name), err_msg=name)
    assert found["steps"].tolist() == [0, 10]


def test_a_run_that_diverges_is_a_result(tmp_path):
    settings = dataclasses.asdict(replace(NET, model="vgg-a", schedule={"name": "constant", "lr": 1e8}))
    answer = optimization.recorded(tmp_path, HERE, training=settings, rates=[0.1], data="shapes10")
    assert answer["diverged_at"] in (1, 2)
    assert np.isnan(optimization.read(tmp_path)["losses"][-1])


def recording(losses, change=(1.0,), steps=None):
    return {"losses": np.array(losses, float), "same_batch": np.array(change, float),
            "along_predictiveness": np.array([change, change], float).T * [1, 2],
            "steps": np.arange(len(change)) if steps is None else np.array(steps)}


def test_measures_by_hand():
    runs = {0.1: recording([4, 3, 2, 2], [1, 3]), 0.2: recording([4, 5, np.nan], [8])}
    width = optimization.Measure("losses", "", "", "width")
    assert width.value(runs) == pytest.approx((0 + 2) / 2)  # where both are left
    assert math.isnan(width._replace(part=0.5).value(runs))
    assert optimization.Measure("same_batch", "", "", "mean").value(runs) == pytest.approx((1 + 3 + 8) / 3)
    assert optimization.Measure("same_batch", "", "", "largest").value(runs) == pytest.approx((8 + 3) / 2)
    assert optimization.Measure("along_predictiveness", "", "", "mean").value(runs) == pytest.approx(8)
    assert width.band(runs).diverged == {"0.2": 2}


def test_a_claim_about_batch_norm_needs_every_seed():
    def nets(before, after):
        return {"no BN": {0.1: recording([1], [before])}, "BN": {0.1: recording([1], [after])}}

    measure = (optimization.Measure("same_batch", "change", "", "mean"),)
    for pairs, verdict in (([(2, 1), (3, 1)], AGREES), ([(2, 1), (1, 3)], INDISTINGUISHABLE), ([(1, 2)], DIFFERS)):
        found = {seed: nets(*pair) for seed, pair in enumerate(pairs)}
        (row,) = optimization.rows(found, "smaller", measure, results(Scale()), "")
        assert row.verdict == verdict
    assert row.ours == "1; 2"
    assert row.note == "BN / no BN by seed: 2"
    (row,) = optimization.rows(None, "smaller", measure, results(Scale()), "why")
    assert (row.verdict, row.note) == (NOT_RUN, "why")


def test_diverged_runs_are_listed():
    found = {7: {"no BN": {0.1: recording([1, np.nan])}, "BN": {0.1: recording([1, 1])}}}
    (row,) = optimization.rows(found, "", (optimization.Measure("same_batch", "", "", "mean"),), results(Scale()), "")
    assert "no BN at rate 0.1 diverged (seed 7, step 1)" in row.note


def test_the_study_of_batch_norm_runs_and_is_drawn(tmp_path):
    study = ALL["E27"]
    found = results(replace(TINY, epochs=1, images=1000))
    jobs = list(study.more(found))
    assert len(jobs) == 8
    assert {job.arguments["training"]["schedule"]["lr"] for job in jobs} == set(r5.RATES)
    rows = study.table(found)
    assert {row.verdict for row in rows} == {NOT_RUN}
    assert study.figures[0](study, found, tmp_path) == []
    performed(found, tmp_path, *jobs)
    rows = study.table(found)
    assert [row.verdict for row in rows] == [REDUCED] * 5
    assert len(ALL["E26"].table(found)) + 1 == len(ALL["E28"].table(found)) == 3  # of the same runs
    (drawn,) = study.figures[0](study, found, tmp_path)
    assert (tmp_path / drawn.file).stat().st_size > 10_000
    assert "scale quick" in drawn.caption


# About networks

def test_parameters_and_seconds():
    assert networks.parameter_row("a", "resnet34", 21.28).verdict == AGREES
    assert networks.parameter_row("a", "resnet34", 21.29).verdict == DIFFERS
    epochs = [{"seconds": s} for s in (100.0, 1.0, 2.0, 4.0)]
    runs = Runs([(r5.LONG, [run_with(1, epochs)])])
    runs.place = HERE
    row = networks.seconds_row("a", r5.LONG, 23.61, runs)
    assert (row.reported, row.ours, row.verdict) == ("23.61", "2.00", NO_CLAIM)


def test_pictures_of_a_run(tmp_path):
    net = replace(r5.SHORT, epochs=15, split="10000/0")
    experiment = Experiment("E20", "", cells=(Cell("net", net, metric="best_test_accuracy"),))
    found = results(TINY)
    assert pictures.maps(experiment, found, tmp_path) == []
    performed(found, tmp_path, net)
    drawn = [*pictures.maps(experiment, found, tmp_path), *pictures.examples(experiment, found, tmp_path),
             *pictures.resnet_plan(experiment, found, tmp_path), *overlay("net")(experiment, found, tmp_path)]
    assert len(drawn) == 4
    assert all((tmp_path / one.file).stat().st_size > 10_000 for one in drawn)
    assert [row.verdict for row in experiment.table(found)] == [NO_CLAIM]


def test_a_task_is_told_in_one_line():
    task = Task("a:recorded", {"training": dataclasses.asdict(NET), "rates": [0.1]})
    assert task.title() == "recorded vgg-a-bn rate 0.05 filter_multiplier=0.0625 1 epochs seed 0 rates=[0.1]"


def test_the_data_of_a_fit_are_those_it_is_given(tmp_path):
    run = training_module.Training(**dataclasses.asdict(NET)).fit(NET.dataset(HERE), HERE)
    assert run.history[-1]["step"] == 3
