"""`fastnet check --against FIRST SECOND MODEL`: two implementations train a model in lockstep; `--replay` of a file."""

import argparse
import itertools
from pathlib import Path

from fastnet import backend, cli_options
from fastnet.check.lockstep import Departure, Lockstep, again, lockstep
from fastnet.check.replay import packed, unpacked
from fastnet.nn.models import build, entry, fitting
from fastnet.nn.summary import align
from fastnet.train import checkpoint

WORST = 10  # rows that are printed


def add(parser: argparse.ArgumentParser) -> None:
    """The options that only these two forms of `fastnet check` take."""
    group = parser.add_argument_group("lockstep: two implementations on the same training steps")
    add = group.add_argument
    add("--against", nargs=2, metavar=("FIRST", "SECOND"), choices=backend.IMPLEMENTATIONS,
        help=f"run each op of training steps of one MODEL by both ({', '.join(backend.IMPLEMENTATIONS)}) and name the "
             "first layer that departs further than rounding explains")
    add("--replay", type=Path, metavar="FILE", help="run the op of such a departure again")
    add("--data", default="shapes10", metavar="NAME", help="as for train (default shapes10)")
    add("--data-dir", type=Path, help="where CIFAR-10 lies")
    add("--steps", type=int, default=3, help="training steps (default 3)")
    add("--batch-size", type=int, default=32, help="images a step (default 32)")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--out", type=Path, default=Path("departure.safetensors"), metavar="FILE",
        help="where a departure is saved (default departure.safetensors)")
    cli_options.add_model_options(parser)
    cli_options.add_optimizer(parser)


def against(options: argparse.Namespace) -> int:
    """Print how far the implementations are apart, the worst layers first; 1, and a file, where they depart."""
    from fastnet.data import Batches, Standardization, load
    from fastnet.train.step import TrainStep

    if len(options.names) != 1:
        raise ValueError(f"--against takes one model, got {', '.join(options.names) or 'none'}")
    if options.steps < 1:
        raise ValueError(f"--steps must be at least 1 but is {options.steps}")
    name = options.names[0]
    settings = entry(name).settings
    data = load(options.data, options.data_dir, seed=options.seed)
    given = cli_options.model_options(options) | fitting(name, data.train.images.shape[1:], len(data.classes))
    model = build(name, seed=options.seed, dtype=options.dtype, **given)
    standardization = Standardization.fit(data.train.images, settings.normalization)
    batches = Batches(data.train, standardization, options.batch_size, seed=options.seed, dtype=options.dtype)
    if options.steps > len(batches):
        raise ValueError(f"--steps is {options.steps}, but {len(data.train)} images make {len(batches)} batches of "
                         f"{options.batch_size}")
    step = TrainStep(model, cli_options.optimizer(options, settings), seed=options.seed)
    found = lockstep(model, step, ((*batch, 0) for batch in itertools.islice(batches.epoch(0), options.steps)),
                     *options.against)
    print(_table(found))
    for side, ops in found.fallbacks.items():
        if ops:
            print(f"{side} has no code for {', '.join(sorted(ops))} of this model: the reference stood in")
    if found.departure is None:
        print(f"{name}: {found.first} and {found.second} agree in {found.steps} steps on {data.name}, "
              f"{sum(row.calls for row in found.rows)} calls; beyond the bound but by rounding alone: "
              f"{sum(row.explained for row in found.rows)} results")
        return 0
    return _departed(found.departure, found.first, found.second, options.out)


def replay(options: argparse.Namespace) -> int:
    """Make the call in the file again; 1 where the implementations still differ."""
    try:
        call, first, second = unpacked(*checkpoint.load(options.replay))
    except ValueError as error:
        raise ValueError(str(error) if str(options.replay) in str(error) else f"{options.replay}: {error}") from None
    first, second = options.against or (first, second)
    departure = again(call, first, second)
    if departure is None:
        print(f"{call.op} of {call.layer}: {first} and {second} agree")
        return 0
    print(departure.sentence(first, second))
    return 1


def _departed(departure: Departure, first: str, second: str, path: Path) -> int:
    checkpoint.save(path, *packed(departure.call, first, second))
    print(f"{departure.sentence(first, second)}\nsaved; to run it again: fastnet check --replay {path}")
    return 1


def _table(found: Lockstep) -> str:
    rows = sorted(found.rows, key=lambda row: -row.error)
    lines = [("layer", "op", "calls", "worst difference", "explained"),
             *((r.layer, r.op, str(r.calls), f"{r.error:.1e}", str(r.explained or "")) for r in rows[:WORST])]
    more = [f"and {len(rows) - WORST} rows that differ by less"] if len(rows) > WORST else []
    return "\n".join([align(lines, right=(2, 3, 4)), *more])
