"""The benchmarks: the timer is fair, the twin in PyTorch computes the same, the command line prints and records."""

import configparser
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import fastnet as fn
from fastnet import backend
from fastnet.bench import epoch, memory, ops, overfit, record, sizes, steps
from fastnet.bench.ceilings import Rates
from fastnet.bench.profile import WHOLE, needed, profile
from fastnet.bench.result import Result
from fastnet.bench.workload import Workload
from fastnet.timer import Timing, alternate

SMALL = {"filter_multiplier": 1 / 16}
LENET = {"filters": (2, 3), "hidden": (8,)}


def test_rivals_take_turns():
    order = []
    found = alternate({"a": lambda: order.append("a") or time.sleep(0.04),
                       "b": lambda: order.append("b") or time.sleep(0.08)}, seconds=0.15, least=4)
    assert order == ["a", "b"] * (len(order) // 2)
    assert found["a"].rounds == found["b"].rounds == len(order) // 2 - 1 >= 4  # the first calls warm up
    assert found["a"].low <= found["a"].median <= found["a"].high
    assert 1.3 < found["b"].median / found["a"].median < 3


def test_short_calls_are_repeated_within_a_turn():
    calls = []
    found = alternate({"a": lambda: calls.append(1)}, seconds=0.001, least=3, most=3)
    assert found["a"].rounds == 3
    assert len(calls) > 1000


@pytest.mark.parametrize(("name", "options"), [
    ("mlp3-bn", {}), ("lenet5", {}), ("vgg-a-bn", SMALL), ("resnet18", SMALL), ("resnet20", SMALL),
    ("mobilenet", {**SMALL, "activation": "swish"}), ("squeezenet", {**SMALL, "dropout": 0.0}),
    ("lenet5", {"input_shape": (28, 20, 1)})])
def test_the_twin_computes_the_same(name, options):
    pytest.importorskip("torch")
    shape = options.pop("input_shape", None)
    assert steps.disagreement(Workload(name, 8, options=options, shape=shape)) < steps.AGREEMENT


def test_without_agreement_nothing_is_timed(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(steps, "disagreement", lambda workload: 1e-3)
    with pytest.raises(AssertionError, match=r"gradients differ from PyTorch's by 1\.0e-03"):
        steps.measure(Workload("mlp3", 10))


def test_profile_adds_up():
    workload = Workload("lenet5", 8)
    parts = {part.name: part for part in profile(steps.ours_on(workload.build(), "step", *workload.batch()), 0.01)}
    first, second = ("conv2d_relu_max_pool2d 32x32x3 5x5 6", "conv2d_relu_max_pool2d 14x14x6 5x5 16")
    found = {how: next(part for name, part in parts.items() if name.startswith(first) and name.endswith(how))
             for how in ("forward", "backward")}
    for part in found.values():  # nobody needs dx of the images
        assert part.operations == 2 * 8 * 28 * 28 * 6 * 75
    assert sum(part.operations for name, part in parts.items() if name.startswith(second)) == (
        3 * 2 * 8 * 10 * 10 * 16 * 150)
    whole = parts.pop(WHOLE)
    assert sum(part.seconds for part in parts.values()) == pytest.approx(whole.seconds)
    assert whole.operations == steps.measure(workload, torch=False, seconds=0.001, least=1).operations
    assert parts["linear 400 120 forward"].floors(1e6, 1e6) == pytest.approx((
        2 * 8 * 400 * 120 / 1e6, 4 * (8 * 400 + 400 * 120 + 120 + 8 * 120) / 1e6))
    behind = 120 * 84 + 84 * 10
    assert parts["perceptron 120 forward"].floors(1e6, 1e6) == pytest.approx((
        2 * 8 * behind / 1e6, 4 * (8 * 120 + behind + 84 + 10 + 8 * 10) / 1e6))
    for name in ("linear 400 120", "perceptron 120"):
        assert parts[f"{name} backward"].operations == 2 * parts[f"{name} forward"].operations
    assert backend.pair.__module__ == "fastnet.backend"


def test_a_loss_behind_a_product_has_the_operations_of_the_product():
    call, = sizes.calls(["pooled_softmax_cross_entropy"])
    run = ops.both_passes(call.few(8), np.ones((), np.float32), "cpu")
    assert needed(run)[0] == 3 * 2 * 8 * 512 * 10


def test_a_block_has_the_operations_of_its_convolutions():
    call = sizes.calls(["basic_block"])[1].few(2)
    run = ops.both_passes(call, np.ones(call.size.x, np.float32), "cpu")
    assert needed(run)[0] == 3 * 2 * (2 * 2 * 8 * 8 * 256 * 9 * 256)


def test_an_epoch_makes_every_batch_and_takes_a_step_on_it():
    workload = Workload("lenet5", 16, "epoch", (16, 16, 3), LENET, images=40)
    found = steps.measure(workload, torch=False, seconds=0.01, least=2)
    assert set(found.timings) == {"fastnet", "batches"}
    assert 0 < found.data_share < 1
    once = steps.measure(workload._replace(kind="step"), torch=False, seconds=0.001, least=1)
    assert found.operations * 16 == once.operations * 40


def test_pytorchs_epoch_has_the_same_kind_of_batches():
    torch = pytest.importorskip("torch")
    split = epoch.random_images(6, (8, 10, 3))
    standardization = fn.data.Standardization.fit(split.images, "channel")
    at = torch.tensor([4, 1, 4])
    found = epoch.batch_maker(split.images, standardization)(at).numpy()
    crops = set()
    for image, x in zip(split.images[at.numpy()], found, strict=True):
        bordered = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        places = [(p, q, flip) for p in range(9) for q in range(9) for flip in (1, -1)
                  if np.allclose(standardization.apply(bordered[None, p:p + 8, q:q + 10][:, :, ::flip]), x, atol=1e-5)]
        assert len(places) == 1
        crops.add(places[0])
    assert len(crops) > 1
    for workload in (Workload("lenet5", 16, "epoch", (16, 16, 3), LENET, images=40),
                     Workload("mlp3", 20, "epoch", (6, 6, 3), images=40)):
        assert {"eager", "batches"} < set(steps.measure(workload, seconds=0.001, least=1).timings)


def test_memory_is_of_a_process_of_its_own():
    small, large = (memory.measure("fastnet", Workload("lenet5", size, "step", (16, 16, 3), LENET), 1)
                    for size in (10, 2000))
    assert 0 < small[0] < small[1]
    assert large[1] - large[0] > small[1] - small[0] + 2**20 * 4  # the images alone have 6
    with pytest.raises(OSError, match=r"no memory was measured for fastnet: .*is not known"):
        memory.measure("fastnet", Workload("nonsense", 10), 1)


def test_a_result_survives_its_record():
    result = Result("lenet5", 128, {"fastnet": Timing(0.5, 0.4, 0.6, 9), "eager": Timing(1.0, 1.0, 1.0, 9)}, 10, 1e-15,
                    {"fastnet": (1, 2)}, (("conv2d", 0.1, 1, 0.01, 0.02),))
    assert Result.of(json.loads(json.dumps(result.record()))) == result


def test_the_record_is_written_whatever_fails(tmp_path, capsys):
    path = tmp_path / "record.json"
    sections = {record.MAIN: record.Section((Workload("nonsense", 8), Workload("mlp3", 8)), 0.001, 1),
                "one thread": record.Section((Workload("mlp3", 8),), 0.001, 1, 1)}
    with mock.patch.object(record, "rates", lambda threads: Rates(1e11, 1e10)):
        failures = record.record(path, sections, 1, False, quick=False)
    found = json.loads(path.read_text())
    assert list(failures) == list(found["failures"]) == [f"{record.MAIN}: nonsense, 8"]
    (main,) = found["results"][record.MAIN]
    assert main["memory"]["fastnet"]["peak"] > main["memory"]["fastnet"]["before"] > 0
    assert main["profile"][-1][0] == WHOLE
    assert [r["workload"] for r in found["results"]["one thread"]] == ["mlp3"]
    assert found["rates"] == {"1": {"gemm": 1e11, "copy": 1e10}}


def test_command_prints_and_records(run, tmp_path):
    path = tmp_path / "bench.json"
    status, out, _ = run("bench", "mlp3", "lenet5", "--batch-size", "8", "16", "--no-torch", "--seconds", "0.01",
                         "--json", path)
    assert status == 0
    assert "without PyTorch" in out and out.count("lenet5") == 4  # as it is measured, and in the table
    results = json.loads(path.read_text())["results"]["steps"]
    assert [(r["workload"], r["batch_size"]) for r in results] == [("mlp3", 8), ("mlp3", 16), ("lenet5", 8),
                                                                   ("lenet5", 16)]
    assert results[2]["operations"] == 2 * 8 * (651_720 + 651_720 + 651_720 - 28 * 28 * 6 * 75)  # no dx of the first
    assert results[0]["operations"] == 2 * 8 * (2 * 3072 * 50 + 3 * (50 * 50 + 50 * 10))  # all in one go
    status, out, _ = run("bench", "mlp3", "--batch-size", "8", "--profile", "--seconds", "0.01")
    assert status == 0 and "perceptron_step 3072 run" in out and "floor / time" in out
    status, out, _ = run("bench", "lenet5", "--option", "filters=(2,3)", "--input", "16x16x3", "--epoch", "--images",
                         "200", "--seconds", "0.01", "--no-torch")
    assert status == 0 and "lenet5 epoch, filters (2, 3), 16x16x3" in out
    assert "making batches" in out


@pytest.mark.parametrize(("arguments", "message"), [
    (["nonsense"], "model 'nonsense' is not known"), (["--threads", "0"], "at least 1"),
    (["--threads", "1000"], "--threads: there are"), (["--batch-size", "0"], "at least 1"),
    (["--seconds", "0"], "--seconds must be positive"), (["lenet5", "--option", "widht=3"], "widht"),
    (["lenet5", "--epoch", "--images", "100"], "100 are fewer than a batch of 128"),
    (["--ops", "lenet5"], "there is no op 'lenet5'"), (["--ops", "--epoch"], "not allowed with argument")])
def test_bad_input_is_one_line(arguments, message, run):
    status, _, error = run("bench", *arguments)
    assert status == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize("op", sizes.ops())
def test_every_op_has_sizes(op, monkeypatch):
    """An op without sizes, or with arrays of which it is not known what they are, fails here; see bench/sizes.py."""
    monkeypatch.setitem(sizes.SIZES, op, tuple(size._replace(x=(2, *size.x[1:])) for size in sizes.sizes(op)))
    for call in sizes.calls([op]):
        assert tuple(call.arrays) == backend.arguments(op)
        with backend.use("cpu"):
            backend.run(op, *call.arrays.values(), **call.size.options)


def test_sizes_belong_to_ops():
    assert set(sizes.SIZES) <= set(sizes.ops())
    with mock.patch.object(sizes, "ops", lambda: ["new"]), pytest.raises(ValueError, match="op 'new' has no sizes"):
        sizes.calls()


@pytest.mark.parametrize("op", sizes.SIZES)
def test_pytorchs_counterpart_computes_the_same(op, monkeypatch):
    pytest.importorskip("torch")
    size = min(sizes.SIZES[op], key=lambda size: int(np.prod(size.x)))
    shape = size.x if size.w else (6, *size.x[1:])
    monkeypatch.setitem(sizes.SIZES, op, (size._replace(x=shape),))
    found = ops.measure(*sizes.calls([op]), seconds=1e-4, least=1)
    theirs = set() if op in ("perceptron", "augment_conv2d") else {"eager"}  # PyTorch has nothing like these
    assert {"cpu", "reference"} | theirs <= set(found.timings)
    assert found.error < 1e-4 and found.bytes > 0


def test_an_op_that_differs_is_not_timed(monkeypatch):
    pytest.importorskip("torch")
    from fastnet.bench import peer_ops

    monkeypatch.setitem(peer_ops.COUNTERPARTS, "relu", lambda x: 1.1 * x.relu())
    with pytest.raises(AssertionError, match="PyTorch's results differ by"):
        ops.measure(sizes.calls(["relu"])[-1])


def test_winograds_error_is_a_row(run, monkeypatch):
    monkeypatch.setitem(sizes.SIZES, "conv2d", tuple(
        size._replace(x=(2, 8, 8, 16), w=(3, 3, 16, 16)) for size in sizes.sizes("conv2d")[:2]))
    status, out, _ = run("bench", "--ops", "conv2d", "--seconds", "0.001", "--no-torch")
    errors = {line.split("conv_algorithm=")[1].split()[0]: float(line.split()[-1])
              for line in out.split("GFLOP/s  ")[-1].splitlines() if "conv_algorithm=" in line}
    assert status == 0 and set(errors) == {"winograd", "direct"}
    assert errors["direct"] < errors["winograd"] < 1e-4


def test_pytest_bench(tmp_path):
    """`pytest bench` times ops and steps, and says what part of the ceiling each reaches; plain `pytest` does not."""
    path, root = tmp_path / "bench.json", Path(steps.__file__).parents[1]
    # Beside other test processes pytest-benchmark would not measure; this process is one of its own.
    alone = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_XDIST")}
    done = subprocess.run([sys.executable, "-m", "pytest", "bench", "-q", "-k", "relu-2-cpu or mlp3-100-fastnet",
                           "-p", "no:cacheprovider", "--benchmark-json", path, "--benchmark-max-time=0.01"],
                          cwd=root, capture_output=True, text=True, check=False, env=alone)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {row["group"]: row["extra_info"] for row in json.loads(path.read_text())["benchmarks"]}
    assert found["relu 100x50"]["bytes"] > 0 and found["mlp3"]["operations"] == Workload("mlp3", 100).operations
    assert all(0 < extra["fraction_of_ceiling"] < 3 for extra in found.values())
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    assert config["tool:pytest"]["testpaths"] == "tests"


def test_a_model_learns_by_heart():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((200, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, 200)
    found = overfit.overfit("mlp2", x, labels)
    assert found["accuracy"] == 1
    assert found["epochs"] < overfit.MOST_EPOCHS
