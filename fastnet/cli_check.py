"""`fastnet check` beyond gradients: ops in a file of one's own, and mistakes that the checks have to find."""

import argparse
from collections.abc import Sequence

from fastnet.nn.summary import align


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--module", metavar="FILE", help="check the ops in a Python file of yours instead (README: check your own op)")
    add("--mutants", action="store_true", help="put classic mistakes into the ops, one at a time, and have the checks "
                                               "find and name them; NAMEs are ops or mistakes")
    add("--mutate", action="store_true", help="change the source of the reference's ops, one place at a time; NAMEs "
                                              "are ops")


def elsewhere(options: argparse.Namespace) -> bool:
    """Whether one of these options is given."""
    return bool(options.module or options.mutants or options.mutate)


def run(options: argparse.Namespace) -> int:
    """Print what was found; 1 if a check fails or a mutant lives. Raises ValueError for options that do not fit."""
    if options.mutants and options.mutate:
        raise ValueError("--mutants and --mutate are two things: give one of them")
    if options.module and options.names:
        raise ValueError(f"{', '.join(options.names)}: --module checks what is in the file; leave the names out")
    if options.mutate:
        return _mutate(options)
    if options.mutants:
        return _mutants(options)
    return _own(options)


def _own(options: argparse.Namespace) -> int:
    from pathlib import Path

    from fastnet.check import format_table
    from fastnet.check.own import check_file

    reports = check_file(Path(options.module), options.seed)
    print(format_table(reports))
    failed = sum(not report.passed for report in reports)
    print(f"{len(reports) - failed} of {len(reports)} checks passed, "
          f"{sum(row.entries for report in reports for row in report.rows):,} entries compared")
    return 1 if failed else 0


def _mutants(options: argparse.Namespace) -> int:
    from pathlib import Path

    from fastnet.check import mutants
    from fastnet.check.own import mutants_of_file

    if options.module:
        if _own(options):
            return 1  # of an op that is wrong as it stands nothing can be learned by making it wrong
        outcomes = mutants_of_file(Path(options.module), options.seed)
    else:
        outcomes = mutants.check_mutants(options.names or None, seed=options.seed, device=options.device)
    print(align(list(mutants.rows(outcomes))))
    return _verdict([f"{o.op} ({o.implementation}): {o.mistake!r} lives: "
                     + ("; ".join(o.failures) if o.failures else "the check passes it")
                     for o in outcomes if not o.killed], mutants.total(outcomes))


def _mutate(options: argparse.Namespace) -> int:
    from fastnet.check.mutants import source

    if options.module:
        raise ValueError("--mutate changes fastnet's own ops; for those of a file there is --mutants")
    reports = source.mutate(options.names or None)
    print(align(list(source.rows(reports)), right=(1, 2, 3, 4)))
    return _verdict(source.alive(reports), source.total(reports))


def _verdict(alive: Sequence[str], total: str) -> int:
    for line in alive:
        print(line)
    print(total)
    return 1 if alive else 0
