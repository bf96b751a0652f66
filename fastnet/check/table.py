"""Checks of many ops at once, and their reports as a table of plain text."""

from collections.abc import Iterable, Sequence

from fastnet import backend, devices
from fastnet.arrays import move
from fastnet.check.cases import cases, ops
from fastnet.check.covering import covering_cases
from fastnet.check.op import OpReport, check_op

HEADINGS = ("op", "implementation", "case", "differences", "complex step", "entries", "power", "sharp", "verdict")


def check_ops(names: Iterable[str] | None = None, implementations: Sequence[str] | None = None,
              seed: int = 0, device: str = "cpu") -> list[OpReport]:
    """Check ops (all) on all their test inputs in every implementation for the device's arrays that takes them.

    Nothing is raised for a wrong gradient: the reports say it. Raises ValueError for an op that does not exist.
    """
    library = devices.library(device)
    if implementations is None:
        implementations = backend.ORDER.get(library.__name__, ("reference",))
    reports = []
    for op in ops() if names is None else names:
        reference = backend.module("reference", op)
        for case in [*cases(op, seed), *covering_cases(op, seed)]:
            arrays = [None if a is None else move(a, library) for a in case.arrays]
            for implementation in implementations:
                module = backend.module(implementation, op)
                if module is None or (module is not reference and not module.supports(*arrays, **case.options)):
                    continue
                reports.append(check_op(module, arrays, case.options, case=case.label, seed=seed,
                                        entries=case.entries, raises=False))
    return reports


def format_table(reports: Iterable[OpReport]) -> str:
    """The reports as text, a line each under the headings, and below it what failed."""
    reports = list(reports)
    rows = [HEADINGS, *map(_row, reports)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines + [report.text for report in reports if not report.passed])


def _row(report: OpReport) -> tuple[str, ...]:
    rows = report.rows
    sharp = [row.sharp for row in rows if row.sharp is not None]
    return (report.op, report.implementation, report.case, _worst(row.differences for row in rows),
            _worst(error for row in rows for error in (row.complex_step, row.adjoint)),
            str(sum(row.entries for row in rows)), _power(report), "yes" if sharp and all(sharp) else "no",
            "passed" if report.passed else "FAILED")


def _power(report: OpReport) -> str:
    """The share of entries above the noise where it is least, and how many values batch statistics were taken of."""
    return f"{report.power:.0%}" + ("" if report.batch is None else f", batch {report.batch}")


def _worst(errors: Iterable[float | None]) -> str:
    known = [error for error in errors if error is not None]
    return f"{max(known):.1e}" if known else "-"
