"""What the reports measure besides accuracies of runs: gradient checks, statistics of batch norm; and their figures."""

import pytest

from fastnet.check.models import check_model
from fastnet.data import shapes10
from fastnet.data.loading import load
from fastnet.lab.search.plan import Result
from fastnet.nn.losses import loss_and_gradients
from fastnet.reports import figures, gradients, normalization, r1, r2, r3
from fastnet.reports.experiment import Cell, Experiment, Results
from fastnet.reports.scale import Scale
from fastnet.reports.training import Place, Trained, Training

HERE = Place()
RESULTS = Results(HERE, Scale(data="shapes10"), (0,), {}, {})


def test_r1s_check_finds_the_gradients_right(tmp_path):
    found = gradients.mean_absolute(tmp_path, HERE, data="shapes10", entries=60, l2=0.01)
    assert {name: row["entries"] for name, row in found.items()} == {
        "linear1.w": 60, "linear1.b": 50, "linear2.w": 60, "linear2.b": 10}
    assert all(row["mean"] < 1e-9 and row["relative"] < 1e-7 for row in found.values())


def test_r1s_check_can_fail(tmp_path, monkeypatch):
    def wrong(*arguments):
        loss, found = loss_and_gradients(*arguments)
        return loss, {**found, "linear1.b": found["linear1.b"] * 1.001}

    monkeypatch.setattr(gradients, "loss_and_gradients", wrong)
    found = gradients.mean_absolute(tmp_path, HERE, data="shapes10", entries=20, l2=0.01)
    assert found["linear1.b"]["mean"] > 1e-7 > found["linear2.b"]["mean"]


def test_r1s_check_sees_the_penalty(tmp_path):
    """2 lambda W belongs to the gradient of the cost: without it weights would be wrong and biases right."""
    found = gradients.mean_absolute(tmp_path, HERE, data="shapes10", entries=20, l2=5.0)
    assert found["linear1.w"]["relative"] < 1e-6


NET = {"hidden": [10] * 8, "batch_norm": True, "data": "shapes10"}


def test_two_images_hide_a_wrong_sign_below_batch_norm(tmp_path):
    right = gradients.upstream(tmp_path, HERE, images=2, **NET)
    wrong = gradients.upstream(tmp_path, HERE, images=2, wrong=True, **NET)
    assert right["passed"] and not wrong["passed"]  # ours
    assert right["six_decimals"] and wrong["six_decimals"]  # the report's
    assert wrong["course"] < 10 * right["course"]
    assert right["complex_step"] < 1e-12 and wrong["complex_step"] > 1
    assert right["lowest"] < 1e-6


def test_eight_images_show_it(tmp_path):
    wrong = gradients.upstream(tmp_path, HERE, images=8, wrong=True, **NET)
    assert not wrong["six_decimals"] and wrong["cs231n"] > 1


def test_a_net_without_batch_norm_is_seen_by_two_images(tmp_path):
    found = gradients.upstream(tmp_path, HERE, images=2, **{**NET, "batch_norm": False})
    assert found["six_decimals"] and found["passed"] and found["lowest"] > 1e-3


def test_our_check_knows_the_wrong_layer():
    x, labels = gradients._images("shapes10", HERE, 8, 10)
    report = check_model(gradients._net([12, 10], True, True, 0), x, labels, raises=False, entries=20)
    assert any("linear1" in failure for failure in report.failures)


def test_half_of_the_images_are_mirrored_by_seed():
    test = load("shapes10").test
    flipped = normalization.flip_half(test, 0)
    mirrored = (flipped.images == test.images[:, :, ::-1]).all((1, 2, 3))
    same = (flipped.images == test.images).all((1, 2, 3))
    assert (mirrored | same).all() and abs(mirrored.mean() - 0.5) < 4 * 0.5 / len(test) ** 0.5
    assert (normalization.flip_half(test, 0).images == flipped.images).all()
    assert (normalization.flip_half(test, 1).images != flipped.images).any()
    assert len(test) == shapes10.TEST


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    Training("mlp3-bn", options={"hidden": (16, 16)}, data="shapes10", split="600/100", epochs=4, batch_size=50,
             optimizer={"name": "sgd", "lr": 0.05}, test_divisor=4).perform(folder, HERE)
    return Trained(folder)


def test_statistics_of_one_model(trained, tmp_path):
    found = normalization.inference_statistics(tmp_path, HERE, trained)
    assert set(found) == {*r3.STATISTICS, *normalization.VARIANTS, *r3.FLIPPED, "flipped, adaptive to clean"}
    assert found["neither"] == trained.value("test_accuracy")
    for name, accuracy in found.items():
        assert normalization.correct(tmp_path, name).shape == (500,)
        assert normalization.correct(tmp_path, name).mean() == pytest.approx(accuracy)
    others = [normalization.correct(tmp_path, name) for name in r3.STATISTICS if name != "neither"]
    assert any((one != normalization.correct(tmp_path, "neither")).any() for one in others)
    # What adaptive statistics see is the difference between these two.
    assert (normalization.correct(tmp_path, "flipped, adaptive")
            != normalization.correct(tmp_path, "flipped, adaptive to clean")).any()


def points(search, results):
    return [Result(k, stage, {"value": 10.0 ** -k}, 0.3 + 0.01 * k, 0.0, None)
            for k, stage in enumerate(("coarse", "coarse", "window"), 1)]


def test_figures_are_written(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(Results, "runs", lambda self, training: [trained, trained])
    monkeypatch.setattr(type(r1.FINE_SEARCH), "points", points)
    experiment = Experiment("X1", "", cells=(Cell("a: one / two", r2.THREE), Cell("b", r2.NINE)))
    drawn = [d for draw in (figures.curves(), figures.overlay("over"), figures.cost_graph,
                            figures.scatter(r1.FINE_SEARCH, "lambda", r1.FINE))
             for d in draw(experiment, RESULTS, tmp_path)]
    assert [d.file for d in drawn] == ["X1-a-one-two.png", "X1-b.png", "X1-over.png", "X1-graph.png", "X1-search.png"]
    assert all((tmp_path / d.file).read_bytes().startswith(b"\x89PNG") for d in drawn)
    assert "on shapes10" in drawn[2].caption  # reduced: every figure says so


def test_figures_of_what_has_not_run_are_left_out(tmp_path):
    experiment = Experiment("X1", "", cells=(Cell("a", r2.THREE),))
    for draw in (figures.curves(), figures.overlay("over"), figures.scatter(r1.FINE_SEARCH, "lambda")):
        assert draw(experiment, RESULTS, tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_gradient_rows_of_checks_that_did_not_run_say_so():
    results = Results(HERE, Scale(data="shapes10"), (0,), {}, {})
    rows = [*r1.gradient_rows(results), *r2.check_rows(results), *r2.vacuous_rows(results), *r3.inference_rows(results)]
    assert {row.verdict for row in rows} == {"not run"}


def test_gradient_rows_are_judged(monkeypatch):
    errors = {name: {"mean": 2 * value, "relative": 1e-9, "entries": 5} for name, value in r1.GRADIENT_ERRORS.items()}
    errors["linear2.w"]["mean"] = 1e-6
    monkeypatch.setattr(Results, "answer", lambda self, task: errors)
    assert [row.verdict for row in r1.gradient_rows(RESULTS)] == ["agrees", "differs", "agrees", "agrees"]
    seen = {"course": 1e-3, "cs231n": 1.0, "absolute": 1e-9, "crossed": 0, "differences": 1e-9, "complex_step": 1e-14,
            "six_decimals": True, "passed": True, "lowest": 1e-9}
    monkeypatch.setattr(Results, "answer", lambda self, task: seen)
    assert {row.verdict for row in r2.check_rows(RESULTS)} == {"differs"}
    # A check that passes the right net and the wrong one alike: only the first is as it should be.
    assert [row.verdict for row in r2.vacuous_rows(RESULTS)] == ["agrees", "differs"]
