"""The command line: `fastnet COMMAND`. Exit status 0 done, 1 a check failed, 2 bad input, 130 interrupted."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fastnet.nn.models import MODELS, Settings, build, entry
from fastnet.nn.sequential import Sequential
from fastnet.nn.summary import align, format_summary
from fastnet.optim.optimizers import OPTIMIZERS, Optimizer
from fastnet.optim.schedules import SCHEDULES, Schedule, constant, exponential, triangular

# What `fastnet check` proves beside the ops: name, options.
CHECKED_MODELS: list[tuple[str, dict[str, Any]]] = [
    ("mlp2", {}), ("mlp2", {"batch_norm": True}), ("mlp3", {}), ("mlp3-bn", {}), ("mlp9", {}), ("mlp9-bn", {})]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
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
    except (ValueError, TypeError, OSError, FloatingPointError, OverflowError) as error:
        if os.environ.get("FASTNET_TRACEBACK"):
            raise
        print(f"fastnet {options.command}: {_one_line(error)}", file=sys.stderr)
        return 2


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
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int | None], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        return added

    _train_options(command("train", train, "Train a model; its report's settings are the defaults."))
    check = command("check", check_gradients, "Check gradients: all ops and six MLPs, or those named.")
    check.add_argument("names", nargs="*", metavar="NAME", help="ops or models (default: all)")
    check.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    check.add_argument("--seed", type=int, default=0, help="of the random inputs (default 0)")
    command("models", models, "List the models.")
    summary = command("summary", summarize, "Show a model layer by layer.")
    summary.add_argument("model", metavar="MODEL")
    summary.add_argument("--batch-size", type=int, default=100)
    plot = command("plot", plot_run, "Draw the figures of a run from its record.")
    plot.add_argument("run_dir", metavar="RUN_DIR", type=Path)
    data = command("data", manage_data, "Find, download or verify CIFAR-10.")
    data.add_argument("action", nargs="?", choices=("path", "download", "verify"), default="path")
    data.add_argument("--data-dir", type=Path)
    command("env", environment, "Show versions, threads, BLAS, GPU and which backend runs.")
    return parser


def _train_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help="a name that 'fastnet models' lists")
    add("--data", choices=("cifar10", "shapes10"), default="cifar10")
    add("--data-dir", type=Path, help="where CIFAR-10 lies (else $FASTNET_DATA, else the cache, else downloaded)")
    add("--split", metavar="A/B", help="training and validation images, such as 45000/5000")
    add("--order", choices=("random", "file"), default="random", help="how the split is drawn")
    add("--epochs", type=int)
    add("--batch-size", type=int)
    add("--seed", type=int, default=0)
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--threads", type=int, help="threads of the kernels; the result has the same bits for any number")
    add("--out", type=Path, help="the run directory (default: a new one under runs/)")
    add("--resume", action="store_true", help="continue the run in --out from its checkpoint")
    group = parser.add_argument_group("optimizer")
    add = group.add_argument
    add("--optimizer", choices=tuple(OPTIMIZERS))
    add("--lr", type=float, help="the rate; the largest of a triangular schedule")
    add("--momentum", type=float, help="of sgd")
    add("--nesterov", action="store_true", help="Nesterov's momentum, of sgd")
    add("--beta1", type=float, default=0.9, help="of adam")
    add("--beta2", type=float, default=0.999, help="of adam")
    add("--eps", type=float, default=1e-8, help="of adam")
    add("--eps-mode", choices=("outside", "inside", "hat"), default="outside", help="where adam adds eps")
    group = parser.add_argument_group("schedule")
    add = group.add_argument
    add("--schedule", choices=tuple(SCHEDULES))
    add("--lr-min", type=float, help="of a triangular schedule")
    add("--half-cycle-epochs", type=float, help="of a triangular schedule")
    add("--decay", type=float, help="factor of an exponential schedule, per epoch")
    group = parser.add_argument_group("penalty, loss and model")
    add = group.add_argument
    penalty = group.add_mutually_exclusive_group()
    penalty.add_argument("--l2", type=float, metavar="LAMBDA", help="lambda sum w^2 (twice lambda is the weight decay)")
    penalty.add_argument("--weight-decay", type=float, metavar="WD", help="wd/2 sum w^2")
    add("--loss", default="softmax_cross_entropy", help="default: softmax_cross_entropy")
    add("--label-smoothing", type=float, help="of softmax_cross_entropy")
    add("--normalization", choices=("pixel", "channel"), help="what mean and standard deviation are per")
    add("--init", help="initialiser of the weights, such as kaiming_normal or normal:0.01")
    add("--activation", help="such as relu, leaky_relu, gelu, swish")
    add("--norm-after", action="store_true", help="batch norm after the activation instead of before")


def train(options: argparse.Namespace) -> None:
    """Train, writing a run directory."""
    from fastnet.data import load
    from fastnet.optim.penalties import L2, WeightDecay
    from fastnet.train.loop import fit

    settings = entry(options.model).settings
    _require_device(options.device)
    if options.resume and options.out is None:
        raise ValueError("--resume needs --out, the directory of the run to continue")
    if options.threads is not None:
        _set_threads(options.threads)
    given = {key: getattr(options, key) for key in ("init", "activation") if getattr(options, key) is not None}
    model = build(options.model, seed=options.seed, dtype=options.dtype, **given,
                  **({"norm_after": True} if options.norm_after else {}))
    batch_size = _first(options.batch_size, settings.batch_size)
    penalty = (WeightDecay(options.weight_decay) if options.weight_decay is not None
               else L2(_first(options.l2, settings.l2)))
    optimizer = _optimizer(options, settings)
    data = load(options.data, options.data_dir, order=options.order, seed=options.seed,
                split=options.split or (settings.split if options.data == "cifar10" else None))
    if data.identity.get("notice"):
        print(data.identity["notice"], flush=True)
    steps_per_epoch = -(-len(data.train) // batch_size) if batch_size > 0 else 1
    schedule = _schedule(options, settings, steps_per_epoch)
    options.out = options.out or _new_directory(f"{options.model}-{options.data}")
    print(f"{options.model}: {model.num_parameters():,} parameters, {len(data.train):,} training images of "
          f"{data.name}, {steps_per_epoch} steps an epoch -> {options.out}", flush=True)
    run = fit(model, data, optimizer, schedule, epochs=_first(options.epochs, settings.epochs), batch_size=batch_size,
              penalty=penalty, loss=options.loss, seed=options.seed, out=options.out, resume=options.resume,
              normalization=_first(options.normalization, settings.normalization),
              loss_options=({"label_smoothing": options.label_smoothing}
                            if options.label_smoothing is not None else None))
    result = run.result
    print(f"test accuracy {100 * result['test_accuracy']:.2f} %, test loss {result['test_loss']:.4f} "
          f"({result['epochs']} epochs, {result['seconds']:.1f} s); curves.png and result.json in {options.out}")


def _optimizer(options: argparse.Namespace, settings: Settings) -> Optimizer:
    name = _first(options.optimizer, settings.optimizer)
    lr = _first(options.lr, settings.lr)
    if name == "adam":
        return OPTIMIZERS["adam"](lr, beta1=options.beta1, beta2=options.beta2, eps=options.eps,
                                  eps_mode=options.eps_mode)
    return OPTIMIZERS["sgd"](lr, momentum=_first(options.momentum, settings.momentum), nesterov=options.nesterov)


def _schedule(options: argparse.Namespace, settings: Settings, steps_per_epoch: int) -> Schedule:
    name = _first(options.schedule, settings.schedule)
    lr = _first(options.lr, settings.lr)
    if name == "triangular":
        half = _first(options.half_cycle_epochs, settings.half_cycle_epochs)
        if not 0 < half < float("inf"):
            raise ValueError(f"--half-cycle-epochs must be a positive number but is {half}")
        return triangular(_first(options.lr_min, settings.lr_min), lr,
                          half_cycle_steps=max(1, round(half * steps_per_epoch)))
    if name == "exponential":
        return exponential(lr, _first(options.decay, settings.decay), unit="epoch", steps_per_epoch=steps_per_epoch)
    return constant(lr)


def check_gradients(options: argparse.Namespace) -> int:
    """Print a row for every op, implementation and case, then for every model; 1 if any fails."""
    from fastnet.check import check_ops, format_table
    from fastnet.check.cases import ops

    _require_device(options.device)
    wrong = [name for name in options.names if name not in ops() and name not in MODELS]
    if wrong:
        raise ValueError(f"{', '.join(map(repr, wrong))}: no such op or model; ops are {', '.join(ops())}; models are "
                         f"{', '.join(MODELS)}")
    chosen_ops = [name for name in options.names if name not in MODELS] if options.names else ops()
    chosen_models = ([(name, {}) for name in options.names if name in MODELS] if options.names else CHECKED_MODELS)
    reports = check_ops(chosen_ops, seed=options.seed)
    reports += [_check_model(build(name, seed=options.seed, **given), options.seed) for name, given in chosen_models]
    print(format_table(reports))
    failed = sum(not report.passed for report in reports)
    print(f"{len(reports) - failed} of {len(reports)} checks passed, "
          f"{sum(row.entries for report in reports for row in report.rows):,} entries compared")
    return 1 if failed else 0


def _check_model(model: Sequential, seed: int) -> Any:
    import numpy as np

    from fastnet.check import check_model

    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(10, *entry(model.model_name or "").input_shape)), rng.integers(0, 10, 10)
    report = check_model(model, x, labels, seed=seed, raises=False)
    if model.settings["options"].get("batch_norm") and not report.op.endswith("-bn"):
        report.op += " + batch norm"
    return report


def models(options: argparse.Namespace) -> None:
    """List name, parameters, MACs."""
    rows = [("model", "parameters", "MACs", "trained as in", "what")]
    for name, row in MODELS.items():
        model = build(name)
        rows.append((name, f"{model.num_parameters():,}", f"{model.macs(row.input_shape):,}", row.settings.source,
                     row.about))
    print(align(rows, right=(1, 2)))


def summarize(options: argparse.Namespace) -> None:
    """Show shapes, parameters, MACs and bytes."""
    if options.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1 but is {options.batch_size}")
    print(format_summary(build(options.model), entry(options.model).input_shape, options.batch_size))


def plot_run(options: argparse.Namespace) -> None:
    """Draw curves.png again."""
    from fastnet.train.loop import draw_curves

    if not options.run_dir.is_dir():
        raise FileNotFoundError(f"{options.run_dir} is not a run directory")
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


def _require_device(device: str) -> None:
    if device == "cuda":
        from fastnet.environment import gpu

        raise ValueError(f"--device cuda: this version trains on the CPU only (GPU: {gpu()})")


def _set_threads(threads: int) -> None:
    import numba

    most = numba.get_num_threads()  # nothing has lowered it yet
    if not 1 <= threads <= most:
        raise ValueError(f"--threads must be in 1..{most} on this machine but is {threads}")
    numba.set_num_threads(threads)


def _new_directory(stem: str) -> Path:
    number = 1
    while (Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return Path("runs") / f"{stem}-{number}"


def _first(given: Any, default: Any) -> Any:
    return default if given is None else given


def _own_version() -> str:
    from importlib import metadata

    return metadata.version("fastnet")


if __name__ == "__main__":
    sys.exit(main())
