"""The command line: `fastnet COMMAND`. Exit status 0 done, 1 a check failed, 2 bad input, 130 interrupted."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fastnet import cli_check, cli_lab, cli_lockstep, cli_options, cli_reproduce, cli_sweep, cli_trained, devices
from fastnet.data import Dataset
from fastnet.nn.models import MODELS, Settings, build, entry, fitting
from fastnet.nn.sequential import Sequential
from fastnet.nn.summary import align, format_summary

# What is not a mistake of ours, and is said in one line.
EXPECTED = (ValueError, TypeError, ImportError, OSError, FloatingPointError, OverflowError, devices.DeviceError)
SIXTEEN_BITS = ("bfloat16", "float16")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")


class Command(_Parser):
    """A subcommand: says itself which arguments it does not know."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = parsed(arguments)
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        print("\ninterrupted" + (f"; continue with --resume --out {options.out}" if _resumable(options) else ""),
              file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        text = _one_line(error) if isinstance(error, EXPECTED) else devices.fault(error)
        if text is None or os.environ.get("FASTNET_TRACEBACK"):
            raise
        print(f"fastnet {options.command}: {text}", file=sys.stderr)
        return 2


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options that the arguments mean; SystemExit, with a line on standard error, where they mean none."""
    return _parser().parse_args(arguments)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _resumable(options: argparse.Namespace) -> bool:
    from fastnet.train.record import CHECKPOINT

    out = getattr(options, "out", None)
    return options.command == "train" and out is not None and (Path(out) / CHECKPOINT).exists()


def _parser() -> _Parser:
    parser = _Parser(prog="fastnet", description="Image classifiers trained with every forward and backward pass "
                                                 "written by hand.")
    parser.add_argument("--version", action="version", version=f"fastnet {_own_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Command)

    def command(name: str, run: Callable[[argparse.Namespace], int | None], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        return added

    trained = command("train", train, "Train a model; its report's settings are the defaults.")
    train_options(trained)
    _out_option(trained)
    trained.add_argument("--resume", action="store_true", help="continue the run in --out from its checkpoint")
    cli_sweep.add_sweep(command("sweep", cli_sweep.sweep, "Train again and again to find the best of some option's "
                                                          "values; goes on where it was stopped."))
    reach = command("lr-range", lr_range, "Raise the learning rate step by step to see where the loss falls.")
    _data_options(reach)
    _out_option(reach)
    cli_options.add_optimizer(reach)
    cli_options.add_penalty(reach)
    reach.add_argument("--lr-min", type=float, default=1e-5, help="first rate (default 1e-5)")
    reach.add_argument("--lr-max", type=float, default=10.0, help="last rate (default 10)")
    reach.add_argument("--steps", type=int, default=200, help="steps in between (default 200)")
    check = command("check", check_gradients, "Check gradients: all ops and some whole models, or those named.")
    check.add_argument("names", nargs="*", metavar="NAME", help="ops or models (default: all)")
    cli_options.add_device(check)
    check.add_argument("--seed", type=int, default=0, help="of the random inputs (default 0)")
    cli_check.add_options(check)
    cli_lockstep.add(check)
    cli_trained.add_predict(command("predict", cli_trained.predict, "Tell what images show, by the model of a run."))
    cli_trained.add_export(command("export", cli_trained.export, "Write a finished run's weights for PyTorch."))
    cli_lab.add_lab(command("lab", lambda _: None, "Look into a run: statistics, surface, features, histograms."))
    command("models", models, "List the models.")
    summary = command("summary", summarize, "Show a model layer by layer.")
    cli_options.add_model(summary)
    summary.add_argument("--input", metavar="HxWxC", help="shape of an image (default: the model's own)")
    summary.add_argument("--batch-size", type=int, default=100, help="images a step (default 100)")
    plot = command("plot", plot_run, "Draw the figures of a run from its record, or a schedule before a run.")
    plot.add_argument("run_dir", metavar="RUN_DIR", type=Path, nargs="?")
    plot.add_argument("--lr", type=float, help="of the schedule to draw")
    plot.add_argument("--epochs", type=int, default=20, help="of the schedule to draw (default 20)")
    plot.add_argument("--steps-per-epoch", type=int, default=450, help="of the schedule to draw (default 450)")
    plot.add_argument("--out", type=Path, help="the figure of a schedule (default NAME.png)")
    cli_options.add_schedule(plot)
    data = command("data", manage_data, "Find, download or verify CIFAR-10.")
    data.add_argument("action", nargs="?", choices=("path", "download", "verify"), default="path")
    data.add_argument("--data-dir", type=Path)
    _bench_options(command("bench", bench, "Time training steps, epochs or ops, beside PyTorch where it is there."))
    cli_reproduce.add_options(command("reproduce", cli_reproduce.run, "Run a published report again and compare."))
    command("env", environment, "Show versions, threads, BLAS, GPU and which backend runs.")
    return parser


def _bench_options(parser: argparse.ArgumentParser) -> None:
    # Not from fastnet.bench, which loads compilers: the command line has to answer at once.
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="models (default: the workloads of the README's table), or ops")
    cli_options.add_model_options(parser)
    add("--input", metavar="HxWxC", help="shape of an image (default: the model's own)")
    add("--batch-size", type=int, nargs="+", metavar="N", help="default: each workload's own")
    what = parser.add_mutually_exclusive_group().add_argument
    what("--inference", action="store_true", help="logits instead of training steps")
    what("--epoch", action="store_true", help="whole epochs, with shuffling, crops, flips and standardisation")
    what("--profile", action="store_true", help="where the time of a training step goes, op by op")
    what("--ops", action="store_true", help="single ops beside the reference and PyTorch")
    add("--images", type=int, default=10_240, help="of an epoch (default 10240)")
    add("--memory", action="store_true", help="peak memory too, each library in a process of its own")
    add("--threads", type=int, help="of both libraries (default: all cores)")
    add("--seconds", type=float, default=2.0, help="that each library is timed for (default 2)")
    add("--no-torch", action="store_true", help="ours alone")
    add("--json", type=Path, metavar="FILE", help="write the record")


def _out_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="what to write (default: a new directory or file under runs/)")


def _data_options(parser: argparse.ArgumentParser, model_nargs: str | None = None) -> None:
    cli_options.add_model(parser, model_nargs)
    add = parser.add_argument
    add("--data", default="cifar10", metavar="NAME", help="cifar10 (default), shapes10, digits or folder:DIR")
    add("--data-dir", type=Path, help="where CIFAR-10 lies (else $FASTNET_DATA, else the cache, else downloaded)")
    add("--image-size", type=int, default=32, help="of the images of folder:DIR (default 32)")
    add("--split", metavar="A/B", help="training and validation images, such as 45000/5000")
    add("--order", choices=("random", "file"), default="random", help="how the split is drawn")
    add("--batch-size", type=int)
    add("--seed", type=int, default=0)
    cli_options.add_device(parser)
    add("--dtype", choices=("float32", "float64", *SIXTEEN_BITS), default="float32",
        help="of the activations; with the last two, which are for GPUs, parameters are float32")
    add("--threads", type=int, help="threads of the kernels; the result has the same bits for any number")
    add = parser.add_argument_group("loss and model").add_argument
    add("--loss", default="softmax_cross_entropy", help="default: softmax_cross_entropy")
    add("--label-smoothing", type=float, help="of softmax_cross_entropy")
    add("--normalization", choices=("pixel", "channel"), help="what mean and standard deviation are per")
    add("--init", help="initialiser of the weights, such as kaiming_normal or normal:0.01")
    add("--activation", help="such as relu, leaky_relu, gelu, swish")
    add("--norm-after", action="store_true", help="batch norm after the activation instead of before")


def train_options(parser: argparse.ArgumentParser, model_nargs: str | None = None) -> None:
    """What a run depends on: all options of `fastnet train` but where it is written."""
    _data_options(parser, model_nargs)
    add = parser.add_argument
    add("--epochs", type=int)
    add("--weights", type=Path, metavar="FILE", help="start from these: a PyTorch state dict as safetensors, or "
                                                     "a run's model.safetensors")
    add("--checkpoint-seconds", type=float, default=30.0, help="between checkpoints inside an epoch (default 30)")
    add("--accumulate", type=int, default=1, metavar="PARTS", help="put each batch through in so many pieces")
    add("--average", type=float, metavar="DECAY", help="evaluate with a moving average of the weights, such as 0.999")
    add("--early-stopping", type=int, metavar="PATIENCE", help="stop after so many epochs without improvement and go "
                                                               "back to the best")
    add("--stop-metric", default="validation_loss", help="what --early-stopping watches (default validation_loss)")
    add("--no-graph", action="store_true", help="on a GPU: launch a step's kernels one by one, and read every loss")
    for group in (cli_options.add_optimizer, cli_options.add_schedule, cli_options.add_penalty,
                  cli_options.add_augmentation):
        group(parser)


def train(options: argparse.Namespace) -> None:
    """Train, writing a run directory."""
    from fastnet.optim.penalties import sparsity
    from fastnet.train.loop import fit

    if options.resume and options.out is None:
        raise ValueError("--resume needs --out, the directory of the run to continue")
    arguments, settings = training(options)
    model, data = arguments[:2]
    _notice(data)
    options.out = options.out or _unused(f"{options.model}-{_kind(options)}")
    print(f"{options.model}: {model.num_parameters():,} parameters, {len(data.train):,} training images of "
          f"{data.name}, {_steps_per_epoch(data, settings['batch_size'])} steps an epoch -> {options.out}", flush=True)
    result = fit(*arguments, **settings, out=options.out, resume=options.resume).result
    if options.l1 is not None:
        print(f"weights that are exactly zero: {100 * sparsity(model)['all']:.2f} %")
    best = f", best epoch {result['best_epoch']}" if "best_epoch" in result else ""
    print(f"test accuracy {100 * result['test_accuracy']:.2f} %, test loss {result['test_loss']:.4f} "
          f"({result['epochs']} epochs{best}, {result['seconds']:.1f} s); curves.png and result.json in {options.out}")


def training(options: argparse.Namespace, load: Callable[..., Dataset] | None = None) -> tuple[tuple, dict[str, Any]]:
    """What `fit` is called with for the options of `train_options`: its arguments, model and data first, and its
    settings but `out` and `resume`. `load` takes the place of `fastnet.data.load`."""
    from fastnet.train.stopping import EarlyStopping

    settings = entry(options.model).settings
    optimizer = cli_options.optimizer(options, settings)
    data, model, common = _prepared(options, load)
    if options.weights is not None:
        cli_trained.start_from(model, options.weights, data.train.images.shape[1:])
    epochs = _first(options.epochs, settings.epochs)
    schedule = cli_options.schedule(options, settings, optimizer.lr, epochs,
                                    _steps_per_epoch(data, common["batch_size"]))
    stopping = (None if options.early_stopping is None
                else EarlyStopping(options.early_stopping, metric=options.stop_metric))
    return (model, data, optimizer, schedule), {
        "epochs": epochs, "penalty": cli_options.penalties(options, settings),
        "augmentation": cli_options.augmentation(options, settings), "rates": cli_options.rates(options),
        "accumulate": options.accumulate, "average": options.average, "early_stopping": stopping,
        "checkpoint_seconds": options.checkpoint_seconds, "graph": not options.no_graph, **common}


def _steps_per_epoch(data: Dataset, batch_size: int) -> int:
    return -(-len(data.train) // max(1, batch_size))


def lr_range(options: argparse.Namespace) -> None:
    """Run a learning-rate range test; print the suggestion, draw the figure."""
    from fastnet import plots
    from fastnet.train.lr_range import lr_range_test

    settings = entry(options.model).settings
    optimizer = cli_options.optimizer(options, settings)
    data, model, common = _prepared(options)
    _notice(data)
    found = lr_range_test(model, data, optimizer, lr_min=options.lr_min, lr_max=options.lr_max, steps=options.steps,
                          penalty=cli_options.penalties(options, settings), **common)
    path = options.out or _unused(f"lr-range-{options.model}-{_kind(options)}", ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    plots.lr_range(found.rates, found.losses, found.smoothed, found.suggestion, path,
                   title=f"{options.model} on {data.name}, {optimizer.name}")
    print(f"{len(found.rates)} steps, rates {found.rates[0]:.1e} to {found.rates[-1]:.1e}; the smoothed loss is least "
          f"at {10 * found.suggestion:.2e}; suggestion for a largest rate: {found.suggestion:.2e}\n{path}")


def _notice(data: Dataset) -> None:
    if data.identity.get("notice"):
        print(data.identity["notice"], flush=True)


def _prepared(options: argparse.Namespace,
              load: Callable[..., Dataset] | None = None) -> tuple[Dataset, Sequential, dict[str, Any]]:
    """The data, a model that fits it, and the arguments that training and the range test share."""
    import fastnet.data

    settings = entry(options.model).settings
    devices.library(options.device)
    if options.dtype in SIXTEEN_BITS and options.device == "cpu":
        raise ValueError(f"--dtype {options.dtype} is for GPUs: no kernel for the CPU takes it, and float32 is many "
                         "times faster there")
    if options.threads is not None:
        set_threads(options.threads)
    given = cli_options.model_options(options)
    given |= {key: getattr(options, key) for key in ("init", "activation") if getattr(options, key) is not None}
    if options.norm_after:
        given["norm_after"] = True
    build(options.model, **given)  # so that a mistake is said before the data are loaded
    data = (load or fastnet.data.load)(
        options.data, options.data_dir, order=options.order, seed=options.seed, image_size=options.image_size,
        split=options.split or (settings.split if options.data == "cifar10" else None))
    given |= fitting(options.model, data.train.images.shape[1:], len(data.classes))
    model = build(options.model, seed=options.seed, dtype=options.dtype, device=options.device, **given)
    smoothing = options.label_smoothing
    return data, model, {
        "batch_size": _first(options.batch_size, settings.batch_size), "loss": options.loss, "seed": options.seed,
        "loss_options": None if smoothing is None else {"label_smoothing": smoothing},
        "normalization": _first(options.normalization, settings.normalization)}


def check_gradients(options: argparse.Namespace) -> int:
    """Print a row for every op, implementation and case, then for every model; 1 if any fails."""
    if cli_check.elsewhere(options):
        return cli_check.run(options)
    from fastnet.check import check_models, check_ops, format_table
    from fastnet.check.cases import ops

    if options.replay is not None:
        return cli_lockstep.replay(options)
    if options.against is not None:
        return cli_lockstep.against(options)
    devices.library(options.device)
    wrong = [name for name in options.names if name not in ops() and name not in MODELS]
    if wrong:
        raise ValueError(f"{', '.join(map(repr, wrong))}: no such op or model; ops are {', '.join(ops())}; models are "
                         f"{', '.join(MODELS)}")
    reports = check_ops([name for name in options.names if name not in MODELS] if options.names else None,
                        seed=options.seed, device=options.device)
    reports += check_models([name for name in options.names if name in MODELS] if options.names else None,
                            seed=options.seed, device=options.device)
    print(format_table(reports))
    failed = sum(not report.passed for report in reports)
    print(f"{len(reports) - failed} of {len(reports)} checks passed, "
          f"{sum(row.entries for report in reports for row in report.rows):,} entries compared")
    return 1 if failed else 0


def bench(options: argparse.Namespace) -> None:
    from fastnet.bench import command

    options.shape = None if options.input is None else cli_options.image_shape(options.input)
    options.given = cli_options.model_options(options)
    command.run(options)


def models(options: argparse.Namespace) -> None:
    """List name, parameters, MACs."""
    rows = [("model", "parameters", "MACs", "trained as in", "what")]
    for name, row in MODELS.items():
        model = build(name)
        rows.append((name, f"{model.num_parameters():,}", f"{model.macs(row.input_shape):,}", row.settings.source,
                     row.about))
    print(align(rows, right=(1, 2)))


def summarize(options: argparse.Namespace) -> None:
    """Show shapes, parameters, MACs and bytes, and what a step of SGD with momentum is predicted to need."""
    from fastnet import backend
    from fastnet.optim.optimizers import SGD
    from fastnet.train.memory import format_step_memory, step_memory

    if options.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1 but is {options.batch_size}")
    given, shape = cli_options.model_options(options), entry(options.model).input_shape
    if options.input is not None:
        shape = cli_options.image_shape(options.input)
        given |= fitting(options.model, shape)
    model = build(options.model, **given)
    print(format_summary(model, shape, options.batch_size))
    if backend.module("cpu", "linear") is None:
        print("peak memory of a training step: not known without Numba, for whose kernels it is predicted")
    else:
        print(format_step_memory(step_memory(model, shape, options.batch_size, SGD(lr=1.0, momentum=0.9))))


def plot_run(options: argparse.Namespace) -> None:
    """Draw the figures of a run again, or a schedule before any run."""
    from fastnet import plots
    from fastnet.train.curves import draw_curves

    if options.schedule is not None:
        if options.run_dir is not None:
            raise ValueError("give a run directory or --schedule, not both")
        if options.epochs < 1 or options.steps_per_epoch < 1:
            raise ValueError("--epochs and --steps-per-epoch must be at least 1")
        options.optimizer = None
        schedule = cli_options.schedule(options, Settings(""), options.lr, options.epochs, options.steps_per_epoch)
        rates = [schedule(t) for t in range(options.epochs * options.steps_per_epoch)]
        path = options.out or Path(f"{options.schedule}.png")
        plots.schedule(rates, path, title=options.schedule.replace("_", " "))
        print(path)
    elif options.run_dir is None:
        raise ValueError("a run directory is needed, or --schedule NAME --lr RATE to draw a schedule")
    elif not options.run_dir.is_dir():
        raise FileNotFoundError(f"{options.run_dir} is not a run directory")
    else:
        print(draw_curves(options.run_dir))


def manage_data(options: argparse.Namespace) -> int:
    """Say where CIFAR-10 is, fetch it, or compare it with the official files."""
    from fastnet.data import cifar10

    if options.action == "download":
        print(cifar10.download(options.data_dir).path)
    elif options.action == "verify" and (checks := cifar10.verify(options.data_dir)):
        print(align([("file", "bytes", "md5", "verdict"), *((c.file, f"{c.size:,}", c.md5, c.verdict) for c in checks)],
                    right=(1,)))
        return 0 if all(check.good for check in checks) else 1
    elif options.action == "path" and (found := cifar10.locate(options.data_dir)):
        print(found.path)
    else:
        raise FileNotFoundError("cifar10: not on this machine; 'fastnet data download' fetches it")
    return 0


def environment(options: argparse.Namespace) -> None:
    """Print what `fastnet.environment` finds."""
    from fastnet.environment import describe

    rows = describe()
    width = max(len(what) for what, _ in rows)
    print("\n".join(f"{what:<{width}}  {value}" for what, value in rows))


def set_threads(threads: int) -> None:
    """Let the kernels use so many threads. Raises ValueError for more than there are."""
    import numba

    most = numba.get_num_threads()  # nothing has lowered it yet
    if not 1 <= threads <= most:
        raise ValueError(f"--threads must be in 1..{most} on this machine but is {threads}")
    numba.set_num_threads(threads)


def _unused(stem: str, suffix: str = "") -> Path:
    """The first of runs/STEM-1, runs/STEM-2, ... that is not there."""
    number = 1
    while (Path("runs") / f"{stem}-{number}{suffix}").exists():
        number += 1
    return Path("runs") / f"{stem}-{number}{suffix}"


def _kind(options: argparse.Namespace) -> str:
    return options.data.partition(":")[0]  # a folder's own path is no part of a file's name


def _first(given: Any, default: Any) -> Any:
    return default if given is None else given


def _own_version() -> str:
    from importlib import metadata

    return metadata.version("fastnet")
