"""R4's questions of theory: the arithmetic exactly, and every demonstration small, on generated images."""

import json
import math
import sys
from fractions import Fraction

import numpy as np
import pytest

from fastnet import data as fastnet_data
from fastnet.functions import adam_update
from fastnet.nn.layers import Linear, ReLU
from fastnet.nn.models import build
from fastnet.nn.sequential import Sequential
from fastnet.optim.optimizers import Adam
from fastnet.reports import reproduce, theory, verdicts
from fastnet.reports.scale import SCALES, Scale
from fastnet.reports.theory import q01, q03, q04, q05, q06, q07, q08, q09, q10, q11, question
from fastnet.reports.training import Place

TINY = Scale("tiny", images=40, epochs=10, data="shapes10")
QUESTIONS = {e.id: e for e in theory.EXPERIMENTS}


def values(rows):
    return {(row.label, row.measured): row.ours for row in rows}


# The frame

def test_there_are_eleven_questions_alone_and_behind_those_of_r4():
    assert list(QUESTIONS) == [f"Q{n:02}" for n in range(1, 12)]
    assert [e.id for e in reproduce.chosen("theory")] == list(QUESTIONS)
    assert [e.id for e in reproduce.chosen("R4")][-12:] == ["E38", *QUESTIONS]
    assert [e.id for e in reproduce.chosen("r4", ["q08"])] == ["Q08"]


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_demonstration_runs_in_small(name, tmp_path):
    """From the tasks to the page: a line with the report's answer, a sentence, and the figure."""
    done = reproduce.reproduce("theory", [name], scale=TINY, seeds=2, place=Place(), out=tmp_path, workers=0,
                               tell=lambda line: None)
    assert done.complete, done.sections[0].rows
    *measured, answer = done.sections[0].rows
    assert len(measured) >= 3
    assert answer.verdict == verdicts.REDUCED and answer.note and answer.reported in ("true", "false", "ln K")
    drawn = [figure.file for figure in done.sections[0].figures]
    assert drawn == ([] if name == "Q02" else [f"{name}.png"])
    assert all((tmp_path / "pages" / file).stat().st_size > 5000 for file in drawn)
    assert "nan" not in json.dumps(json.loads(done.page.with_suffix(".json").read_text())).lower()


def test_a_quick_reproduction_is_the_whole_demonstration():
    assert all(e.quick is not None and not e.quick.notice() for e in theory.EXPERIMENTS)
    assert SCALES["quick"].notice()


def found(holds):
    return question.Question("Q99", "so it is", False, "", lambda results: [], lambda answers: question.Finding(
        [], holds, "because")).experiment()


@pytest.mark.parametrize(("holds", "verdict", "ours"), [
    (True, verdicts.AGREES, "false"), (False, verdicts.DIFFERS, "not so"),
    (None, verdicts.INDISTINGUISHABLE, "cannot be told")])
def test_the_last_line_is_the_verdict(holds, verdict, ours, tmp_path, monkeypatch):
    experiment = found(holds)
    results = type("Results", (), {"scale": Scale()})
    row = experiment.rows(results)[-1]
    assert (row.reported, row.ours, row.verdict, row.note) == ("false", ours, verdict, "because")


def test_a_question_that_cannot_be_measured_says_why(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # as where it is not installed
    done = reproduce.reproduce("theory", ["Q03"], scale=TINY, seeds=1, place=Place(), out=tmp_path, workers=0,
                               tell=lambda line: None)
    (row,) = done.sections[0].rows
    assert row.verdict == verdicts.NOT_RUN and "scikit-learn is needed" in row.note
    assert not done.complete and not done.sections[0].figures


def test_intervals_are_students():
    low, high = question.interval([1.0, 2.0, 3.0])
    assert (low, high) == (pytest.approx(2 - 4.302653 / math.sqrt(3), rel=1e-6),
                           pytest.approx(2 + 4.302653 / math.sqrt(3), rel=1e-6))
    assert question.interval([1.0]) == (-math.inf, math.inf)


def test_held_out_images_are_not_the_test_images():
    given = question.dataset("shapes10", Place(), 50, 20, 3)
    whole = fastnet_data.load("shapes10", split="50/20", seed=3)
    assert given.test is given.validation
    np.testing.assert_array_equal(given.validation.images, whole.validation.images)


# Q01

def test_moments_stand_on_both_sides_of_batch_norm():
    model = build("mlp3-bn", seed=0, inputs=6, hidden=(4,), dtype="float64")
    rng = np.random.default_rng(0)
    name = next(key for key in model.parameters() if key.endswith("beta")).removesuffix(".beta")
    p = model.parameters()
    p[f"{name}.beta"][:], p[f"{name}.gamma"][:] = [1, -2, 0, 3], [2, -1, 0.5, 1]
    x = rng.normal(size=(40, 6))
    here = q01.moments(model, x)[name]
    z = x @ p["linear1.w"] + p["linear1.b"]
    np.testing.assert_allclose(here["mean_before"], z.mean(0))
    np.testing.assert_allclose(here["std_before"], z.std(0))
    np.testing.assert_allclose(here["mean_after"], [1, -2, 0, 3], atol=1e-12)
    np.testing.assert_allclose(here["std_after"], here["std_expected"], rtol=1e-12)
    np.testing.assert_allclose(here["std_after"], abs(p[f"{name}.gamma"]) * z.std(0) / np.sqrt(z.var(0) + 1e-5))


# Q03

def test_half_a_turn_is_what_makes_a_six_of_a_nine():
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
    split = fastnet_data.Split(images, np.arange(2), np.arange(2))
    np.testing.assert_array_equal(q03.turned(split, q03.TURNED["both flips"]).images, np.rot90(images, 2, (1, 2)))
    np.testing.assert_array_equal(q03.turned(split, q03.TURNED["vertical flip"]).images, np.flip(images, 1))
    np.testing.assert_array_equal(q03.turned(split, q03.TURNED["horizontal flip"]).images, np.flip(images, 2))


def ablated(crop, flip):
    accuracy = dict.fromkeys(q03.TRANSFORMS, 0.5) | {"crop": crop, "vertical flip": flip}
    return {"accuracy": accuracy, "flipped": dict.fromkeys(q03.TURNED, 0.3), "images": 100,
            "taken": {"6 as 9": [8, 10], "9 as 6": [7, 10]}}


def test_harm_must_be_beyond_its_interval():
    good = [ablated(0.6, 0.51), ablated(0.61, 0.52)]
    bad = [ablated(0.6, 0.301), ablated(0.6, 0.299)]
    loose = [ablated(0.6, 0.2), ablated(0.6, 0.49)]
    assert q03.find(good + good).holds is None
    assert q03.find(loose + good).holds is None
    verdict = q03.find(bad + good)
    assert verdict.holds and "vertical flip on digits (-20.0)" in verdict.why and "30 of 40" in verdict.why


# Q04

@pytest.mark.parametrize("eps", [1e-8, 1.0])
def test_effective_steps_are_the_updates_over_the_rate(eps):
    rng, adam, lr = np.random.default_rng(0), Adam(eps=eps), 0.01
    w = rng.normal(size=50)
    state = adam.start(w)
    for step in range(3):
        before = w.copy()
        adam.update(w, rng.normal(size=50), state, step=step, lr=lr)
    np.testing.assert_allclose(q04.effective_steps(state, adam, 3), abs(w - before) / lr, rtol=1e-9)
    assert adam_update.EPS_MODES[0] == adam.eps_mode


def cells(best_of_large, same):
    grid = [{"eps": eps, "lr": lr, "accuracy": 0.4, "counts": None, "tiny": 0.0} for eps in q04.EPS for lr in q04.RATES]
    for cell in grid:
        if (cell["eps"], cell["lr"]) == (1.0, 1.0):
            cell["accuracy"] = best_of_large
        if (cell["eps"], cell["lr"]) == (1.0, q04.RATES[0]):
            cell["accuracy"] = same
    return grid


def test_the_rate_is_found_anew_before_eps_is_judged():
    assert q04.find([cells(0.41, 0.1), cells(0.405, 0.12)]).holds is True
    answers = [cells(0.3, 0.1), cells(0.3, 0.1)]
    for one in answers:
        for cell in one:
            cell["accuracy"] -= 0.2 if cell["eps"] == 1.0 and cell["accuracy"] == 0.4 else 0
    verdict = q04.find(answers)
    assert verdict.holds is False and "-10.0 points" in verdict.why and "-30.0" in verdict.why


# Q05

def two_by_two(both, single):
    return {regime: {cell: [both if cell == "both" else single if cell == "L2" else 0.3, 0.9] for cell in q05.CELLS}
            for regime in q05.REGIMES}


@pytest.mark.parametrize(("seeds", "holds"), [
    ([(0.40, 0.45), (0.41, 0.462)], True), ([(0.45, 0.40), (0.462, 0.41)], False),
    ([(0.40, 0.45), (0.46, 0.41)], None)])
def test_both_together_are_compared_with_the_best_other_seed_by_seed(seeds, holds):
    answers = [two_by_two(*seed) for seed in seeds]
    rival, gain = q05.difference(answers, next(iter(q05.REGIMES)))
    assert rival == "L2"
    np.testing.assert_allclose(gain, [both - single for both, single in seeds])
    verdict = q05.find(answers)
    assert verdict.holds is holds
    interaction = next(row for row in verdict.rows if row.measured.startswith("interaction"))
    expected = 100 * np.mean([both - single - 0.3 + 0.3 for both, single in seeds])
    assert interaction.ours.startswith(f"{expected:+.2f}")


# Q06

def test_silent_and_stuck_units_are_counted():
    for kind in ("relu", "leaky_relu"):
        model = build("mlp7", seed=0, inputs=3, hidden=(4, 3), activation=kind)
        p = model.parameters()
        p["linear1.b"][2], p["linear1.w"][:, 2] = -1, 0  # below 0 whatever comes
        x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
        silent = q06.silent(model, x)
        assert [total for _, total in silent.values()] == [4, 3]
        first = next(iter(silent.values()))[0]
        hidden = x @ p["linear1.w"] + p["linear1.b"]
        assert first == (hidden <= 0).all(axis=0).sum() >= 1
        everywhere = sum(count for count, _ in silent.values())
        assert q06.stuck(model, x, np.arange(60) % 10) == (everywhere if kind == "relu" else 0)


def census(kind, lr, accuracy, diverged=False):
    return {"kind": kind, "lr": lr, "accuracy": accuracy, "diverged": diverged, "stuck": None if diverged else 3,
            "silent": [{"relu1": [1, 4]}]}


@pytest.mark.parametrize(("leaky", "failed", "holds"), [
    ((0.40, 0.41, 0.42), 0, True), ((0.2, 0.4, 0.6), 0, False), ((0.40, 0.41, 0.42), 1, None)])
def test_unsteady_is_what_varies_more_or_diverges_more_often(leaky, failed, holds):
    answers = [[census("relu", lr, a) for lr in q06.RATES]
               + [census("leaky_relu", lr, b, diverged=k < failed and lr == q06.RATES[-1]) for lr in q06.RATES]
               for k, (a, b) in enumerate(zip((0.40, 0.41, 0.42), leaky, strict=True))]
    assert q06.find(answers).holds is holds
    assert q06.pooled([[1.0, 3.0], [5.0, 7.0], [4.0]]) == (pytest.approx(math.sqrt(2)), 2)
    assert q06.noisier((2.0, 4), (1.0, 4)) == pytest.approx(0.104, abs=1e-3)


# Q07

def test_penalties_are_matched_by_training_loss():
    rows = [{"kind": kind, "strength": s, "zero": 0.5 if kind == "L1, proximal" else 0.0,
             "near": 0.6 if kind.startswith("L1") else 0.1, "loss": 1 + s, "accuracy": 0.4}
            for kind, strengths in q07.STRENGTHS.items() for s in strengths]
    assert q07.matched([rows], "L1, proximal", 0.003) == 0.003
    assert q07.find([rows]).holds is True
    flat = [{**row, "zero": 0.0} for row in rows]
    assert q07.find([flat]).holds is False
    other = [{**row, "near": 0.1} for row in rows]
    assert q07.find([other]).holds is False
    assert (q07.penalty("none", 0.0), q07.penalty("L2", 0.1).decay) == (None, 0.2)
    assert (q07.penalty("L1, proximal", 0.1).proximal, q07.penalty("L1, subgradient", 0.1).l1) == (0.1, 0.1)


# Q08

@pytest.mark.parametrize(("outputs", "ratio"), [(64, Fraction(576, 73)), (512, Fraction(4608, 521))])
def test_the_ratio_of_products_is_the_formulas(outputs, ratio):
    """7.89 and 8.84, as the report says; the layers' own counts give it exactly, whatever the map."""
    assert q08.mac_ratio(outputs) == pytest.approx(float(ratio), rel=1e-15)
    models = q08.layers(outputs)
    for size in (4, 7):
        macs = {name: model.macs((size, size, outputs)) for name, model in models.items()}
        assert macs["3x3"] == macs["3x3, direct"] == 9 * outputs * outputs * size * size
        assert Fraction(macs["3x3"], macs["separable"]) == ratio


def timed(separable, ordinary):
    return {"channels": 64, "size": 32, "macs": {"separable": 73, "3x3": 576},
            "time_s": {"separable": separable, "3x3": ordinary, "3x3, direct": ordinary}}


def test_a_ratio_of_times_has_a_spread():
    row = timed([1.0, 0.5, 2.0], [4.0, 3.0, 6.0])
    assert q08.speedup(row, "3x3") == (4.0, 1.5, 12.0)
    verdict = q08.find([[row]])
    assert verdict.holds and values(verdict.rows)["64 channels, 32x32 maps", "time, 3x3 / separable"] == "4.00"
    assert not q08.find([[{**row, "macs": {"separable": 64, "3x3": 576}}]]).holds


# Q09

def test_squeezenet_is_that_of_its_paper():
    """1,248,424 parameters; table 1: 111, 55, 27 and 13 pixels a side, and 1,000 classes at 13x13, not 100."""
    profile = q09.profile(None, Place(), models=[q09.PAPER])[q09.PAPER]
    assert [stage["maps"] for stage in profile["stages"]] == ["111x111", "55x55", "27x27", "13x13", "vectors"]
    assert sum(stage["parameters"] for stage in profile["stages"]) == 1_248_424
    assert profile["macs"][0] == 111 * 111 * 96 * 7 * 7 * 3 and profile["macs"][-1] == 13 * 13 * 512 * 1000
    assert profile["activations"][-1] == 13 * 13 * 1000


def test_stages_add_up():
    profile = q09.profile(None, Place(), models=["resnet18"])["resnet18"]
    assert sum(stage["macs"] for stage in profile["stages"]) == sum(profile["macs"]) == 555_422_720
    assert sum(stage["parameters"] for stage in profile["stages"]) == 11_173_962
    assert q09.share_behind([{"maps": "8x8", "macs": 60}, {"maps": "4x4", "macs": 30}, {"maps": "2x2", "macs": 0},
                             {"maps": "vectors", "macs": 10}]) == 0.4
    assert q09.centre([1, 0, 0]) == 0 and q09.centre([1, 1, 2]) == 0.625


# Q10

def test_lines_are_judged_by_their_rise_and_their_bends():
    convex = [(k - 4) ** 2 / 4 for k in range(9)]
    assert q10.rise(convex) == 4 and q10.bent(convex) == 0
    wave = [0, 1, 0, 1, 0, 1, 0]
    assert q10.bent(wave) == pytest.approx(3 / 5)
    assert q10.rise([1, 0, None]) == math.inf and q10.bent([1, 1, 1]) == 0


@pytest.mark.parametrize(("without", "holds"), [((9, 9.1), True), ((1, 1.1), False), ((2, 8), None)])
def test_the_surface_with_shortcuts_must_be_smoother_for_every_seed_alike(without, holds):
    def one(height):
        return {"lines": [[height, 0.0, height]], "accuracy": 0.5, "loss": 1.0}

    answers = [{"with shortcuts": one(base), "without": one(height)}
               for base, height in zip((5, 5.1), without, strict=True)]
    assert q10.find(answers).holds is holds


def test_a_plain_network_is_the_same_without_its_shortcuts():
    options = {"filter_multiplier": 0.25, "blocks": (1, 1, 1), "seed": 3}
    plain, residual = (build("resnet20", shortcut=kind, **options) for kind in ("none", "zero_pad"))
    assert list(plain.parameters()) == list(residual.parameters())
    for name, value in plain.parameters().items():
        np.testing.assert_array_equal(value, residual.parameters()[name])
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    assert abs(plain.predict(x) - residual.predict(x)).max() > 1e-3
    assert not [layer for layer in plain.walk() if layer.kind == "Residual"]


# Q11

def test_the_expected_loss_has_its_limits():
    assert q11.expected_loss(0, 10) == math.log(10)
    for s in (1e-3, 9.99e-3, 0.0101, 0.03):  # by its series, and where that ends by the integral
        assert q11.expected_loss(s, 10) == pytest.approx(math.log(10) + 0.45 * s * s, abs=1e-6)
    largest = 1.538752730835177  # the mean of the largest of ten: Harter, 1961
    assert q11.expected_loss(1000, 10) / 1000 == pytest.approx(largest, rel=1e-5)
    assert q11.expected_loss(1000, 2) / 1000 == pytest.approx(1 / math.sqrt(math.pi), rel=1e-5)


@pytest.mark.parametrize("s", [0.1, 1.0, 3.0])
def test_the_expected_loss_of_two_classes_is_a_single_integral(s):
    """E log(e^a + e^b) = E softplus(sqrt(2) s z), a and b having the mean 0."""
    z = np.linspace(-12, 12, 100_001)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    expected = float((np.logaddexp(0, math.sqrt(2) * s * z) * density).sum() * (z[1] - z[0]))
    assert q11.expected_loss(s, 2) == pytest.approx(expected, abs=1e-9)


def test_the_curve_is_the_integral():
    for s in (0.0, 0.005, 0.3, 2.7, 80.0):
        assert q11.curve(10)(np.array([s]))[0] == pytest.approx(q11.expected_loss(s, 10), abs=1e-5)


def test_what_is_expected_of_a_draw_is_what_many_draws_have():
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    model = Sequential([Linear(6, 8), ReLU(), Linear(8, 5)], seed=0)
    expected = q11.expectation(model, x, 1.5)
    hidden = np.maximum(x @ model.parameters()["linear1.w"] + model.parameters()["linear1.b"], 0)
    z = hidden.astype(float) @ np.random.default_rng(1).normal(0, 1.5, (40_000, 8, 5))
    losses = (np.log(np.exp(z).sum(-1)) - z[..., 0]).mean(1)
    assert expected == pytest.approx(losses.mean(), abs=4 * losses.std() / math.sqrt(len(losses)))


def test_a_loss_that_is_not_as_expected_is_seen():
    rule = math.log(10)
    right = [[0.001, [rule] * 4, [rule] * 4], [0.3, [50, 52, 54, 56], [53, 52, 53, 54]]]
    answer = {"classes": 10, "models": {}, "sigmas": right}
    assert q11.find([answer]).holds
    wrong = [right[0], [0.3, [20, 21, 22, 20], [53, 52, 53, 54]]]
    assert not q11.find([{**answer, "sigmas": wrong}]).holds
    assert not q11.find([replace_first(answer, 2.5)]).holds


def replace_first(answer, loss):
    return {**answer, "sigmas": [[0.001, [loss] * 4, [loss] * 4], answer["sigmas"][1]]}
