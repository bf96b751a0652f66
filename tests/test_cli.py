"""The command line: what each command prints and writes, and one line for whatever cannot be done."""

import io
import json
import os
import runpy
import subprocess
import sys
from functools import partial
from importlib import metadata, util
from pathlib import Path

import numpy as np
import pytest
from tiny import dataset

import fastnet as fn
from fastnet import cli, environment
from fastnet.data import cifar10
from fastnet.data.cifar10_files import Location
from fastnet.nn.models import entry

SHAPE = (32, 32, 3)


@pytest.fixture
def tiny_data(monkeypatch, tmp_path):
    """Training takes 100 small-scale images instead of a data set; returns the arguments that asked for it."""
    asked = []

    def load(name, data_dir=None, **options):
        asked.append((name, data_dir, options))
        return dataset(100, 20, 30, SHAPE)

    monkeypatch.setattr("fastnet.data.load", load)
    monkeypatch.chdir(tmp_path)
    return asked


def one_line(err):
    return err.endswith("\n") and err.count("\n") == 1 and err.startswith("fastnet")


# --- listing ---

def test_models(run):
    status, out, err = run("models")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0].split()[:3] == ["model", "parameters", "MACs"]
    assert [line.split()[0] for line in lines[2:]] == list(fn.MODELS)
    assert lines[4].split()[:3] == ["mlp3-bn", "156,910", "156,600"]
    assert "R2, E06-E09" in lines[4] and "batch norm" in lines[4]


def test_summary(run):
    status, out, _ = run("summary", "mlp3-bn", "--batch-size", 50)
    assert status == 0
    assert "batch_norm1" in out and "153,650" in out and "batch of 50: 0.032 GFLOP a step" in out
    last = out.splitlines()[-2:]
    assert last[0] == "peak memory of a training step, predicted: 2.6 MiB, in linear1 to linear3 both ways"
    assert last[1].startswith("(parameters, gradients and optimizer state 1.8 MiB, batch 0.6, kept for backward 0.")


def test_summary_without_numba(run, monkeypatch):
    found = fn.backend.module
    monkeypatch.setattr(fn.backend, "module", lambda kind, name: None if kind == "cpu" else found(kind, name))
    status, out, err = run("summary", "mlp2")
    assert (status, err) == (0, "") and out.splitlines()[-1].startswith("peak memory of a training step: not known")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--input", "3x32x32"], "is it CHANNELSxHEIGHTxWIDTH? Channels come last here: 32x32x3"),
    (["--input", "32x32"], "--input '32x32' is not HEIGHTxWIDTHxCHANNELS, such as 32x32x3"),
    (["--input", "32x0x3"], "sizes must be at least 1"),
    (["--input", "0x3"], "--input '0x3' is not HEIGHTxWIDTHxCHANNELS, such as 32x32x3"),
    (["--input", "abc"], "--input 'abc' is not HEIGHTxWIDTHxCHANNELS, such as 32x32x3"),
    (["--input", "4x4x3"], "conv1: Conv2d: the kernel covers 5 places, more than the padded input's 4"),
    (["--option", "depth=3"], "lenet5 got an unexpected keyword argument 'depth'"),
    (["--option", "depth"], "--option 'depth' is not NAME=VALUE, such as filter_multiplier=0.5"),
    (["--option", "pooling=min"], "pooling 'min' is not known; choose from max, avg"),
    (["--option", "filter_multiplier=0"], "filter_multiplier must be a positive number but is 0"),
    (["--batch-size", "0"], "--batch-size must be at least 1 but is 0"),
])
def test_summaries_that_cannot_be(run, arguments, message):
    status, out, err = run("summary", "lenet5", *arguments)
    assert (status, out) == (2, "") and message in err and one_line(err)


def test_summary_of_other_images_and_options(run):
    status, out, _ = run("summary", "resnet18", "--input", "64x64x1", "--option", "filter_multiplier=2", "--option",
                         "shortcut=zero_pad")
    assert status == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["conv1"][:3] == ["Conv2d", "64x64x128", f"{9 * 128:,}"]
    assert rows["layer4.1.conv2"][1] == "8x8x1024" and rows["layer2.0.downsample"][0] == "ZeroPadShortcut"
    assert run("summary", "mlp2", "--input", "28x28x1")[1].splitlines()[2].split()[3] == "39,250"


def test_version(run):
    assert run("--version") == (0, f"fastnet {metadata.version('fastnet')}\n", "")
    assert metadata.version("fastnet") == fn.__version__


def test_help_names_every_command(run):
    status, out, _ = run("--help")
    assert status == 0
    assert all(name in out for name in ("train", "check", "models", "summary", "plot", "data", "env"))


# --- environment ---

def test_env(run):
    status, out, _ = run("env")
    rows = dict(line.split(None, 1) for line in out.splitlines())
    assert status == 0
    assert rows["fastnet"] == fn.__version__ and rows["numpy"] == np.__version__
    assert "one thread inside fastnet" in out and "cpu (Numba)" in out and "kernel cache" in out and "GPU" in rows


def test_env_without_numba(run, monkeypatch):
    find_spec = util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "numba" else find_spec(name))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    _, out, _ = run("env")
    assert "reference (no Numba)" in out and "kernel cache" not in out
    assert f"cores                {os.cpu_count()}\n" in out


def test_cupy_is_found_under_its_wheels_names(monkeypatch):
    def version(name):
        if name in ("cupy-cuda13x", "torch"):
            return "14.0"
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", version)
    assert [environment._version(name) for name in ("cupy", "torch", "numba-cuda")] == ["14.0", "14.0", None]


# --- data ---

def test_data_path(run, monkeypatch, tmp_path):
    monkeypatch.setattr(cifar10, "locate", lambda place: Location("python", False, tmp_path / str(place)))
    assert run("data", "--data-dir", "here") == (0, f"{tmp_path / 'here'}\n", "")
    assert run("data", "path", "--data-dir", "here")[0] == 0
    monkeypatch.setattr(cifar10, "locate", lambda place: None)
    status, out, err = run("data")
    assert (status, out) == (2, "") and "'fastnet data download' fetches it" in err and one_line(err)


def test_data_download(run, monkeypatch, tmp_path):
    monkeypatch.setattr(cifar10, "download", lambda place: Location("python", True, tmp_path / "archive.tar.gz"))
    assert run("data", "download") == (0, f"{tmp_path / 'archive.tar.gz'}\n", "")


def test_data_verify(run, monkeypatch):
    good = cifar10.FileCheck("test_batch", 30_730_000, "0" * 32, "official", True)
    monkeypatch.setattr(cifar10, "verify", lambda place: [good])
    status, out, _ = run("data", "verify")
    assert status == 0
    assert out.splitlines()[2].split() == ["test_batch", "30,730,000", "0" * 32, "official"]
    monkeypatch.setattr(cifar10, "verify", lambda place: [good, good._replace(verdict="missing", good=False)])
    assert run("data", "verify")[0] == 1


def test_data_verify_without_data(run, monkeypatch):
    monkeypatch.setattr(cifar10, "verify", lambda place: [])
    status, out, err = run("data", "verify")
    assert (status, out) == (2, "") and "'fastnet data download' fetches it" in err and one_line(err)


# --- gradient checks ---

def test_check_of_an_op(run):
    status, out, err = run("check", "relu", "--seed", 3)
    lines = out.splitlines()
    assert (status, err) == (0, "")
    rows = [line.split() for line in lines[2:-1]]
    assert {(row[0], row[1], row[-1]) for row in rows} == {("relu", "cpu", "passed"), ("relu", "reference", "passed")}
    assert lines[-1].startswith(f"{len(rows)} of {len(rows)} checks passed, ")


def test_check_finds_a_broken_backward_pass(run, monkeypatch):
    from fastnet.ops import relu

    backward = relu.backward
    monkeypatch.setattr(relu, "backward", lambda dy, cache, needs=None: (-backward(dy, cache)[0],))
    status, out, err = run("check", "relu")
    assert (status, err) == (1, "")
    verdicts = {(line.split()[1], line.split()[-1]) for line in out.splitlines() if line.endswith(("passed", "FAILED"))}
    assert verdicts == {("reference", "FAILED"), ("cpu", "passed")}
    assert "relu: dx is wrong at [" in out and "backward gives" in out


def test_check_of_models(run, monkeypatch):
    quick = partial(fn.check.check_model, entries=3)
    monkeypatch.setattr("fastnet.check.catalogue.check_model", lambda *a, entries, **k: quick(*a, **k))
    status, out, _ = run("check", "mlp2", "relu")
    assert status == 0
    rows = [line.split() for line in out.splitlines()[-3:-1]]
    assert [row[:4] for row in rows] == [["mlp2", "default", "batch", "10"], ["mlp2", "default", "batch_norm", "True,"]]
    assert "relu" in out


def test_check_of_everything_takes_all_ops_and_the_catalogue(run, monkeypatch):
    checked = []

    def check_ops(names, seed, device):
        checked.append(names)
        return []

    def check_model(model, x, labels, *, entries, seed, raises):
        assert x.shape[0] == labels.shape[0] >= 3 and not raises and entries >= 2
        assert model.output_shape(x.shape[1:]) == (10,)
        return fn.check.OpReport(model.model_name, "default", failures=["it is wrong"] if seed else [])

    monkeypatch.setattr("fastnet.check.check_ops", check_ops)
    monkeypatch.setattr("fastnet.check.catalogue.check_model", check_model)
    status, out, _ = run("check")
    models = [line.split()[0] for line in out.splitlines()[2:-1]]
    assert status == 0 and out.endswith(f"{len(models)} of {len(models)} checks passed, 0 entries compared\n")
    assert checked == [None]  # all of them
    assert {"mlp9-bn", "lenet5", "lenet5-bn-swish", "vgg-a-bn", "resnet18"} <= set(models)
    assert "filter_multiplier 0.0625, activation swish, 8x8x3, batch 6" in out
    status, out, _ = run("check", "--seed", 1)
    assert status == 1 and f"0 of {len(models)} checks passed" in out and "it is wrong" in out


def test_every_model_is_in_the_catalogue():
    from fastnet.check.catalogue import CATALOGUE, NAMED_ONLY

    assert {whole.name for whole in (*CATALOGUE, *NAMED_ONLY)} == set(fn.MODELS)


# --- training ---

def test_train_on_shapes10(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("train", "mlp3-bn", "--data", "shapes10", "--epochs", 1, "--split", "3000/200",
                           "--half-cycle-epochs", 0.5)
    assert (status, err) == (0, "")
    folder = tmp_path / "runs" / "mlp3-bn-shapes10-1"
    result = json.loads((folder / "result.json").read_text())
    assert result["test_accuracy"] > 0.15 and result["data"]["name"] == "shapes10"  # guessing gives 0.1
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "config.json").read_text())["penalty"] == {"name": "L2", "decay": 0.01}
    lines = out.splitlines()
    assert lines[0] == ("mlp3-bn: 156,910 parameters, 3,000 training images of shapes10, 30 steps an epoch -> "
                        "runs/mlp3-bn-shapes10-1")
    assert lines[-1].startswith(f"test accuracy {100 * result['test_accuracy']:.2f} %, test loss ")


def test_the_reports_settings_are_the_defaults(run, tiny_data):
    assert run("train", "mlp2", "--epochs", 1, "--out", "a")[0] == 0
    config = json.loads(Path("a/config.json").read_text())
    assert tiny_data == [("cifar10", None, {"order": "random", "seed": 0, "split": "49000/1000",
                                             "image_size": 32})]
    assert config["batch_size"] == 100 and config["normalization"] == "pixel" and config["seed"] == 0
    assert config["optimizer"] == {"name": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": False}
    assert config["schedule"]["settings"] == {"lr_min": 1e-5, "lr_max": 0.1, "half_cycle_steps": 4}
    assert config["penalty"] == {"name": "L2", "decay": 0.0054}
    assert run("train", "mlp7", "--epochs", 1, "--batch-size", 50, "--out", "b")[0] == 0
    config = json.loads(Path("b/config.json").read_text())
    assert config["optimizer"] == {"name": "adam", "lr": 0.002, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8,
                                   "eps_mode": "outside"}
    assert config["schedule"] == {"name": "exponential", "settings": {"lr": 0.002, "decay": 0.995, "unit": "epoch",
                                                                      "steps_per_epoch": 2}}


def test_the_reports_settings_of_convolutional_models(run, tiny_data):
    few = ("--epochs", 1, "--batch-size", 50)  # 128 images a step are more than there are
    assert entry("lenet5").settings.batch_size == entry("resnet18").settings.batch_size == 128
    assert run("train", "lenet5", *few, "--out", "a")[0] == 0
    config = json.loads(Path("a/config.json").read_text())
    assert tiny_data == [("cifar10", None, {"order": "random", "seed": 0, "split": "45000/5000", "image_size": 32})]
    assert config["normalization"] == "channel" and config["augmentation"] is None
    assert config["optimizer"] == {"name": "sgd", "lr": 0.005, "momentum": 0.9, "nesterov": False}
    assert config["schedule"] == {"name": "constant", "settings": {"lr": 0.005}}
    assert config["penalty"] == {"name": "L2", "decay": 2e-4}
    assert run("train", "resnet18", *few, "--option", "filter_multiplier=0.0625", "--out", "b")[0] == 0
    config = json.loads(Path("b/config.json").read_text())
    assert config["model"]["options"] == {"blocks": [2, 2, 2, 2], "filter_multiplier": 0.0625}
    assert config["schedule"] == {"name": "reduce_on_plateau", "settings": {
        "lr": 0.01, "metric": "validation_loss", "factor": 0.1, "patience": 5, "threshold": 1e-4, "min_lr": 1e-6}}
    assert config["penalty"] == {"name": "L2", "decay": 5e-4}  # the report's weight decay
    assert (config["augmentation"]["pad"], config["augmentation"]["horizontal_flip"]) == (4, True)


def test_options_reach_the_run(run, tiny_data):
    status, _, _ = run("train", "mlp2", "--data", "shapes10", "--data-dir", "d", "--split", "80/20", "--order", "file",
                       "--epochs", 1, "--batch-size", 30, "--seed", 4, "--dtype", "float64", "--threads", 1, "--out",
                       "a", "--optimizer", "sgd", "--lr", 0.02, "--momentum", 0.5, "--nesterov", "--schedule",
                       "constant", "--weight-decay", 0.25, "--loss", "softmax_cross_entropy", "--label-smoothing", 0.1,
                       "--normalization", "channel", "--init", "normal:0.01", "--activation", "gelu", "--norm-after")
    assert status == 0
    assert tiny_data == [("shapes10", Path("d"), {"order": "file", "seed": 4, "split": "80/20", "image_size": 32})]
    config = json.loads(Path("a/config.json").read_text())
    assert config["optimizer"] == {"name": "sgd", "lr": 0.02, "momentum": 0.5, "nesterov": True}
    assert config["schedule"] == {"name": "constant", "settings": {"lr": 0.02}}
    assert config["penalty"] == {"name": "WeightDecay", "decay": 0.25}
    assert config["loss"] == {"name": "softmax_cross_entropy", "label_smoothing": 0.1}
    assert (config["batch_size"], config["seed"], config["normalization"]) == (30, 4, "channel")
    model = config["model"]
    assert (model["dtype"], model["seed"]) == ("float64", 4)
    assert model["options"] == {"hidden": [50], "init": "normal:0.01", "activation": "gelu", "norm_after": True}


def test_the_reports_split_is_that_of_cifar10_only(run, tiny_data):
    assert run("train", "mlp2", "--data", "shapes10", "--epochs", 1, "--out", "a")[0] == 0
    assert tiny_data == [("shapes10", None, {"order": "random", "seed": 0, "split": None, "image_size": 32})]


def test_triangular_lengths_are_in_epochs(run, tiny_data):
    assert run("train", "mlp3", "--epochs", 1, "--batch-size", 25, "--half-cycle-epochs", 1.5, "--lr-min", 0.01, "--lr",
               0.04, "--l2", 0, "--out", "a")[0] == 0
    config = json.loads(Path("a/config.json").read_text())
    assert config["schedule"]["settings"] == {"lr_min": 0.01, "lr_max": 0.04, "half_cycle_steps": 6}
    assert config["penalty"]["decay"] == 0


def test_a_notice_about_the_data_is_printed(run, monkeypatch, tmp_path):
    data = dataset(100, 20, 30, SHAPE)
    data.identity["notice"] = "these are not the official files"
    monkeypatch.setattr("fastnet.data.load", lambda *a, **k: data)
    _, out, _ = run("train", "mlp2", "--epochs", 1, "--out", tmp_path / "a")
    assert out.splitlines()[0] == "these are not the official files"


def test_default_directories_are_numbered(run, tiny_data):
    for _ in range(2):
        assert run("train", "mlp2", "--epochs", 1)[0] == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == ["mlp2-cifar10-1", "mlp2-cifar10-2"]


def test_resume(run, tiny_data):
    assert run("train", "mlp2", "--epochs", 1, "--out", "parts")[0] == 0
    status, out, _ = run("train", "mlp2", "--epochs", 2, "--out", "parts", "--resume")
    assert status == 0 and "resumed at step 1 (epoch 2)" in out
    run("train", "mlp2", "--epochs", 2, "--out", "whole")
    results = [json.loads(Path(name, "result.json").read_text()) for name in ("parts", "whole")]
    assert results[0]["test_loss"] == results[1]["test_loss"] and results[0]["epochs"] == 2
    status, _, err = run("train", "mlp2", "--epochs", 2, "--out", "parts", "--resume", "--lr", 0.5)
    assert status == 2 and one_line(err) and "schedule.settings.lr_max was 0.1, now 0.5" in err


def test_interrupted_runs_say_how_to_go_on(run, tiny_data, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    assert run("train", "mlp2", "--epochs", 1, "--out", "a")[0] == 0
    monkeypatch.setattr("fastnet.train.loop.fit", interrupt)
    status, _, err = run("train", "mlp2", "--epochs", 2, "--out", "a", "--resume")
    assert (status, err) == (130, "\ninterrupted; continue with --resume --out a\n")
    assert run("train", "mlp2", "--out", "b")[::2] == (130, "\ninterrupted\n")  # nothing was saved
    monkeypatch.setattr("fastnet.environment.describe", interrupt)
    assert run("env") == (130, "", "\ninterrupted\n")


def test_plot(run, tiny_data):
    run("train", "mlp2", "--epochs", 1, "--out", "a")
    Path("a/curves.png").unlink()
    Path("a/checkpoint.safetensors").unlink()
    assert run("plot", "a") == (0, f"{Path('a/curves.png')}\n", "")
    assert Path("a/curves.png").read_bytes().startswith(b"\x89PNG")


# --- what cannot be done: status 2, one line, nothing written ---

@pytest.mark.parametrize(("arguments", "message"), [
    ([], "the following arguments are required: COMMAND"),
    (["fit"], "invalid choice: 'fit'"),
    (["train"], "the following arguments are required: MODEL"),
    (["train", "mlp2", "--epoch", "x"], "argument --epochs: invalid int value: 'x'"),
    (["train", "mlp2", "--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
    (["train", "mlp2", "--colour", "red"], "unrecognized arguments: --colour red"),
    (["train", "mlp2", "--optimizer", "lion"], "argument --optimizer: invalid choice: 'lion'"),
    (["summary"], "the following arguments are required: MODEL"),
    (["models", "--all"], "unrecognized arguments: --all"),
])
def test_bad_usage(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert one_line(err) and message in err and "--help" in err


@pytest.mark.parametrize(("arguments", "message"), [
    (["resnet"], "fastnet train: model 'resnet' is not known; choose from mlp2, "),
    (["mlp2", "--activation", "step"], "activation 'step' is not known; choose from relu, "),
    (["mlp2", "--init", "he"], "initializers: 'he' is not known"),
    (["mlp2", "--epochs", 0], "epochs must be at least 1 but is 0"),
    (["mlp2", "--batch-size", 101], "batch size 101 is larger than the 100 training images"),
    (["mlp2", "--batch-size", 0], "batch size 0 is not at least 1"),
    (["mlp2", "--batch-size", -5], "batch size -5 is not at least 1"),
    (["mlp2", "--dtype", "float16"], "--dtype float16 is for GPUs: no kernel for the CPU takes it"),
    (["mlp2", "--threads", 0], "--threads must be in 1.."),
    (["mlp2", "--threads", 100_000], "on this machine but is 100000"),
    (["mlp2", "--resume"], "--resume needs --out, the directory of the run to continue"),
    (["mlp2", "--resume", "--out", "absent"], "--resume: there is no checkpoint.safetensors in absent"),
    (["mlp2", "--out", "file"], "the output folder file cannot be written (File exists)"),
    (["mlp2", "--out", "file/below"], "the output folder file/below cannot be written (Not a directory)"),
    (["mlp2", "--out", "full"], "full holds files already"),
    (["mlp2", "--lr", 0], "the learning rate must be a positive number but is 0.0"),
    (["mlp2", "--lr", "nan"], "the learning rate must be a positive number but is nan"),
    (["mlp2", "--momentum", 1], "momentum must be in [0, 1) but is 1.0"),
    (["mlp2", "--nesterov"], "Nesterov's form needs a momentum above 0"),
    (["mlp7", "--beta1", 2], "beta1 must be in [0, 1) but is 2.0"),
    (["mlp2", "--lr-min", 1], "lr_min (1.0) is larger than lr_max (0.1)"),
    (["mlp2", "--half-cycle-epochs", 0], "--half-cycle-epochs must be a positive number but is 0.0"),
    (["mlp2", "--half-cycle-epochs", -2], "--half-cycle-epochs must be a positive number but is -2.0"),
    (["mlp2", "--half-cycle-epochs", "inf"], "--half-cycle-epochs must be a positive number but is inf"),
    (["mlp7", "--decay", 0], "exponential: decay must be a positive number but is 0.0"),
    (["mlp2", "--l2", -1], "L2: the strength must be a number of at least 0"),
    (["mlp2", "--weight-decay", "nan"], "WeightDecay: the strength must be a number of at least 0 but is nan"),
    (["mlp2", "--loss", "hinge"], "loss 'hinge' is not known"),
    (["mlp2", "--loss", "huber", "--label-smoothing", 0.1], "huber: option 'label_smoothing' is not known"),
    (["mlp2", "--label-smoothing", 2], "label_smoothing must be in [0, 1) but is 2.0"),
    (["mlp2", "--seed", -1], "seed must be in 0..2^64-1 but is -1"),
])
def test_bad_settings_of_a_run(run, tiny_data, arguments, message):
    Path("file").write_text("mine")
    Path("full").mkdir()
    Path("full/notes").write_text("mine")
    before = sorted(Path().rglob("*"))
    status, _, err = run("train", *arguments)
    assert status == 2
    assert one_line(err) and message in err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(("arguments", "message"), [
    (["summary", "resnet"], "fastnet summary: model 'resnet' is not known"),
    (["summary", "mlp2", "--batch-size", 0], "--batch-size must be at least 1 but is 0"),
    (["check", "conv3d", "relu"], "fastnet check: 'conv3d': no such op or model; ops are augment_conv2d, avg_pool2d, "),
    (["plot", "absent"], "fastnet plot: absent is not a run directory"),
    (["plot", "."], "config.json is missing"),
    (["data", "--data-dir", "absent"], "cifar10: absent (named by --data-dir) does not exist"),
    (["data", "--data-dir", "."], "holds no CIFAR-10"),
    (["data", "verify", "--data-dir", "absent"], "cifar10: absent (named by --data-dir) does not exist"),
    (["train", "mlp2", "--data-dir", "absent"], "cifar10: absent (named by --data-dir) does not exist"),
    (["train", "mlp2", "--data-dir", "."], "holds no CIFAR-10: none of"),
    (["train", "mlp2", "--data", "shapes10", "--split", "9/x"], "split '9/x' is not of the form 'A/B'"),
    (["train", "mlp2", "--data", "shapes10", "--split", "10000/1"], "needs 10001 images, but shapes10 has 10000"),
])
def test_bad_input_of_the_commands(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert one_line(err) and message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["train", "mlp2"], ["data", "download"]])
def test_no_network(run, tmp_path, monkeypatch, arguments):
    import pooch

    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(pooch, "retrieve", unreachable)
    monkeypatch.setattr(cifar10, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("FASTNET_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*arguments)
    assert status == 2 and one_line(err)
    assert "it cannot be downloaded" in err and "--data shapes10, which needs no files" in err
    assert not (tmp_path / "runs").exists()


def test_an_error_of_the_system_names_its_file(run, tiny_data, monkeypatch):
    def broken(*_, **__):
        raise OSError(28, "No space left on device", "runs/a/checkpoint.safetensors")

    monkeypatch.setattr("fastnet.train.loop.fit", broken)
    assert run("train", "mlp2", "--out", "a")[::2] == (
        2, "fastnet train: runs/a/checkpoint.safetensors: No space left on device\n")


def test_an_error_of_several_lines_is_printed_as_one(run, monkeypatch):
    def broken():
        raise ValueError("first\n   second")

    monkeypatch.setattr("fastnet.environment.describe", broken)
    assert run("env") == (2, "", "fastnet env: first second\n")
    monkeypatch.setattr("fastnet.environment.describe", lambda: 10.0**1000)
    status, _, err = run("env")
    assert status == 2 and one_line(err) and "Numerical result out of range" in err
    monkeypatch.setattr("fastnet.environment.describe", lambda: (_ for _ in ()).throw(TypeError()))
    assert run("env") == (2, "", "fastnet env: TypeError\n")


def test_the_traceback_is_there_for_who_wants_it(run, monkeypatch):
    monkeypatch.setenv("FASTNET_TRACEBACK", "1")
    with pytest.raises(ValueError, match="'resnet' is not known"):
        run("summary", "resnet")


def test_a_reader_that_goes_away_is_no_error(tmp_path, monkeypatch):
    class Closed(io.TextIOWrapper):
        def write(self, text):
            raise BrokenPipeError

    with Closed(open(tmp_path / "out", "wb")) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert cli.main(["models"]) == 0


def test_threads_are_set(run, tiny_data):
    numba = pytest.importorskip("numba")
    before = numba.get_num_threads()
    try:
        assert run("train", "mlp2", "--epochs", 1, "--threads", 1, "--out", "a")[0] == 0
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)


# --- as a program ---

def program(*arguments):
    return subprocess.run([sys.executable, "-m", "fastnet", *arguments], capture_output=True, text=True, timeout=60)


def test_python_m_fastnet():
    done = program("models")
    assert (done.returncode, done.stderr) == (0, "") and "mlp9-bn" in done.stdout
    done = program("models", "--nonsense")
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert "unrecognized arguments: --nonsense" in done.stderr


def test_the_program_exits_with_the_status(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fastnet", "summary", "resnet"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("fastnet", run_name="__main__")
    assert stopped.value.code == 2 and one_line(capsys.readouterr().err)
