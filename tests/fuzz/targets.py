"""What is fuzzed: each reader with good files to start from, the errors that it documents, the memory that it may take.

The bound is twice the size of what is read and a constant: `CONSTANT` for all but images, of which a file of some
hundred bytes may be as large as any that is read at all. (CIFAR-10's limits, of rows and of what an archive unpacks to,
are made as much smaller as the files are.)
"""

import functools
import gzip
import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy

import fastnet as fn
from fastnet.data import batch_pickle, cifar10, cifar10_files, images
from fastnet.lab.search.journal import Journal
from fastnet.optim import schedules
from fastnet.train import checkpoint, record, weights
from fastnet.train.average import WeightAverage
from fastnet.train.curves import learning_rates
from fastnet.train.state import RunState
from fastnet.train.step import TrainStep
from fastnet.train.stopping import EarlyStopping
from fastnet.train.trained import load_run
from fuzz import mutate

CONSTANT = 48 << 20
ROWS = 2  # images in a file of CIFAR-10's, instead of 10,000
PIXEL = 16  # bytes for each of the largest image: as it is decoded, and as it is converted


class Target(NamedTuple):
    """`read(content, folder)` gives a reader the input; `seeds()` are inputs that it takes."""

    seeds: Callable[[], list[bytes]]
    mutate: Callable
    read: Callable[[bytes, Path], object]
    documented: tuple[type[BaseException], ...] = (ValueError,)
    constant: int = CONSTANT
    share: int = 3  # of the inputs


def _file(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


# --- files of runs ---

def small_model(seed=0):
    return fn.Sequential([fn.Linear(6, 3), fn.BatchNorm(3), fn.ReLU(), fn.Linear(3, 2)], seed=seed)


CONFIG = {"model": {"name": "custom", "seed": 0, "dtype": "float32", "layers": ["linear1: Linear(6, 3)"]},
          "data": {"name": "tiny", "sha256": "0", "split": "4/2"}, "epochs": 2, "batch_size": 4, "seed": 0,
          "loss": {"name": "softmax_cross_entropy"}, "optimizer": {"name": "adam", "lr": 0.001},
          "schedule": {"name": "constant", "settings": {"lr": 0.1}}}
HISTORY = [{"epoch": k, "step": 3 * k, "lr": 0.1, "train_loss": 2.0 / k, "train_cost": 2.5 / k, "train_accuracy": 0.5,
            "penalty": 0.5 / k, "seconds": 0.25, "validation_loss": 2.1, "validation_cost": 2.6,
            "validation_accuracy": 0.25, "evaluation_seconds": 0.1} for k in (1, 2)]


@functools.cache
def small_state(kind):
    """A run with all that a checkpoint can hold (0), and one with as little as possible (1)."""
    optimizer, schedule = [(fn.Adam(), schedules.reduce_on_plateau(0.1)), (fn.SGD(lr=0.1), None)][kind]
    full, model = kind == 0, small_model()
    step = TrainStep(model, optimizer, schedule, average=WeightAverage(model, 0.9) if full else None)
    state = RunState(step, EarlyStopping(3) if full else None)
    state.history = HISTORY
    if full:
        state.stopping.best_epoch, state.stopping.best_value = 1, 2.1
        state.stopping.best_state = step.model.state()
    return state


def _saved(kind, folder):
    small_state(kind).save(folder / "seed.safetensors", CONFIG)
    return (folder / "seed.safetensors").read_bytes()


def _in_a_folder(make):
    def made():
        import tempfile

        with tempfile.TemporaryDirectory() as name:
            return make(Path(name))
    return functools.cache(made)


_checkpoints = _in_a_folder(lambda folder: [_saved(kind, folder) for kind in (0, 1)])


def _resume(content, folder):
    """A checkpoint that is refused changes nothing, and one that is taken can be written again."""
    path = _file(folder, "checkpoint.safetensors", content)
    state = small_state(b"optimizer.m/" not in content)
    before = _snapshot(state)
    try:
        state.restore(path, CONFIG)
    except ValueError:
        assert _snapshot(state) == before, "a checkpoint that was refused has changed the run"
        raise
    state.save(folder / "again.safetensors", CONFIG)


def _snapshot(state):
    vectors = [state.step.model.store.vector, *state.step.state.values()] + (
        [state.average.vector] if state.average else [])
    return ([v.tobytes() for v in vectors], json.dumps(state.history), state.step.count, vars(state.sums).copy(),
            state.first_loss, state.stopping and (state.stopping.best_epoch, state.stopping.best_value),
            state.step.schedule.state() if hasattr(state.step.schedule, "state") else None)


RUNS = {"mlp2": {"hidden": [3], "inputs": 12, "classes": 2}, "mlp3-bn": {"hidden": [3, 2], "inputs": 12, "classes": 2},
        "resnet18": {"blocks": [1], "widths": [2], "classes": 2, "filter_multiplier": 1.0},
        "vgg-a": {"plan": [2, "M"], "hidden": [2], "classes": 2, "input_shape": [2, 2, 3]}}


def _run_files(folder):
    found = []
    for name, options in RUNS.items():
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        model = fn.build(name, **given)
        arrays = {f"model/{key}": a for key, a in model.state().items()}
        arrays |= {f"standardization/{key}": np.full((2, 2, 3), 7.0) for key in ("mean", "std")}
        settings = {"name": name, "seed": 0, "dtype": "float32", **json.loads(json.dumps(model.settings))}
        checkpoint.save(folder / "m", arrays, {"config": {**CONFIG, "model": settings}, "classes": ["cat", "dog"],
                                               "input_shape": [2, 2, 3]})
        found.append((folder / "m").read_bytes())
    return found


_runs = _in_a_folder(_run_files)


def _load_run(content, folder):
    _file(folder, record.MODEL, content)
    run = load_run(folder)
    with fn.backend.use("reference"):  # kernels would be compiled for types that only files like these ask for
        run.scores(np.zeros((1, *run.input_shape), np.uint8))


@functools.cache
def _torch_files():
    state = {"linear1.weight": np.ones((3, 6), np.float32), "linear1.bias": np.zeros(3, np.float16),
             "batch_norm1.weight": np.ones(3), "batch_norm1.bias": np.ones(3, np.float32),
             "batch_norm1.running_mean": np.ones(3, np.float32), "batch_norm1.running_var": np.ones(3, np.float32),
             "batch_norm1.num_batches_tracked": np.array(3), "linear2.weight": np.ones((2, 3), np.float32),
             "linear2.bias": np.zeros(2, np.float32)}
    plain = safetensors.numpy.save(state, {"format": "pt"})
    return [plain, as_bfloat16({name: a for name, a in state.items() if a.ndim}), *_checkpoints()]


def as_bfloat16(state):
    """A safetensors file with these arrays, cut to bfloat16."""
    content = safetensors.numpy.save({name: (a.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
                                      for name, a in state.items()})
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b'"U16"', b'"BF16"')
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _load_weights(content, folder):
    """Weights that are refused change nothing."""
    path, model = _file(folder, "weights.safetensors", content), small_state(1).step.model
    before = {name: a.tobytes() for name, a in model.state().items()}
    try:
        weights.load_weights(model, path, input_shape=(6,))
    except ValueError:
        assert {name: a.tobytes() for name, a in model.state().items()} == before, "refused weights were taken"
        raise


def _replay_files(folder):
    from fastnet.check.lockstep import Call
    from fastnet.check.replay import packed

    x, layers = np.ones((2, 3), np.float32), fn.shapes.Hidden(3, 2, 0, 6)
    for k, call in enumerate((Call("linear", 3, "linear1", (x, np.ones((3, 2), np.float32), None), {},
                                   np.ones((2, 2), np.float32)),
                              Call("perceptron", 1, "p", (x, np.ones(8, np.float32)), {"layers": (layers,)}))):
        checkpoint.save(folder / str(k), *packed(call, "reference", "cpu"))
    return [(folder / str(k)).read_bytes() for k in (0, 1)]


def _replay(content, folder):
    from fastnet.check.replay import unpacked

    unpacked(*checkpoint.load(_file(folder, "departure.safetensors", content)))


def _json(content, folder):
    record.read_json(_file(folder, "any.json", content))


def _record(content, folder):
    """The record that `fastnet plot` reads: config.json, then the lines of history.jsonl."""
    first, _, rest = content.partition(b"\n")
    _file(folder, record.CONFIG, first)
    _file(folder, record.HISTORY, rest)
    learning_rates(folder)


def _records():
    plateau = {**CONFIG, "schedule": {"name": "reduce_on_plateau", "settings": {"lr": 0.1}}}
    steps = {**CONFIG, "schedule": {"name": "step_decay", "settings": schedules.step_decay(
        0.1, every=25, unit="epoch", steps_per_epoch=3, factor=0.1).settings}}
    lines = b"\n".join(json.dumps(line).encode() for line in HISTORY) + b"\n"
    return [json.dumps(config).encode() + b"\n" + lines for config in (CONFIG, plateau, steps)]


# --- data sets ---

def batch(seed=0, rows=ROWS):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (rows, 3072), dtype=np.uint8), rng.integers(0, 10, rows).tolist()


def binary(pixels, labels):
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True))


def _pickles():
    pixels, labels = batch()
    whole = {"batch_label": "a batch", "labels": labels, "data": pixels, "filenames": ["x.png"] * ROWS}
    as_bytes = {key.encode(): value for key, value in whole.items()}
    return [pickle.dumps(one, protocol) for protocol in (0, 2, 4, 5) for one in (whole, as_bytes)]


def _pickle(content, folder):
    batch_pickle.read(content, ROWS, "data_batch_1")


def _small(read):
    """The reader with files of `ROWS` images and archives of a megabyte; any archive is taken for the official one,
    so that what lies behind the comparison of its hash is seen too.
    """
    def reading(content, folder):
        rows, limit, known = cifar10_files.ROWS, cifar10_files.ARCHIVE_LIMIT, dict(cifar10_files.ARCHIVES)
        cifar10_files.ROWS, cifar10_files.ARCHIVE_LIMIT = ROWS, 1 << 20
        for name in known:
            cifar10_files.ARCHIVES[name] = hashlib.md5(content).hexdigest()
        try:
            read(content, folder)
        finally:
            cifar10_files.ROWS, cifar10_files.ARCHIVE_LIMIT = rows, limit
            cifar10_files.ARCHIVES.update(known)
    return reading


@_small
def _binary(content, folder):
    place = folder / "cifar-10-batches-bin"
    if not place.exists():
        place.mkdir()
        for name in cifar10_files.BATCHES:
            _file(place, f"{name}.bin", binary(*batch()))
    _file(place, "data_batch_3.bin", content)
    cifar10.read(place)


@_small
def _archive(content, folder):
    cifar10.read(_file(folder, "cifar-10-binary.tar.gz", content))


def _archives():
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as tar:
            folder = tarfile.TarInfo("cifar-10-batches-bin")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            for name in reversed(cifar10_files.BATCHES):
                content = binary(*batch())
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        found.append(gzip.compress(out.getvalue(), 1))
    return found


def _pictures():
    from PIL import Image

    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    found = []
    for form, options in (("PNG", {}), ("JPEG", {"exif": turned}), ("GIF", {}), ("BMP", {}), ("PPM", {}),
                          ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"exif": turned}),
                          ("WEBP", {"lossless": True}), ("PNG", {"exif": turned}), ("EPS", {}), ("ICO", {})):
        for image in (colours, colours.convert("P")) if form in ("PNG", "TIFF", "BMP") else (colours,):
            out = io.BytesIO()
            image.save(out, form, **options)
            found.append(out.getvalue())
    return found


def _picture(content, folder):
    path = _file(folder, "x.png", content)
    images.read_image(path, (4, 4, 3))


# --- sweeps and options ---

def _journals():
    from fastnet.lab.search.journal import header
    from fastnet.lab.search.space import check_space, parse

    space = check_space({"l2": parse("log:1e-5:0.1"), "kind": parse("a,b"), "m": parse("uniform:0:1")})
    trial = {"l2": 0.1, "kind": "a", "m": 0.5}
    lines = [header(space, seed=0, minimize=False, lease=30.0, settings={"epochs": 3}),
             {"event": "plan", "plan": [["coarse", {"trials": 2}], ["grid", {"points": 2}]]},
             {"event": "round", "first": 0, "trials": [trial, trial]},
             *({"event": "claim", "trial": k, "owner": "me", "time": 1.0} for k in (0, 1)),
             {"event": "beat", "owner": "me", "trials": [0, 1]},
             {"event": "done", "trial": 0, "owner": "me", "seconds": 1.0, "value": 0.5},
             {"event": "failed", "trial": 1, "owner": "me", "seconds": 1.0, "error": "no"},
             {"event": "round", "first": 2, "trials": 8 * [trial]}]
    return ["".join(json.dumps(line) + "\n" for line in lines[:n]).encode() for n in (2, 5, len(lines))]


def _journal(content, folder):
    Journal(_file(folder, "journal.jsonl", content))


COMMANDS = (
    "train\0mlp3\0--optimizer\0adam\0--lr\x000.1\0--beta1\x000.9\0--eps\x001e-8\0--schedule\0cosine\0--lr-min\x000.001",
    "train\0resnet18\0--option\0filter_multiplier=0.5\0--option\0widths=(4, 8)\0--option\0shortcut=zero_pad",
    "train\0mlp3\0--schedule\0triangular\0--lr\x000.1\0--half-cycle-epochs\x002\0--l2\x000.005\0--rate\0linear1.*=0.1",
    "train\0lenet5\0--schedule\0step_decay\0--lr\x000.1\0--every\x0060,120\0--l1\x000.1\0--proximal\0--crop\x004\0--flip",
    "summary\0lenet5\0--input\x0032x32x3\0--batch-size\x00100",
    "train\0mlp3\0--optimizer\0sgd\0--momentum\x000.9\0--nesterov\0--resized-crop\x000.5\x001\0--cutout\x008")


@functools.cache
def _parser():
    from fastnet import cli

    return cli._parser()


def _options(content, folder):
    """All that becomes of a command's options before a model is made or a file is opened."""
    import contextlib

    from fastnet import cli_options
    from fastnet.nn.models import entry

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            found = _parser().parse_args(content.decode("utf-8", "replace").split("\0"))
        except SystemExit as stopped:
            if stopped.code == 2:
                assert said.getvalue().strip().count("\n") == 0, f"more than a line: {said.getvalue()!r}"
                raise ValueError(said.getvalue().strip()) from None
            return
    settings = entry(found.model).settings if getattr(found, "model", None) else None
    if settings is None:
        return
    if found.command == "train":
        made = cli_options.optimizer(found, settings)
        schedule = cli_options.schedule(found, settings, made.lr, max(1, found.epochs or settings.epochs), 450)
        schedule(0)
        cli_options.penalties(found, settings)
        cli_options.augmentation(found, settings)
        cli_options.rates(found)
    cli_options.model_options(found)
    if getattr(found, "input", None):
        cli_options.image_shape(found.input)


TARGETS: dict[str, Target] = {
    "checkpoint": Target(_checkpoints, mutate.tensors, _resume),
    "run": Target(_runs, mutate.tensors, _load_run),
    "weights": Target(_torch_files, mutate.tensors, _load_weights),
    "replay": Target(_in_a_folder(_replay_files), mutate.tensors, _replay),
    "json": Target(lambda: [json.dumps(CONFIG).encode(), json.dumps(HISTORY).encode()], mutate.json_file, _json),
    "record": Target(_records, mutate.json_lines, _record),
    "journal": Target(functools.cache(_journals), mutate.json_lines, _journal),
    "cifar-binary": Target(lambda: [binary(*batch())], mutate.noise, _binary),
    "cifar-pickle": Target(functools.cache(_pickles), mutate.opcodes, _pickle, share=1),
    "cifar-archive": Target(functools.cache(_archives), mutate.archive, _archive),
    "image": Target(functools.cache(_pictures), mutate.picture, _picture,
                    constant=CONSTANT + PIXEL * images.MOST_PIXELS),
    "options": Target(lambda: [command.encode() for command in COMMANDS], mutate.words, _options),
}


def most(target, content):
    """Bytes that the reader may take of memory for this input."""
    return 2 * len(content) + TARGETS[target].constant
