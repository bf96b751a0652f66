"""Puts the mistakes of the catalogue into ops, one at a time, and has the check of the op find them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastnet import backend, devices
from fastnet.arrays import move
from fastnet.check.cases import Case, cases, ops
from fastnet.check.mutants.activations import ACTIVATIONS
from fastnet.check.mutants.contracts import CONTRACTS
from fastnet.check.mutants.general import GENERAL
from fastnet.check.mutants.levels import LEVELS, PartMistake
from fastnet.check.mutants.losses import LOSS_MISTAKES
from fastnet.check.mutants.mistake import Mistake, Mutant
from fastnet.check.mutants.normalization import NORMALIZATION
from fastnet.check.mutants.pooling import POOLING
from fastnet.check.mutants.products import PRODUCTS
from fastnet.check.op import OpReport, check_op

CATALOGUE: dict[str, Mistake] = {mistake.name: mistake for mistake in (
    *GENERAL, *CONTRACTS, *PRODUCTS, *NORMALIZATION, *ACTIVATIONS, *POOLING, *LOSS_MISTAKES)}
ENTRIES = 6  # differentiated one by one; the adjoint test sees the others, and a mutant costs milliseconds


@dataclass
class Outcome:
    """One mistake in one implementation of one op: whether it was found and named, in which case, by what."""

    mistake: str
    op: str
    implementation: str
    killed: bool
    case: str = ""
    failures: list[str] = field(default_factory=list)
    autopsy: list[str] = field(default_factory=list)


def check_mutants(names: Iterable[str] | None = None, implementations: Sequence[str] | None = None, seed: int = 0,
                  device: str = "cpu") -> list[Outcome]:
    """Every mistake (or those of the ops or mistakes that are named) in every implementation that an op has.

    Mistakes above the ops (`levels`) are among them unless ops or implementations are named.

    A mutant lives if the check passes it, or accuses something else, on every case of the op. Raises ValueError for a
    name that is neither an op nor a mistake.
    """
    names = None if names is None else list(names)
    chosen = [n for n in names or [] if n in CATALOGUE or n in LEVELS]
    wanted = [n for n in names or [] if n not in chosen]
    if wrong := [n for n in wanted if n not in ops()]:
        raise ValueError(f"{', '.join(map(repr, wrong))}: no such op or mistake; ops are {', '.join(ops())}; mistakes "
                         f"are {', '.join([*CATALOGUE, *LEVELS])}")
    library = devices.library(device)
    order = backend.ORDER.get(library.__name__, ("reference",)) if implementations is None else implementations
    found = []
    for op in wanted or (ops() if not chosen or set(chosen) & set(CATALOGUE) else []):
        inputs = [_moved(case, library) for case in cases(op, seed)]
        for implementation in order:
            module = backend.module(implementation, op)
            if module is None:
                continue
            for mistake in CATALOGUE.values():
                if (not chosen or mistake.name in chosen) and (not mistake.ops or op in mistake.ops):
                    taken = [case for case in inputs if implementation == "reference"
                             or module.supports(*case.arrays, **case.options)]
                    found.append(put_in(mistake, op, implementation, module, taken, backend.module("reference", op),
                                        seed))
    if not wanted and implementations is None:
        found += [_in_part(mistake) for mistake in LEVELS.values() if not chosen or mistake.name in chosen]
    return [outcome for outcome in found if outcome is not None]


def _in_part(mistake: PartMistake) -> Outcome:
    """A mistake above the ops. Where the right part fails its check too, the check proves nothing: the mutant lives."""
    right, report = mistake.check(mistake.right), mistake.check(mistake.broken)
    killed = right.passed and any(mistake.names in line for line in report.failures)
    return Outcome(mistake.name, mistake.part, "parts", killed, report.case, report.failures, report.autopsy)


def put_in(mistake: Mistake, op: str, implementation: str, module: Any, inputs: Iterable[Case], oracle: Any = None,
           seed: int = 0) -> Outcome | None:
    """The mistake in one module; None where it changes nothing in any case (there is no bias, no second group, ...).

    Without an oracle there is nothing to hold a wrong y against, so such mistakes are not put in.
    """
    outcome = None
    if mistake.forward is not None and oracle is None:
        return None
    for case in inputs:
        mutant = Mutant(mistake, module)
        arrays = [None if a is None else a.copy() for a in case.arrays]  # a mistake may change them
        report = check_op(mutant, arrays, case.options, oracle=oracle, name=op, seed=seed, entries=ENTRIES,
                          raises=False)
        if mistake.pair is None and not mutant.changed:
            continue
        killed = _named(mistake, op, mutant.changed, report)
        outcome = Outcome(mistake.name, op, implementation, killed, case.label, report.failures, report.autopsy)
        if killed:
            break
    return outcome


def _named(mistake: Mistake, op: str, changed: set[str], report: OpReport) -> bool:
    """Whether the check failed for the right reason."""
    if mistake.names:
        return any(name in line for line in report.failures for name in mistake.names)
    if "y" in changed:
        return any(line.startswith(f"{op}: y is wrong") for line in report.failures)
    accused = {row.name for row in report.rows
               if any(line.startswith(f"{op}: d{row.name} is wrong") for line in report.failures)}
    return bool(accused) and accused <= changed


def _moved(case: Case, library: Any) -> Case:
    arrays = tuple(None if a is None else move(a, library) for a in case.arrays)
    return Case(case.op, case.label, arrays, case.options)


def total(outcomes: Sequence[Outcome]) -> str:
    """The last line: killed and all of them."""
    return f"{sum(o.killed for o in outcomes)} of {len(outcomes)} mutants killed"


def rows(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, ...]]:
    """A line a mistake: its name, the ops it was put into, killed/total for each implementation."""
    implementations = list(dict.fromkeys(o.implementation for o in outcomes))
    yield ("mistake", *implementations, "ops")
    for name in dict.fromkeys(o.mistake for o in outcomes):
        mine = [o for o in outcomes if o.mistake == name]
        counts = []
        for implementation in implementations:
            here = [o for o in mine if o.implementation == implementation]
            counts.append(f"{sum(o.killed for o in here)}/{len(here)}" if here else "-")
        into = list(dict.fromkeys(o.op for o in mine))
        yield name, *counts, ", ".join(into) if len(into) <= 3 else f"{', '.join(into[:2])} and {len(into) - 2} more"
