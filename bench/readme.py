"""The benchmark section of README.md, from the record.

    python -m fastnet.bench.readme [RECORD]        writes what stands between the two marks
"""

import argparse
import json
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastnet.bench.ceilings import Rates
from fastnet.bench.result import FLOAT32, Result, added, markdown, number

HERE = Path(__file__).parent
README, RECORD = HERE.parent / "README.md", HERE / "results" / "steps-cpu.json"
START, END = "<!-- from here on: python -m fastnet.bench.readme -->", "<!-- up to here -->"
FULL = 2  # so many sections have every column; of the others only the ratios are shown


def section(record: Mapping[str, Any]) -> str:
    """The tables in Markdown, and a line of what they were measured on."""
    sections = {title: [Result.of(row) for row in rows] for title, rows in record["results"].items() if rows}
    speed = Rates(**record["rates"][str(record["threads"])])
    full = [r for title in list(sections)[:FULL] for r in sections[title]]
    rest = [(title, r) for title in list(sections)[FULL:] for r in sections[title]]
    text = markdown(("workload", "batch", "ms", "PyTorch's time / ours", "the same, bf16", "GFLOP/s", "of GEMM",
                     "peak MiB", "PyTorch's"), [_full(r, speed.gemm) for r in full])
    if rest:
        rows = [(title, r.name, str(r.batch_size), _milliseconds(r), *_ratios(r)) for title, r in rest]
        text += "\n" + markdown(("", "workload", "batch", "ms", "PyTorch's time / ours", "the same, bf16"), rows)
    notes = (f"{record['machine']}, {record['threads']} threads: {speed}; "
             f"{', '.join(f'{name} {version}' for name, version in record['versions'].items())}.")
    if any(r.memory for r in full):
        notes += " Peak memory is that of a process that takes training steps; in brackets, less its imports."
    if share := [f"{r.data_share:.1%}" for r in full if not math.isnan(r.data_share)]:
        notes += f" Making the batches takes {', '.join(share)} of an epoch."
    return f"{text}\n{textwrap.fill(notes, 120)}\n"


def replaced(readme: str, text: str) -> str:
    """The README with `text` between its marks. Raises ValueError where a mark is missing."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"README.md must hold {START!r} and, behind it, {END!r}")
    return f"{before}{start}\n\n{text}\n{end}{after}"


def _full(r: Result, gemm: float) -> tuple[str, ...]:
    rate = r.operations / r.ours
    return (r.name, str(r.batch_size), _milliseconds(r), *_ratios(r), f"{rate / 1e9:.0f}", f"{rate / gemm:.0%}",
            added(r.memory, "fastnet"), added(r.memory, "torch"))


def _milliseconds(r: Result) -> str:
    return f"{1e3 * r.ours:.3g}" if r.ours < 1 else f"{1e3 * r.ours:.0f}"


def _ratios(r: Result) -> tuple[str, str]:
    return number(r.ratio(*FLOAT32)), number(r.ratio("bf16"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("record", type=Path, nargs="?", default=RECORD)
    record = json.loads(parser.parse_args().record.read_text())
    README.write_text(replaced(README.read_text(), section(record)))


if __name__ == "__main__":
    main()
