"""Schedules at exact points, against PyTorch where it has the same one, made again from their settings, refused."""

import json
import math

import numpy as np
import pytest

import fastnet as fn
from fastnet.optim import schedules
from fastnet.optim.schedule import Schedule


def rates(schedule, steps):
    return [schedule(t) for t in range(steps)]


# --- closed forms ---

def test_step_decay_every_so_often():
    assert rates(schedules.step_decay(0.5, 0.25, 2, unit="step"), 5) == [0.5, 0.5, 0.125, 0.125, 0.03125]
    by_epoch = schedules.step_decay(0.5, 0.25, 2, unit="epoch", steps_per_epoch=3)
    assert rates(by_epoch, 13) == [0.5] * 6 + [0.125] * 6 + [0.03125]


def test_step_decay_once_at_each_milestone():
    assert rates(schedules.step_decay(0.5, 0.25, [1, 4], unit="step"), 6) == [0.5] + [0.125] * 3 + [0.03125] * 2
    reports = schedules.step_decay(0.2, 0.1, [25], unit="epoch", steps_per_epoch=450)  # report R4
    assert reports(0) == reports(25 * 450 - 1) == 0.2 and reports(25 * 450) == reports(10**6) == 0.2 * 0.1


def test_cosine():
    rate = schedules.cosine(0.5, steps=8)
    assert rate(0) == 0.5 and rate(8) == rate(9) == rate(10**9) == 0
    assert rate(4) == pytest.approx(0.25, rel=1e-15)
    assert rate(2) == pytest.approx(0.25 * (1 + math.sqrt(0.5)), rel=1e-15)
    assert rate(2) + rate(6) == pytest.approx(0.5, rel=1e-15)
    with_floor = schedules.cosine(0.5, steps=8, floor=0.125)
    assert with_floor(0) == 0.5 and with_floor(8) == with_floor(100) == 0.125
    assert with_floor(4) == pytest.approx(0.3125, rel=1e-15)


def test_one_cycle_goes_up_down_and_away():
    rate = schedules.one_cycle(2.0, steps=16, rise=0.25, start=0.5, end=0.25)
    assert rates(rate, 9) == [1, 1.25, 1.5, 1.75, 2, 1.75, 1.5, 1.25, 1]
    assert rate(12) == 0.75 and rate(16) == rate(17) == 0.5
    usual = schedules.one_cycle(1.0, steps=1000)
    assert usual(0) == 0.1 and usual(450) == 1 and usual(1000) == 0.001
    assert usual(900) == pytest.approx(0.1, rel=1e-12) and usual(950) == pytest.approx(0.0505, rel=1e-12)
    assert max(rates(usual, 1000)) == 1
    to_the_end = schedules.one_cycle(1.0, steps=10, rise=0.5, end=0.05)
    assert to_the_end(5) == 1 and to_the_end(9) == pytest.approx(0.28) and to_the_end(10) == 0.05


def test_warmup_linear():
    rate = schedules.warmup_linear(0.5, warmup_steps=4, steps=12)
    assert rates(rate, 14) == [0, 0.125, 0.25, 0.375, 0.5, 0.4375, 0.375, 0.3125, 0.25, 0.1875, 0.125, 0.0625, 0, 0]
    assert rates(schedules.warmup_linear(0.5, warmup_steps=0, steps=4), 5) == [0.5, 0.375, 0.25, 0.125, 0]


def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    of = torch.optim.lr_scheduler
    pairs = [
        (schedules.cosine(0.3, steps=20, floor=0.01), lambda o: of.CosineAnnealingLR(o, 20, eta_min=0.01)),
        (schedules.step_decay(0.3, 0.5, 4, unit="step"), lambda o: of.StepLR(o, 4, gamma=0.5)),
        (schedules.step_decay(0.3, 0.5, [3, 11], unit="step"), lambda o: of.MultiStepLR(o, [3, 11], gamma=0.5)),
        (schedules.exponential(0.3, 0.9, unit="step"), lambda o: of.ExponentialLR(o, 0.9)),
    ]
    for ours, make in pairs:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
        theirs = make(optimizer)
        for t in range(20):
            assert ours(t) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), (ours, t)
            optimizer.step()
            theirs.step()


# --- the plateau ---

def watched(values, **settings):
    """The rates before the first epoch and after each."""
    schedule = schedules.reduce_on_plateau(1.0, **settings)
    found = [schedule(0)]
    for value in values:
        schedule.observe({"epoch": 1, schedule.metric: value})
        found.append(schedule(0))
    return found


def test_the_rate_falls_after_more_than_patience_bad_epochs():
    assert watched([3, 2, 2, 2, 2, 2], patience=2, factor=0.5) == [1, 1, 1, 1, 1, 0.5, 0.5]
    assert watched([3, 2, 2, 2, 1, 2, 2, 2], patience=2, factor=0.5) == [1] * 8 + [0.5]
    assert watched([3, 3, 3], patience=0, factor=0.5) == [1, 1, 0.5, 0.25]
    assert watched([3, math.nan, math.nan], patience=1, factor=0.5) == [1, 1, 1, 0.5]
    assert watched([math.nan, 3, 3], patience=1, factor=0.5) == [1, 1, 1, 1]


def test_what_counts_as_better():
    assert watched([1, 0.91, 0.82], patience=0, threshold=0.1, factor=0.5) == [1, 1, 0.5, 0.5]  # 0.91 > 0.9 > 0.82
    assert watched([0.5, 0.6, 0.7], patience=0, metric="validation_accuracy") == [1, 1, 1, 1]
    assert watched([0.5, 0.4, 0.3], patience=0, metric="validation_accuracy", factor=0.5) == [1, 1, 0.5, 0.25]
    assert watched([0.5, 0.4, 0.3], patience=0, metric="train_cost") == [1, 1, 1, 1]


def test_the_rate_has_a_floor():
    assert watched([1] * 5, patience=0, factor=0.25, min_lr=0.125) == [1, 1, 0.25, 0.125, 0.125, 0.125]
    tiny = schedules.reduce_on_plateau(2e-8, patience=0, factor=0.9, min_lr=0)
    for _ in range(3):
        tiny.observe({"validation_loss": 1})
    assert tiny(0) == 2e-8  # changes of less than 1e-8 are not made


def test_plateau_of_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for mode, metric in (("min", "validation_loss"), ("max", "validation_accuracy")):
        for threshold, patience, min_lr in ((1e-4, 5, 1e-6), (0.05, 1, 0.01), (0.0, 0, 0.0)):
            optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
            theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, 0.3, patience, threshold,
                                                                min_lr=min_lr)
            ours = schedules.reduce_on_plateau(0.1, metric, 0.3, patience, threshold, min_lr)
            for t, value in enumerate(np.exp(rng.normal(size=200).cumsum() * 0.05)):
                ours.observe({metric: float(value)})
                theirs.step(float(value))
                assert ours(t) == optimizer.param_groups[0]["lr"], (mode, threshold, t)
            assert ours(0) < 0.1


def test_the_plateau_goes_on_after_a_restart():
    values = np.random.default_rng(1).uniform(size=40).round(2).tolist()
    whole = watched(values, patience=2, factor=0.7, min_lr=0)
    first = schedules.reduce_on_plateau(1.0, patience=2, factor=0.7, min_lr=0)
    assert first.state() == {"lr": 1.0, "best": None, "bad_epochs": 0}
    for value in values[:17]:
        first.observe({"validation_loss": value})
    again = schedules.from_settings(first.name, json.loads(json.dumps(first.settings)))
    assert again(0) == 1.0
    again.load_state(json.loads(json.dumps(first.state(), allow_nan=False)))
    found = [again(0)]
    for value in values[17:]:
        again.observe({"validation_loss": value})
        found.append(again(0))
    assert found == whole[17:] and again.state() != first.state()


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s.observe({"epoch": 1, "train_loss": 2.0, "note": "x"}),
     "reduce_on_plateau: the record has no 'validation_loss'; it has epoch, train_loss"),
    (lambda s: s.observe({"validation_loss": None, "epoch": 1}),
     "reduce_on_plateau: the record has no 'validation_loss'; it has epoch"),
    (lambda s: s.load_state({}), "reduce_on_plateau: a state has lr, best, bad_epochs, but this has nothing"),
    (lambda s: s.load_state({"lr": 1, "worst": 2}), "reduce_on_plateau: a state has lr, best, bad_epochs, but this has "
                                                    "lr, worst"),
    (lambda s: s.load_state({"lr": math.nan, "best": 1, "bad_epochs": 0}),
     "reduce_on_plateau: lr of the state must be a positive number but is nan"),
    (lambda s: s.load_state({"lr": 1, "best": "x", "bad_epochs": 0}),
     "reduce_on_plateau: a state has a rate, the best figure and a number of epochs, but this has 1, x, 0"),
])
def test_a_plateau_says_what_it_cannot_use(change, message):
    schedule = schedules.reduce_on_plateau(0.1)
    before = schedule.state()
    with pytest.raises(ValueError) as caught:
        change(schedule)
    assert str(caught.value) == message and schedule.state() == before


def test_a_step_takes_the_rate_that_the_plateau_has_now():
    schedule = schedules.reduce_on_plateau(0.5, patience=0, factor=0.5)
    model = fn.Sequential([fn.Linear(3, 2)], dtype="float64")
    step = fn.TrainStep(model, fn.SGD(), schedule)
    x, labels = np.ones((4, 3)), np.array([0, 1, 1, 1])
    for expected in (0.5, 0.5, 0.25):
        before, (_, gradients) = model.state(), fn.loss_and_gradients(model, x, labels)
        step(x, labels)
        np.testing.assert_allclose(before["linear1.w"] - model.state()["linear1.w"], expected * gradients["linear1.w"],
                                   rtol=1e-12)
        schedule.observe({"validation_loss": 1.0})


# --- settings and errors ---

EXAMPLES = [
    schedules.constant(0.1), schedules.triangular(1e-4, 0.2, half_cycle_steps=7),
    schedules.exponential(0.1, 0.9, unit="epoch", steps_per_epoch=5),
    schedules.step_decay(0.1, 0.5, 3, unit="step"),
    schedules.step_decay(0.1, 0.5, (2, 5), unit="epoch", steps_per_epoch=4),
    schedules.cosine(0.1, steps=20, floor=0.01), schedules.one_cycle(0.1, steps=20, rise=0.3, start=0.2, end=0.01),
    schedules.warmup_linear(0.1, warmup_steps=5, steps=20),
    schedules.reduce_on_plateau(0.1, "train_cost", 0.5, 3, 1e-3, 1e-5),
]


def test_there_is_an_example_of_every_schedule():
    assert {schedule.name for schedule in EXAMPLES} == set(schedules.SCHEDULES)


@pytest.mark.parametrize("schedule", EXAMPLES, ids=lambda s: s.name)
def test_name_and_settings_make_the_schedule_again(schedule):
    again = schedules.from_settings(schedule.name, json.loads(json.dumps(schedule.settings)))
    assert isinstance(schedule, Schedule) and type(again) is type(schedule)
    assert rates(again, 40) == rates(schedule, 40) and all(rate >= 0 for rate in rates(schedule, 40))
    assert again.settings == schedule.settings and repr(again) == repr(schedule)
    assert repr(schedule).startswith(f"{schedule.name}(lr")


@pytest.mark.parametrize(("make", "message"), [
    (lambda: schedules.step_decay(0, 0.1, 2, unit="step"), "step_decay: lr must be a positive number but is 0"),
    (lambda: schedules.step_decay(1, -1, 2, unit="step"), "step_decay: factor must be a positive number but is -1"),
    (lambda: schedules.step_decay(1, 0.1, 2, unit="day"), "step_decay: unit must be 'step' or 'epoch' but is 'day'"),
    (lambda: schedules.step_decay(1, 0.1, 2, unit="epoch"), "step_decay: unit='epoch' needs steps_per_epoch"),
    (lambda: schedules.step_decay(1, 0.1, 2, unit="epoch", steps_per_epoch=0),
     "step_decay: steps_per_epoch must be a positive number but is 0"),
    *((lambda every=every: schedules.step_decay(1, 0.1, every, unit="step"),
       f"step_decay: every must be a whole number of at least 1 or a rising list of such but is {every}")
      for every in (0, -1, 2.5, [], [0, 3], [3, 2], [3, 3], [1.5], True)),
    (lambda: schedules.cosine(0, steps=3), "cosine: lr must be a positive number but is 0"),
    (lambda: schedules.cosine(1, steps=0), "cosine: steps must be a positive number but is 0"),
    (lambda: schedules.cosine(1, steps=3, floor=-1), "cosine: floor must be a number of at least 0 but is -1"),
    (lambda: schedules.cosine(1, steps=3, floor=2), "cosine: floor (2) is larger than lr (1)"),
    (lambda: schedules.one_cycle(math.inf, steps=3), "one_cycle: lr must be a positive number but is inf"),
    (lambda: schedules.one_cycle(1, steps=-3), "one_cycle: steps must be a positive number but is -3"),
    (lambda: schedules.one_cycle(1, steps=3, rise=0.6),
     "one_cycle: rise must be at most 0.5 (up and down are equally long) but is 0.6"),
    (lambda: schedules.one_cycle(1, steps=3, rise=0), "one_cycle: rise must be a positive number but is 0"),
    (lambda: schedules.one_cycle(1, steps=3, start=2), "one_cycle: end <= start <= 1 is needed, but start is 2 and end "
                                                       "is 0.001"),
    (lambda: schedules.one_cycle(1, steps=3, end=0.5), "one_cycle: end <= start <= 1 is needed, but start is 0.1 and "
                                                       "end is 0.5"),
    (lambda: schedules.one_cycle(1, steps=3, end=-1), "one_cycle: end must be a number of at least 0 but is -1"),
    (lambda: schedules.warmup_linear(-1, warmup_steps=1, steps=3), "warmup_linear: lr must be a positive number but is "
                                                                   "-1"),
    (lambda: schedules.warmup_linear(1, warmup_steps=-1, steps=3), "warmup_linear: warmup_steps must be a number of at "
                                                                   "least 0 but is -1"),
    (lambda: schedules.warmup_linear(1, warmup_steps=3, steps=3), "warmup_linear: warmup_steps (3) must be below steps "
                                                                  "(3)"),
    (lambda: schedules.reduce_on_plateau(0), "reduce_on_plateau: lr must be a positive number but is 0"),
    (lambda: schedules.reduce_on_plateau(1, factor=1), "reduce_on_plateau: factor must be below 1 but is 1"),
    (lambda: schedules.reduce_on_plateau(1, factor=0), "reduce_on_plateau: factor must be a positive number but is 0"),
    (lambda: schedules.reduce_on_plateau(1, patience=-1), "reduce_on_plateau: patience must be a number of at least 0 "
                                                          "but is -1"),
    (lambda: schedules.reduce_on_plateau(1, threshold=-1), "reduce_on_plateau: threshold must be a number of at least "
                                                           "0 but is -1"),
    (lambda: schedules.reduce_on_plateau(1e-7), "reduce_on_plateau: min_lr (1e-06) is larger than lr (1e-07)"),
    (lambda: schedules.reduce_on_plateau(1, "test_loss"), "reduce_on_plateau: metric must be a validation or training "
                                                          "figure but is 'test_loss'"),
])
def test_schedules_say_what_is_out_of_range(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == message


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="schedule 'cos' is not known; choose from constant, triangular, exponential, "
                                         "step_decay, cosine, one_cycle, warmup_linear, reduce_on_plateau"):
        schedules.from_settings("cos", {})
