"""Spaces, plans and `Tuner` in one process: what is tried, what is best, and that nothing else decides it."""

import math

import numpy as np
import pytest
from searched import SPACE, bowl, search, unlucky
from tiny import dataset, fit, interrupting, model, saved

import fastnet as fn
from fastnet.lab import Choice, Log, Tuner, Uniform
from fastnet.lab.search import space as spaces
from fastnet.lab.search.figure import draw_search
from fastnet.lab.search.plan import Result, Round, best_first, propose
from fastnet.lab.search.trial import Trial, attempt

LAMBDA = {"l2": Log(1e-5, 1e-1)}


def results(*pairs, stage="coarse"):
    return [Result(k, stage, {"l2": l2}, value, 1.0, None if value is not None else "RuntimeError")
            for k, (l2, value) in enumerate(pairs)]


# --- what is drawn ---

def test_coarse_draws_are_uniform_in_the_logarithm():
    draws = np.log10([spaces.draw(LAMBDA, trial, 0)["l2"] for trial in range(400)])
    assert draws.min() >= -5 and draws.max() < -1
    counts = np.histogram(draws, 8, (-5, -1))[0]
    assert ((counts - 50) ** 2 / 50).sum() < 24.3  # chi squared with 7 degrees of freedom: one in a thousand is larger


def test_a_draw_depends_on_seed_trial_and_place_only():
    space = {**LAMBDA, "momentum": Uniform(0, 1)}
    assert spaces.draw(space, 7, 1) == spaces.draw(space, 7, 1)
    drawn = {value for trial in range(20) for seed in range(5) for value in spaces.draw(space, trial, seed).values()}
    assert len(drawn) == 200
    assert spaces.draw(space, 7, 1)["l2"] == spaces.draw(LAMBDA, 7, 1)["l2"]


def test_window_is_that_of_the_report():
    """R1: the two best of the coarse search, .0014 and .0018, give bounds 7.9e-4 and 3.2e-3."""
    window = Log(1e-5, 1e-1).window(0.0018, 0.0014, 0.25)
    assert (f"{window.low:.1e}", f"{window.high:.1e}") == ("7.9e-04", "3.2e-03")


def test_fine_searches_stay_around_the_best():
    found = results((1e-4, 0.1), (2e-3, 0.5), (9e-3, 0.4), (5e-2, None))
    window = propose(Round("window", {"trials": 50, "margin": 0.25}, 50), LAMBDA, 0, 4, found, False)
    logs = np.log10([row["l2"] for row in window])
    assert math.log10(2e-3) - 0.25 <= logs.min() < math.log10(2e-3) < math.log10(9e-3) < logs.max() <= -1.79
    factor = propose(Round("factor", {"trials": 50, "low": 0.8, "high": 1.2}, 50), LAMBDA, 0, 4, found, False)
    ratios = np.array([row["l2"] for row in factor]) / 2e-3
    assert 0.8 <= ratios.min() < 0.83 and 1.17 < ratios.max() <= 1.2
    least = propose(Round("factor", {"trials": 1, "low": 0.99, "high": 1.01}, 1), LAMBDA, 0, 4, found, True)
    assert least[0]["l2"] == pytest.approx(1e-4, rel=0.02)


def test_of_equals_the_first_is_best_and_one_is_enough_for_a_window():
    equal = results((1e-4, 0.5), (1e-3, 0.5), (1e-2, 0.1), (1e-1, 0.1))
    assert [r.trial for r in best_first(equal, minimize=False)] == [0, 1, 2, 3]
    assert [r.trial for r in best_first(equal, minimize=True)] == [2, 3, 0, 1]
    window = propose(Round("window", {"trials": 20, "margin": 0.1}, 20), LAMBDA, 0, 3,
                     results((1e-4, 0.5), (1e-2, None)), False)
    assert all(abs(math.log10(row["l2"]) + 4) <= 0.1 for row in window)


def test_narrow_searches_keep_the_bounds_of_uniform_and_the_best_choice():
    assert Uniform(0, 1).window(0.9, 0.95, 0.25) == Uniform(0.9 - 1 / 16, 1)
    assert Uniform(0, 1).scaled(0.9, 0.8, 1.2) == Uniform(0.8 * 0.9, 1)
    assert Uniform(-1, 1).scaled(-0.5, 0.8, 1.2) == Uniform(-0.6, -0.4)
    assert Uniform(0, 1).scaled(0.0, 0.8, 1.2) == Choice((0.0,))
    assert Choice(("a", "b")).window("b", "a", 0.25) == Choice(("b",)) == Choice(("a", "b")).scaled("b", 0.8, 1.2)


def test_grid_is_all_combinations():
    tuner = Tuner(lambda trial: 0.0, {"lr": [0.1, 0.01], "l2": Log(1e-4, 1e-2), "p": Uniform(0, 1)}).grid(3)
    rows = [tuple(r.parameters.values()) for r in tuner.results]
    assert len(rows) == 18 == len(set(rows))
    assert rows[:4] == [(0.1, 1e-4, 0.0), (0.1, 1e-4, 0.5), (0.1, 1e-4, 1.0), (0.1, pytest.approx(1e-3), 0.0)]


@pytest.mark.parametrize("text", ["log:1e-5", "log:a:b", "log:1:2:3", "uniform:", "", "1,,2", "log:0:1", "uniform:2:1",
                                  "log:nan:1"])
def test_parse_refuses(text):
    with pytest.raises(ValueError, match=r"is not log:|is not uniform:|is no log:LOW:HIGH|Log: |Uniform: "):
        spaces.parse(text)


@pytest.mark.parametrize(("text", "expected"), [
    ("log:1e-5:1e-1", Log(1e-5, 1e-1)), ("uniform:-1:2", Uniform(-1, 2)), ("1,0.5,relu", Choice((1, 0.5, "relu"))),
    ("sgd", Choice(("sgd",)))])
def test_parse(text, expected):
    found = spaces.parse(text)
    assert found == expected == spaces.from_settings(found.settings())


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Log(0, 1), "must be positive but low is 0"),
    (lambda: Uniform(1, 1), "low must be less than high but they are 1 and 1"),
    (lambda: Log(1e-5, math.inf), "must be finite numbers but are 1e-05 and inf"),
    (lambda: Choice(()), "at least one value"),
    (lambda: Choice("relu"), "needs a list"),
    (lambda: Choice((1, None)), "None is not"),
    (lambda: Tuner(bowl, {}), "the space has no parameters"),
    (lambda: Tuner(bowl, {"a b": [1]}), "'a b' is no name"),
    (lambda: Tuner(bowl, SPACE, workers=0), "workers must be at least 1 but is 0"),
    (lambda: Tuner(bowl, SPACE, lease=0), "lease must be a positive number"),
    (lambda: Tuner(bowl, SPACE, seed=-1), "seed must be in"),
    (lambda: Tuner(bowl, SPACE, journal="runs/x"), "needs a suffix, such as runs/x.jsonl"),
    (lambda: Tuner(bowl, SPACE).coarse(0), "coarse: trials must be a positive int but is 0"),
    (lambda: Tuner(bowl, SPACE).coarse(2).fine_factor(2, 1.2, 0.8), "low must be less than high"),
    (lambda: Tuner(bowl, SPACE).run([("random", {})]), "no search 'random'; choose from coarse, window"),
    (lambda: Tuner(bowl, SPACE).run([("grid", {"trials": 3})]), "grid has points but got trials"),
    (lambda: Tuner(bowl, SPACE).fine_window(2), "goes on from the best trials, but none has a result"),
    (lambda: Tuner(bowl, SPACE).best, "no trial has ended yet"),
])
def test_mistakes_are_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_space_of_other_things():
    with pytest.raises(TypeError, match="'l2' is 3, but Log, Uniform, Choice or a list"):
        Tuner(bowl, {"l2": 3})


# --- what comes of it ---

def test_best_table_and_failures():
    told = []
    tuner = search(unlucky, report=told.append)
    assert told == tuner.results and len(told) == 20
    assert [r.stage for r in told] == 12 * ["coarse"] + 4 * ["window"] + 4 * ["factor"]
    assert told[5].state == "failed" and told[5].error == "RuntimeError: no luck" and told[5].value is None
    best = max((r for r in told if r.value is not None), key=lambda r: r.value)
    assert tuner.best == best and best.trial >= 12  # the fine searches found something better
    lines = tuner.table(seconds=False).splitlines()
    assert lines[0].split() == ["trial", "stage", "l2", "kind", "value", "state"]
    assert lines[2 + 5].endswith("failed: RuntimeError: no luck")
    assert [line.split()[0] for line in lines if "*" in line] == [str(best.trial)]


def test_all_failed():
    def wrong(trial):
        raise KeyError("x")

    tuner = Tuner(wrong, LAMBDA).coarse(3)
    with pytest.raises(ValueError, match="all 3 trials failed, the first with KeyError: 'x'"):
        tuner.best  # noqa: B018


def test_minimize():
    tuner = Tuner(lambda trial: abs(math.log10(trial["l2"]) + 3), LAMBDA, minimize=True).coarse(8)
    assert tuner.best.value == min(r.value for r in tuner.results)


@pytest.mark.parametrize(("returned", "state", "text"), [
    (1, "done", None), (np.float32(0.5), "done", None), (np.array(2.0), "done", None),
    (math.nan, "failed", "the objective returned nan, which is no finite number"),
    (np.inf, "failed", "returned inf"), (None, "failed", "returned None"), ("1", "failed", "returned 1"),
    (True, "failed", "returned True"), (np.zeros(2), "failed", "which is no finite number")])
def test_what_an_objective_may_return(returned, state, text):
    outcome = attempt(lambda trial: returned, Trial(0, {}))
    assert outcome.state == state and (text is None) == (outcome.error is None)
    assert text is None or text in outcome.error


def test_whatever_an_objective_raises_is_an_outcome():
    def leaving(trial):
        raise SystemExit(3)

    assert attempt(leaving, Trial(0, {})).error == "SystemExit: 3"


# --- learning ---

def test_tpe_learns_and_is_the_same_each_time():
    pytest.importorskip("optuna")
    one, other = (Tuner(unlucky, SPACE).coarse(6).tpe(24, wave=4) for _ in range(2))
    assert one.table(seconds=False) == other.table(seconds=False)
    later = [r for r in one.results[18:] if r.value is not None]
    assert np.mean([r.value for r in later]) > np.mean([r.value for r in one.results[:6] if r.value is not None]) + 0.2
    assert Tuner(unlucky, SPACE, seed=1).tpe(4).results[0].parameters != one.results[6].parameters


def test_tpe_without_optuna(without):
    without("optuna")
    with pytest.raises(ImportError, match=r"needs optuna: pip install 'fastnet\[search\]'"):
        Tuner(bowl, SPACE).tpe(4)


# --- trials that train ---

def test_a_trial_that_was_interrupted_goes_on_from_its_checkpoint(tmp_path):
    whole = fit(tmp_path / "whole")
    seen = []

    def objective(trial, schedule=None):
        run = trial.fit(model(), dataset(), fn.SGD(momentum=0.9), schedule or interrupting(), epochs=3, batch_size=25,
                        penalty=fn.L2(trial["l2"]), seed=5)
        return run.result["validation_accuracy"]

    def stopped(trial):
        seen.append(trial.folder)
        return objective(trial, interrupting(4))

    def counted(trial):
        usual, steps = interrupting(), []
        found = objective(trial, type(usual)(usual.name, usual.settings, lambda t: steps.append(t) or usual(t)))
        seen.append(steps)
        return found

    with pytest.raises(KeyboardInterrupt):
        Tuner(stopped, {"l2": [0.01]}, journal=tmp_path / "x.jsonl").grid()
    best = Tuner(counted, {"l2": [0.01]}, journal=tmp_path / "x.jsonl").grid().best
    assert seen[0] == tmp_path / "x" / "trial-0000" and 3 not in seen[1] and 5 in seen[1]
    assert best.value == whole.result["validation_accuracy"]
    assert saved(seen[0])[:5] == saved(tmp_path / "whole")[:5]


def test_a_folder_without_a_checkpoint_is_begun_again(tmp_path):
    folder = tmp_path / "x" / "trial-0000"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{")
    (folder / "checkpoint.safetensors.part").write_bytes(b"half")
    run = Trial(0, {}, folder).fit(model(), dataset(), fn.SGD(0.01), epochs=1, batch_size=25)
    assert run.result["epochs"] == 1 and not (folder / "checkpoint.safetensors.part").exists()


def test_a_trial_waits_for_who_trains_in_its_folder(tmp_path, monkeypatch):
    from fastnet.lab.search import trial
    from fastnet.train.lock import exclusive

    holding = exclusive(tmp_path)
    holding.__enter__()
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        holding.__exit__(None, None, None)

    monkeypatch.setattr(trial.time, "sleep", sleep)
    Trial(0, {}, tmp_path).fit(model(), dataset(), fn.SGD(0.01), epochs=1, batch_size=25)
    assert len(waits) == 1 and (tmp_path / "result.json").exists()


# --- the figure ---

@pytest.mark.parametrize("space", [LAMBDA, SPACE])
def test_figure(tmp_path, space):
    tuner = Tuner(lambda trial: 0.5 if trial.number else math.nan, space).coarse(4).fine_window(4)
    draw_search(tuner.results, tuner.space, tmp_path / "a.png", value="validation_accuracy", best=tuner.best, title="t")
    assert (tmp_path / "a.png").stat().st_size > 5000
