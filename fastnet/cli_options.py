"""From command-line options to optimizers, schedules, penalties and augmentation.

A table says which option each of them takes, so that one which belongs to another is refused instead of ignored.
"""

import argparse
import ast
import inspect
from collections.abc import Callable
from typing import Any

from fastnet import devices
from fastnet.data import Augmentation
from fastnet.nn.models import Settings
from fastnet.optim.optimizers import OPTIMIZERS, Optimizer
from fastnet.optim.penalties import L1, L2, DecoupledDecay, Penalty, WeightDecay
from fastnet.optim.schedule import Schedule
from fastnet.optim.schedules import SCHEDULES

OPTIMIZER_OPTIONS = ("momentum", "nesterov", "beta1", "beta2", "eps", "eps_mode", "rho", "alpha", "initial")

# Option of the command line for each argument of a schedule; lengths are in epochs there.
SCHEDULE_OPTIONS: dict[str, dict[str, str]] = {
    "constant": {},
    "triangular": {"lr_min": "lr_min", "half_cycle_steps": "half_cycle_epochs"},
    "exponential": {"decay": "decay"},
    "step_decay": {"factor": "factor", "every": "every"},
    "cosine": {"floor": "lr_min"},
    "one_cycle": {},
    "warmup_linear": {"warmup_steps": "warmup_epochs"},
    "reduce_on_plateau": {"factor": "factor", "patience": "patience", "metric": "metric", "min_lr": "lr_min"},
}


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=tuple(devices.LIBRARIES), default="cpu", help="where the arrays live")


def add_model(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument("model", metavar="MODEL", nargs=nargs, help="a name that 'fastnet models' lists")
    add_model_options(parser)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE",
                        help="option of the model, such as filter_multiplier=0.5 (may be repeated)")


def add_optimizer(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("optimizer").add_argument
    add("--optimizer", choices=tuple(OPTIMIZERS))
    add("--lr", type=float, help="the rate; the largest of a schedule that moves")
    add("--momentum", type=float, help="of sgd")
    add("--nesterov", action="store_true", default=None, help="Nesterov's momentum, of sgd")
    add("--beta1", type=float, help="of adam, adamw, adamax")
    add("--beta2", type=float, help="of adam, adamw, adamax")
    add("--eps", type=float, help="of all but sgd")
    add("--eps-mode", choices=("outside", "inside", "hat"), help="where eps is added: of adam, adamw, rmsprop")
    add("--rho", type=float, help="of adadelta")
    add("--alpha", type=float, help="of rmsprop")
    add("--initial", type=float, help="first value of adagrad's sum of squares")
    add("--rate", action="append", default=[], metavar="PATTERN=FACTOR",
        help="factor of the rate for the parameters that match, such as 'linear1.*=0.1' (may be repeated)")


def add_schedule(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("schedule").add_argument
    add("--schedule", choices=tuple(SCHEDULES))
    add("--lr-min", type=float, help="least rate: of triangular, cosine, reduce_on_plateau")
    add("--half-cycle-epochs", type=float, help="of triangular")
    add("--decay", type=float, help="factor an epoch, of exponential")
    add("--factor", type=float, help="of step_decay and reduce_on_plateau")
    add("--every", metavar="N[,N...]", help="epochs between the steps of step_decay, or its milestones (one: '25,')")
    add("--warmup-epochs", type=float, help="of warmup_linear")
    add("--patience", type=int, help="epochs without improvement, of reduce_on_plateau")
    add("--metric", help="field of the history, of reduce_on_plateau")


def add_penalty(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("penalty on the weights (they add up)").add_argument
    add("--l2", type=float, metavar="LAMBDA", help="lambda sum w^2 (twice lambda is the weight decay)")
    add("--weight-decay", type=float, metavar="WD", help="wd/2 sum w^2")
    add("--decoupled-decay", type=float, metavar="WD", help="weights shrink by lr wd a step, past the optimizer")
    add("--l1", type=float, metavar="LAMBDA", help="lambda sum |w|")
    add("--proximal", action="store_true", help="L1 by its proximal step: exact zeros")


def add_augmentation(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("augmentation of the training images").add_argument
    add("--crop", type=int, metavar="PAD", help="random crop after a border of PAD black pixels (0: none)")
    add("--flip", action=argparse.BooleanOptionalAction, default=None, help="left-right, every other image")
    add("--vertical-flip", action="store_true", help="upside down, every other image")
    add("--resized-crop", type=float, nargs=2, metavar=("LO", "HI"), help="random part of LO..HI of the area, resized")
    add("--cutout", type=int, default=0, metavar="SIDE", help="a square of the mean colour")


def optimizer(options: argparse.Namespace, settings: Settings) -> Optimizer:
    """The optimizer asked for, else the model's own. Raises ValueError for an option that it does not take."""
    name = options.optimizer or settings.optimizer
    made: Callable[..., Optimizer] = OPTIMIZERS[name]
    takes = inspect.signature(made).parameters
    given = {key: value for key in OPTIMIZER_OPTIONS if (value := getattr(options, key)) is not None}
    if name == "sgd":
        given.setdefault("momentum", settings.momentum)
    _refuse(name, [key for key in given if key not in takes], [key for key in OPTIMIZER_OPTIONS if key in takes])
    lr = options.lr if options.lr is not None else settings.lr if name == settings.optimizer else takes["lr"].default
    return made(lr, **given)


def schedule(options: argparse.Namespace, settings: Settings, lr: float | None, epochs: int,
             steps_per_epoch: int) -> Schedule:
    """The schedule asked for, else the model's own, or a constant rate for another optimizer than the model's."""
    own = options.optimizer in (None, settings.optimizer)
    name = options.schedule or (settings.schedule if own else "constant")
    if lr is None:
        raise ValueError(f"--schedule {name} needs --lr")
    given = {option: value for option in {o for row in SCHEDULE_OPTIONS.values() for o in row.values()}
             if (value := getattr(options, option)) is not None}
    takes = SCHEDULE_OPTIONS[name]
    _refuse(name, [option for option in given if option not in takes.values()], list(takes.values()))
    defaults = {"lr_min": settings.lr_min if name in ("triangular", settings.schedule) else None,
                "half_cycle_epochs": settings.half_cycle_epochs, "decay": settings.decay, "every": settings.every,
                "patience": settings.patience, "factor": 0.1, "warmup_epochs": 1.0}
    arguments: dict[str, Any] = {}
    for argument, option in takes.items():
        value = given.get(option, defaults.get(option))
        if value is not None:
            arguments[argument] = _steps(option, value, steps_per_epoch) if argument.endswith("steps") else value
    if name == "step_decay":
        arguments["every"] = _numbers(arguments["every"])
    if name in ("exponential", "step_decay"):
        arguments |= {"unit": "epoch", "steps_per_epoch": steps_per_epoch}
    if name in ("cosine", "one_cycle", "warmup_linear"):
        arguments["steps"] = epochs * steps_per_epoch
    return SCHEDULES[name](lr_max=lr, **arguments) if name == "triangular" else SCHEDULES[name](lr, **arguments)


def penalties(options: argparse.Namespace, settings: Settings) -> list[Penalty]:
    """The penalties asked for, else the model's own. Raises ValueError for --proximal without --l1."""
    if options.proximal and options.l1 is None:
        raise ValueError("--proximal needs --l1")
    found: list[Penalty] = []
    for value, made in ((options.l2, L2), (options.weight_decay, WeightDecay),
                        (options.decoupled_decay, DecoupledDecay)):
        if value is not None:
            found.append(made(value))
    if options.l1 is not None:
        found.append(L1(options.l1, proximal=options.proximal))
    return found or [L2(settings.l2)]


def augmentation(options: argparse.Namespace, settings: Settings) -> Augmentation | None:
    """What the options ask for, else the model's own; None for nothing."""
    crop = settings.crop if options.crop is None else options.crop
    flip = settings.flip if options.flip is None else options.flip
    found = Augmentation(pad=crop, horizontal_flip=flip, vertical_flip=options.vertical_flip,
                         resized_crop=tuple(options.resized_crop) if options.resized_crop else None,
                         cutout=options.cutout)
    return None if found == Augmentation() else found


def model_options(options: argparse.Namespace) -> dict[str, Any]:
    """{name: value} of --option: Python's numbers, tuples, True and False, else text. Raises ValueError for others."""
    found: dict[str, Any] = {}
    for text in options.option:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value):
            raise ValueError(f"--option {text!r} is not NAME=VALUE, such as filter_multiplier=0.5")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: nested too deeply
            found[name] = value
    return found


def image_shape(text: str) -> tuple[int, int, int]:
    """HxWxC as numbers. Raises ValueError for anything else, and where the channels seem to come first."""
    try:
        height, width, channels = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise ValueError(f"--input {text!r} is not HEIGHTxWIDTHxCHANNELS, such as 32x32x3") from None
    if min(height, width, channels) < 1:
        raise ValueError(f"--input {text}: sizes must be at least 1")
    if height in (1, 3) and channels not in (1, 3):
        raise ValueError(f"--input {text}: is it CHANNELSxHEIGHTxWIDTH? Channels come last here: "
                         f"{width}x{channels}x{height}")
    return height, width, channels


def rates(options: argparse.Namespace) -> dict[str, float]:
    """{pattern: factor}. Raises ValueError for what is not PATTERN=FACTOR."""
    found = {}
    for text in options.rate:
        pattern, _, factor = text.rpartition("=")
        try:
            found[pattern] = float(factor)
        except ValueError:
            raise ValueError(f"--rate {text!r} is not PATTERN=FACTOR, such as 'linear1.*=0.1'") from None
    return found


def _refuse(name: str, foreign: list[str], taken: list[str]) -> None:
    if foreign:
        flags = ", ".join(f"--{option.replace('_', '-')}" for option in sorted(foreign))
        own = ", ".join(f"--{option.replace('_', '-')}" for option in taken) or "none of its own"
        raise ValueError(f"{flags} does not belong to {name}, which takes {own}")


def _steps(option: str, epochs: float, steps_per_epoch: int) -> int:
    if not 0 < epochs < float("inf"):
        raise ValueError(f"--{option.replace('_', '-')} must be a positive number but is {epochs}")
    return max(1, round(epochs * steps_per_epoch))


def _numbers(text: str) -> int | list[int]:
    try:
        found = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError:
        raise ValueError(f"--every {text!r} is no number of epochs and no list of them, such as 25 or 60,120") from None
    return found if "," in text else found[0]
