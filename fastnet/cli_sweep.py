"""`fastnet sweep`: a search over options of `fastnet train`, each trial a run in a directory of its own."""

import argparse
import copy
import functools
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnet.data import Dataset
from fastnet.lab.search import Choice, Plan, Result, Trial, Tuner
from fastnet.lab.search.journal import Journal
from fastnet.lab.search.space import Space, Value, parse
from fastnet.nn.models import MODELS

BY = ("validation_accuracy", "validation_loss")
# What says how a sweep is run and not what comes of it.
RUNNING = ("run", "command", "over", "trials", "search", "by", "workers", "threads", "journal", "join", "dask")
FIXED = ("model", "data_dir", "checkpoint_seconds", *RUNNING)


def add_sweep(parser: argparse.ArgumentParser) -> None:
    from fastnet.cli import train_options

    train_options(parser, "?")
    add = parser.add_argument_group("the sweep").add_argument
    add("--over", action="append", default=[], metavar="OPTION=VALUES",
        help="the option to vary, by its name: l2=log:1e-5:1e-1, momentum=uniform:0.5:0.99 or "
             "activation=relu,swish (may be repeated)")
    add("--search", choices=tuple(SEARCHES),
        help="coarse: draws; fine: as many again around the two best; factor: half as many twice again, by factors of "
             "the best; grid: all combinations; tpe: optuna (default: coarse, or grid for lists)")
    add("--trials", type=int, default=8, metavar="N",
        help="draws, or values of what is continuous in a grid (default 8)")
    add("--by", choices=BY, default=BY[0], help="what is best (default validation_accuracy)")
    add("--workers", type=int, metavar="N", help="runs at a time, each in a process of its own (default 1)")
    add("--journal", type=Path, metavar="FILE",
        help="what all results go to, the runs beside it (default: a name under runs/ that depends on the options)")
    add("--join", type=Path, metavar="JOURNAL", help="take part in a sweep that another process runs, or has left")
    add("--dask", metavar="ADDRESS",
        help="of a scheduler of dask.distributed whose workers run the trials; they need to see the same files")


SEARCHES = {
    "coarse": lambda n: [("coarse", {"trials": n})],
    "fine": lambda n: [("coarse", {"trials": n}), ("window", {"trials": n, "margin": 0.25})],
    "factor": lambda n: [("coarse", {"trials": n}), *2 * [("factor", {"trials": -(-n // 2), "low": 0.8, "high": 1.2})]],
    "grid": lambda n: [("grid", {"points": n})],
    "tpe": lambda n: [("tpe", {"trials": n, "wave": 4})],
}


def sweep(options: argparse.Namespace) -> int:
    """Run, continue or join a sweep; print its table, draw its figure. 1 where every trial failed."""
    if options.join is not None:
        options, plan = _joined(options)
    elif options.model is None:
        raise ValueError("a MODEL is needed, or --join JOURNAL")
    else:
        plan = None
    for name in ("workers", "trials"):
        if (given := getattr(options, name)) is not None and given < 1:
            raise ValueError(f"--{name} must be at least 1 but is {given}")
    space = _space(options)
    search = options.search or ("grid" if all(isinstance(one, Choice) for one in space.values()) else "coarse")
    settings = {"train": _settings(options), "by": options.by}
    journal = options.journal or _own_journal(options, {name: one.settings() for name, one in space.items()}, settings)
    runs = _runs(options)
    _rehearse(runs, space)
    with _executor(options) as (executor, workers):
        tuner = Tuner(Training(runs, options.by), space, journal=journal, executor=executor,
                      workers=workers, minimize=options.by.endswith("loss"), seed=options.seed, settings=settings,
                      threads=options.threads, report=lambda result: _say(result, options.by))
        ended = f", {len(tuner.results)} trials have ended before" if tuner.results else ""
        print(f"{options.model}: {search} search over {', '.join(space)} by {options.by.replace('_', ' ')}{ended} -> "
              f"{journal}", flush=True)
        try:
            tuner.run(plan or SEARCHES[search](options.trials))
        except KeyboardInterrupt:
            print(f"\ninterrupted; the same command goes on from {journal}", file=sys.stderr)
            return 130
    return _finish(tuner, journal, options)


@dataclass(frozen=True)
class Training:
    """The objective: a run with the options of the command line but those that the trial has."""

    options: argparse.Namespace
    by: str

    def __call__(self, trial: Trial) -> float:
        from fastnet import cli

        arguments, settings = cli.training(_with(self.options, trial.parameters), _load)
        run = trial.fit(*arguments, **settings)
        return run.history[run.result.get("best_epoch", 0) - 1][self.by]


@functools.lru_cache(maxsize=1)
def _load(*arguments: Any, **options: Any) -> Dataset:
    """The data, read once for all trials of a process."""
    import fastnet.data

    return fastnet.data.load(*arguments, **options)


def _space(options: argparse.Namespace) -> Space:
    found: Space = {}
    for text in options.over:
        name, equals, values = text.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not equals or name in FIXED or name not in vars(options):
            raise ValueError(f"--over {text!r} is not OPTION=VALUES with an option that a run depends on, such as "
                             "l2=log:1e-5:1e-1")
        if name in found:
            raise ValueError(f"--over {name} is given twice")
        found[name] = parse(values)
    if not found:
        raise ValueError("a sweep needs --over OPTION=VALUES, such as --over l2=log:1e-5:1e-1")
    return found


def _with(options: argparse.Namespace, parameters: Any) -> argparse.Namespace:
    """The options with these parameters, as the command line would read them."""
    given = _parser().parse_args([options.model, *(f"--{_flag(name)}={value}" for name, value in parameters.items())])
    found = {name: getattr(given, name) for name in parameters}
    found |= {name: [*getattr(options, name), *value] for name, value in found.items() if isinstance(value, list)}
    return argparse.Namespace(**{**vars(options), **found})


def _rehearse(options: argparse.Namespace, space: Space) -> None:
    """What would fail in every trial fails here, before any: options, data, and values that an option does not take."""
    from fastnet import cli

    ends = {name: one.grid(2) for name, one in space.items()}
    first = {name: values[0] for name, values in ends.items()}
    # All are parsed before the first of them loads any data.
    for given in [_with(options, {**first, name: value}) for name, values in ends.items() for value in values]:
        (_, data, *_), _ = cli.training(given, _load)
    if not len(data.validation):
        raise ValueError("a sweep chooses by validation images, but the split has none")
    if data.identity.get("notice"):
        print(data.identity["notice"], flush=True)


@functools.cache
def _parser() -> argparse.ArgumentParser:
    from fastnet.cli import Command, train_options

    parser = Command(prog="fastnet sweep")
    train_options(parser)
    return parser


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the runs that are not the defaults, as JSON."""
    usual = vars(_parser().parse_args([options.model]))
    found = {name: value for name, value in vars(options).items()
             if name not in RUNNING and (name == "model" or value != usual[name])}
    return json.loads(json.dumps(found, default=str))


def _joined(options: argparse.Namespace) -> tuple[argparse.Namespace, Plan]:
    """The options of the sweep whose journal is joined, and what it plans. Raises ValueError where they are none."""
    from fastnet import cli

    there = Journal(options.join).sweep
    try:
        train, by = dict(there.header["settings"]["train"]), there.header["settings"]["by"]
        if (model := train.pop("model")) not in MODELS:
            raise ValueError
        arguments = ["sweep", model, f"--by={by}", *_as_arguments(train),
                     *(f"--over={name}={_as_text(one.settings())}" for name, one in there.space.items())]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{options.join} is not the journal of 'fastnet sweep'") from None
    if not there.plan:
        raise ValueError(f"{options.join} plans nothing yet")
    found = cli.parsed(arguments)
    found.journal = options.join
    found.workers, found.dask, found.threads = options.workers, options.dask, options.threads
    return found, there.plan


def _as_arguments(settings: dict[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        if value is True or value is False:
            yield f"--{'' if value else 'no-'}{_flag(name)}"
        elif isinstance(value, list) and all(isinstance(one, str) for one in value):
            yield from (f"--{_flag(name)}={one}" for one in value)
        elif isinstance(value, list):
            yield from (f"--{_flag(name)}", *map(str, value))
        else:
            yield f"--{_flag(name)}={value}"


def _as_text(settings: list[Any]) -> str:
    kind, *values = settings
    return ",".join(map(str, values)) if kind == "choice" else ":".join(map(str, settings))


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _own_journal(options: argparse.Namespace, space: dict[str, Any], settings: dict[str, Any]) -> Path:
    """The same name for the same options, so that the same command goes on."""
    mark = hashlib.sha256(json.dumps([space, settings]).encode()).hexdigest()[:8]
    return Path("runs") / f"sweep-{options.model}-{'-'.join(space)}-{mark}.jsonl"


def _runs(options: argparse.Namespace) -> argparse.Namespace:
    """The options as the runs get them: how many threads there are is settled for each process, and where it stands
    does not matter."""
    found = copy.copy(options)
    found.threads = None
    found.data_dir = options.data_dir and options.data_dir.absolute()
    found.weights = options.weights and options.weights.absolute()
    return found


@contextmanager
def _executor(options: argparse.Namespace) -> Iterator[tuple[Any, int]]:
    """An executor, None for processes of this machine, and how many trials it has at a time."""
    if options.dask is None:
        if options.threads is not None and options.workers in (None, 1):
            from fastnet.cli import set_threads

            set_threads(options.threads)
        yield None, options.workers or 1
        return
    if options.threads is not None:
        raise ValueError("--threads and --dask: its workers have the threads that they were started with")
    try:
        from distributed import Client
    except ImportError:
        raise ImportError("--dask needs distributed: pip install 'fastnet[cluster]'") from None
    with Client(options.dask) as client:
        workers = options.workers or sum(client.nthreads().values())
        if not workers:
            raise ValueError(f"the scheduler {options.dask} has no workers")
        yield client.get_executor(), workers


def _say(result: Result, by: str) -> None:
    values = "  ".join(f"{name} {_short(value)}" for name, value in result.parameters.items())
    print(f"trial {result.trial}: {values}  " + (f"{by} {result.value:.4f}  {result.seconds:.1f} s"
                                                 if result.error is None else f"failed: {result.error}"), flush=True)


def _finish(tuner: Tuner, journal: Path, options: argparse.Namespace) -> int:
    from fastnet.lab.search.figure import draw_search

    print(tuner.table())
    if all(result.value is None for result in tuner.results):
        print(f"fastnet sweep: all {len(tuner.results)} trials failed", file=sys.stderr)
        return 1
    best = tuner.best
    figure = journal.with_suffix(".png")
    draw_search(tuner.results, tuner.space, figure, value=options.by, best=best,
                title=f"{options.model}, {len(tuner.results)} trials")
    train = _settings(_with(options, best.parameters))
    command = " ".join(["fastnet train", train.pop("model"), *_as_arguments(train)])
    print(f"best: trial {best.trial}, {options.by.replace('_', ' ')} {best.value:.4f}; {figure}\n{command}")
    return 0


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
