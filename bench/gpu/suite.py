"""The tests' rows on the card: those that are skipped without one, and the emulator's, on the card's arrays instead.

Needs the checkout, pytest, and no g++. Every test is a part of the stage: one that hangs is named, and the others run.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

from fastnet.bench.gpu.watchdog import Report

TESTS = Path(__file__).resolve().parents[2] / "tests"  # resolved: a checkout may be used by way of links
WORDS = ("test_emulator.py",)  # what each word of common.cuh means, lane by lane


def conformance(report: Report, settings: dict[str, Any]) -> None:
    """A row for each test of the words that kernels are written in."""
    _run(report, [TESTS / name for name in WORDS])


def correctness(report: Report, settings: dict[str, Any]) -> None:
    """A row for each test of an op or a kernel."""
    _run(report, [TESTS / "test_ops.py", *sorted(TESTS.glob("test_cuda_*.py"))])


def _run(report: Report, files: list[Path]) -> None:
    """Raises FileNotFoundError without the checkout, RuntimeError where pytest stops for another reason than tests."""
    missing = [str(path) for path in (TESTS / "conftest.py", *files) if not path.exists()]
    if missing:
        raise FileNotFoundError(f"the tests are part of the checkout, but there is no {missing[0]}")
    import cupy
    import pytest

    sys.path.insert(0, str(TESTS))
    from emulator import arrays

    arrays.emulated = lambda x: None if x is None else cupy.asarray(x)
    # Warnings are errors in the suite, but those of another machine's libraries are not what is asked here.
    status = pytest.main(["-q", "-W", "default", "-p", "no:cacheprovider", "--rootdir", str(TESTS.parent),
                          "--tb=short", "--capture=sys", *map(str, files)], plugins=[Rows(report)])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest ended with {status!r}")


class Rows:
    """A plugin of pytest that leaves this worker's rows, in order of value, and reports each."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        kept = sorted(wanted(items), key=value)
        number, workers = self._report.share
        items[:] = kept[number::workers]

    def pytest_runtest_protocol(self, item: Any) -> bool | None:
        return None if self._report.begin(item.nodeid) else True  # True: there is nothing left to do

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.failed or report.skipped:
            why = "" if report.passed else str(report.longreprtext or report.longrepr)
            self._report.row(test=report.nodeid, outcome=report.outcome, seconds=report.duration, why=why[-2000:])


def wanted(items: list[Any]) -> list[Any]:
    """The items that run on the card.

    Rows of CuPy's arrays; of a test that has none, the emulator's; and tests without rows that make emulated arrays.
    """
    on_cupy = {item.function for item in items if library(item) == "cupy"}
    return [item for item in items if library(item) == "cupy" or (
        item.path.name not in WORDS and item.function not in on_cupy and (library(item) == "emulated" or (
            library(item) is None and hasattr(item.module, "emulated")
            and (item.path.name.startswith("test_cuda_") or "emulated" in inspect.getsource(item.function)))))]


def library(item: Any) -> str | None:
    """Whose arrays a row is about."""
    return item.callspec.params.get("library") if hasattr(item, "callspec") else None


def value(item: Any) -> int:
    """Our kernels come before the reference on CuPy's arrays."""
    implementation = item.callspec.params.get("implementation") if hasattr(item, "callspec") else None
    return 1 if implementation == "reference" else 0
