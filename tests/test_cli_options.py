"""Options of the command line become the right objects, and one that belongs to another is refused by name."""

import argparse
import json
from pathlib import Path

import pytest
from tiny import dataset

import fastnet as fn
from fastnet import cli, cli_options
from fastnet.nn.models import Settings, entry

SGD, ADAM, PLATEAU, STEPS = (entry(name).settings for name in ("mlp3", "mlp7", "resnet18", "resnet20"))


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    for add in (cli_options.add_optimizer, cli_options.add_schedule, cli_options.add_penalty,
                cli_options.add_augmentation):
        add(parser)
    return parser.parse_args([str(a) for a in arguments])


@pytest.mark.parametrize(("arguments", "settings", "expected"), [
    ([], SGD, fn.SGD(0.1)),
    ([], ADAM, fn.Adam(2e-3)),
    (["--momentum", 0.9, "--nesterov"], SGD, fn.SGD(0.1, momentum=0.9, nesterov=True)),
    (["--optimizer", "adam"], SGD, fn.Adam()),  # its own rate, not that of the model's optimizer
    (["--optimizer", "adamw", "--lr", 0.01, "--beta2", 0.99], SGD, fn.AdamW(0.01, beta2=0.99)),
    (["--optimizer", "rmsprop", "--alpha", 0.9, "--eps-mode", "inside"], SGD, fn.RMSprop(alpha=0.9, eps_mode="inside")),
    (["--optimizer", "adadelta", "--rho", 0.9], SGD, fn.Adadelta(rho=0.9)),
    (["--optimizer", "adagrad", "--initial", 0.1], SGD, fn.Adagrad(initial=0.1)),
])
def test_optimizers(arguments, settings, expected):
    made = cli_options.optimizer(parsed(*arguments), settings)
    assert (made.name, made.settings()) == (expected.name, expected.settings())


@pytest.mark.parametrize(("arguments", "settings", "expected"), [
    ([], SGD, fn.schedules.triangular(1e-5, 0.1, half_cycle_steps=50)),
    ([], ADAM, fn.schedules.exponential(0.1, 0.995, unit="epoch", steps_per_epoch=10)),
    (["--optimizer", "adam"], SGD, fn.schedules.constant(0.1)),
    (["--schedule", "constant"], SGD, fn.schedules.constant(0.1)),
    (["--half-cycle-epochs", 2.5, "--lr-min", 0.01], SGD, fn.schedules.triangular(0.01, 0.1, half_cycle_steps=25)),
    (["--schedule", "exponential", "--decay", 0.9], SGD,
     fn.schedules.exponential(0.1, 0.9, unit="epoch", steps_per_epoch=10)),
    (["--schedule", "step_decay"], SGD, fn.schedules.step_decay(0.1, 0.1, 25, unit="epoch", steps_per_epoch=10)),
    (["--schedule", "step_decay", "--every", "25,", "--factor", 0.5], SGD,
     fn.schedules.step_decay(0.1, 0.5, [25], unit="epoch", steps_per_epoch=10)),
    (["--schedule", "step_decay", "--every", "60,120"], SGD,
     fn.schedules.step_decay(0.1, 0.1, [60, 120], unit="epoch", steps_per_epoch=10)),
    (["--schedule", "cosine", "--lr-min", 0.001], SGD, fn.schedules.cosine(0.1, steps=200, floor=0.001)),
    (["--schedule", "one_cycle"], SGD, fn.schedules.one_cycle(0.1, steps=200)),
    (["--schedule", "warmup_linear", "--warmup-epochs", 3], SGD,
     fn.schedules.warmup_linear(0.1, warmup_steps=30, steps=200)),
    ([], PLATEAU, fn.schedules.SCHEDULES["reduce_on_plateau"](0.1, factor=0.1, patience=5, min_lr=1e-6)),
    (["--patience", 2, "--lr-min", 1e-3], PLATEAU,
     fn.schedules.SCHEDULES["reduce_on_plateau"](0.1, factor=0.1, patience=2, min_lr=1e-3)),
    ([], STEPS, fn.schedules.step_decay(0.1, 0.1, [25], unit="epoch", steps_per_epoch=10)),
    ([], entry("lenet5").settings, fn.schedules.constant(0.1)),
    (["--schedule", "reduce_on_plateau", "--patience", 2, "--metric", "train_loss"], SGD,
     fn.schedules.SCHEDULES["reduce_on_plateau"](0.1, metric="train_loss", patience=2, factor=0.1)),
])
def test_schedules(arguments, settings, expected):
    made = cli_options.schedule(parsed(*arguments), settings, 0.1, 20, 10)
    assert (made.name, made.settings) == (expected.name, expected.settings)


def test_penalties_add_up():
    def settings(*arguments):
        return [p.settings() for p in cli_options.penalties(parsed(*arguments), SGD)]

    assert settings() == [fn.L2(0.005).settings()]
    assert settings("--l2", 0) == [fn.L2(0).settings()]
    assert settings("--l2", 0.1, "--l1", 0.2) == [fn.L2(0.1).settings(), fn.L1(0.2).settings()]
    assert settings("--l1", 0.2, "--proximal") == [fn.L1(0.2, proximal=True).settings()]
    assert settings("--weight-decay", 0.1, "--decoupled-decay", 0.3) == [fn.WeightDecay(0.1).settings(),
                                                                         fn.DecoupledDecay(0.3).settings()]


def test_augmentation_and_rates():
    assert cli_options.augmentation(parsed(), SGD) is None
    both = fn.data.Augmentation(pad=4, horizontal_flip=True)
    assert cli_options.augmentation(parsed("--crop", 4, "--flip"), SGD) == both
    assert cli_options.augmentation(parsed("--resized-crop", 0.5, 1, "--vertical-flip", "--cutout", 8), SGD) == \
        fn.data.Augmentation(resized_crop=(0.5, 1.0), vertical_flip=True, cutout=8)
    assert cli_options.augmentation(parsed(), PLATEAU) == both  # the model's own
    assert cli_options.augmentation(parsed("--crop", 2, "--no-flip"), PLATEAU) == fn.data.Augmentation(pad=2)
    assert cli_options.augmentation(parsed("--crop", 0, "--no-flip"), PLATEAU) is None
    assert cli_options.rates(parsed("--rate", "linear1.*=0.1", "--rate", "*.b=2")) == {"linear1.*": 0.1, "*.b": 2.0}


@pytest.mark.parametrize(("make", "arguments", "message"), [
    (cli_options.optimizer, ["--optimizer", "adam", "--momentum", 0.9],
     "--momentum does not belong to adam, which takes --beta1, --beta2, --eps, --eps-mode"),
    (cli_options.optimizer, ["--beta1", 0.5, "--rho", 0.5],
     "--beta1, --rho does not belong to sgd, which takes --momentum, --nesterov"),
    (cli_options.penalties, ["--proximal"], "--proximal needs --l1"),
])
def test_options_of_another(make, arguments, message):
    with pytest.raises(ValueError) as caught:
        make(parsed(*arguments), SGD)
    assert message in str(caught.value)


@pytest.mark.parametrize(("arguments", "lr", "message"), [
    (["--patience", 3], 0.1, "--patience does not belong to triangular"),
    (["--schedule", "constant", "--decay", 0.9], 0.1,
     "--decay does not belong to constant, which takes none of its own"),
    (["--schedule", "step_decay", "--every", "often"], 0.1, "--every 'often' is no number of epochs"),
    (["--schedule", "warmup_linear", "--warmup-epochs", -1], 0.1,
     "--warmup-epochs must be a positive number but is -1"),
    (["--schedule", "cosine"], None, "--schedule cosine needs --lr"),
])
def test_schedules_that_cannot_be(arguments, lr, message):
    with pytest.raises(ValueError) as caught:
        cli_options.schedule(parsed(*arguments), Settings(""), lr, 20, 10)
    assert message in str(caught.value)


def test_a_rate_that_is_none():
    with pytest.raises(ValueError, match="--rate 'linear1' is not PATTERN=FACTOR"):
        cli_options.rates(parsed("--rate", "linear1"))


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastnet.data.load", lambda *_, **__: dataset())

    def call(*arguments):
        status = cli.main([str(a) for a in arguments])
        return status, *capsys.readouterr()
    return call


def test_train_takes_the_whole_toolbox_and_records_it(run):
    status, out, err = run("train", "mlp3-bn", "--epochs", 3, "--batch-size", 20, "--optimizer", "adamw", "--schedule",
                           "cosine", "--lr", 0.01, "--l1", 1e-3, "--crop", 1, "--flip", "--accumulate", 2, "--average",
                           0.9, "--early-stopping", 2, "--stop-metric", "validation_accuracy", "--rate",
                           "linear1.*=0.5", "--label-smoothing", 0.1, "--out", "run")
    assert status == 0 and err == "" and "best epoch" in out
    config = json.loads(Path("run/config.json").read_text())
    assert config["optimizer"]["name"] == "adamw" and config["schedule"]["name"] == "cosine"
    assert config["augmentation"]["pad"] == 1 and config["rates"] == {"linear1.*": 0.5} and config["average"] == 0.9
    assert config["early_stopping"]["patience"] == 2 and config["accumulate"] == 2
    assert config["loss"] == {"name": "softmax_cross_entropy", "label_smoothing": 0.1}


def test_lr_range(run):
    status, out, err = run("lr-range", "mlp3", "--steps", 30, "--batch-size", 20, "--lr-max", 1)
    assert status == 0 and err == "" and "suggestion for a largest rate" in out
    assert Path("runs/lr-range-mlp3-cifar10-1.png").read_bytes().startswith(b"\x89PNG")


def test_plot_a_schedule(run):
    assert run("plot", "--schedule", "cosine", "--lr", 0.1, "--out", "c.png")[0] == 0
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")
    for arguments, message in ((["--schedule", "cosine"], "needs --lr"), ([], "a run directory is needed"),
                               (["runs", "--schedule", "cosine"], "not both"),
                               (["--schedule", "cosine", "--lr", 1, "--epochs", 0], "must be at least 1")):
        status, _, err = run("plot", *arguments)
        assert status == 2 and message in err and err.count("\n") == 1


def test_the_range_test_raises_the_rate_and_leaves_the_model_alone():
    model = fn.Sequential([fn.Linear(192, 10), fn.BatchNorm(10)], seed=1)
    before = model.state()
    found = fn.lr_range_test(model, dataset(), fn.SGD(), lr_min=1e-4, lr_max=1e-1, steps=31, batch_size=20)
    assert found.rates == pytest.approx([1e-4 * 10 ** (t / 10) for t in range(31)])
    assert len(found.losses) == len(found.smoothed) == 31 and found.smoothed[0] == pytest.approx(found.losses[0])
    assert found.suggestion == found.rates[found.smoothed.index(min(found.smoothed))] / 10
    assert all((before[name] == value).all() for name, value in model.state().items())


@pytest.mark.filterwarnings("ignore:overflow")
def test_the_range_test_ends_where_the_loss_breaks_away():
    model = fn.Sequential([fn.Linear(192, 50), fn.ReLU(), fn.Linear(50, 10)], seed=1)
    found = fn.lr_range_test(model, dataset(), fn.SGD(), lr_min=3, lr_max=1e6, steps=100, batch_size=20)
    assert len(found.losses) < 100
    without_end = fn.lr_range_test(model, dataset(), fn.SGD(), lr_min=1e30, lr_max=1e38, steps=10, batch_size=20)
    assert len(without_end.losses) < 10
    for wrong in ({"steps": 1}, {"lr_min": 1.0, "lr_max": 0.1}):
        with pytest.raises(ValueError, match="lr_range_test"):
            fn.lr_range_test(model, dataset(), fn.SGD(), **wrong)
