"""The tables of a record, in Markdown."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from fastnet.bench.gpu.steps import OURS
from fastnet.bench.result import markdown, number

# How many times PyTorch's best step must take as long as ours, at least.
MUST = {("resnet18", 128): 1.3, ("resnet18", 512): 1.25, ("resnet34", 128): 1.25, ("vgg-a-bn", 128): 1.3,
        ("lenet5", 128): 3.0, ("mlp3", 100): 3.0}
# The precisions of PyTorch's that a type of ours is compared with.
RIVALS = {"bfloat16": ("bfloat16",), "float32": ("tf32", "float32")}


def tables(record: Mapping[str, Any]) -> str:
    """All of them, each under a heading; without those of which nothing was measured."""
    stages = record["stages"]
    parts = {"Stages": _stages(stages), "Machine": _facts(_rows(stages, "environment")), "Tests": _tests(stages),
             "Ceilings": _ceilings(_rows(stages, "ceilings")), "Training steps": _steps(stages), "Ops": _ops(stages)}
    return "\n".join(f"## {heading}\n\n{text}" for heading, text in parts.items() if text)


def _rows(stages: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return stages[name]["rows"] if name in stages else []


def _stages(stages: Mapping[str, Any]) -> str:
    rows = [(name, found["status"], f"{found['seconds']:.0f}", str(len(found["rows"])),
             "; ".join(f"{failure['part'] or 'start'}: {failure['why']}, {_last(failure['output'])}"
                       for failure in found["failures"]) or "-")
            for name, found in stages.items()]
    return _table(("stage", "", "s", "rows", "what failed"), rows)


def _last(output: list[str]) -> str:
    return next((line.strip().replace("|", "/") for line in reversed(output) if line.strip()), "no output")


def _facts(rows: list[dict[str, Any]]) -> str:
    return "".join(f"- {row['what']}: {row['value']}\n" for row in rows)


def _tests(stages: Mapping[str, Any]) -> str:
    text = ""
    for name in ("conformance", "correctness"):
        rows = _rows(stages, name)
        counts = Counter(row["outcome"] for row in rows)
        if rows:
            text += f"{name}: {', '.join(f'{counts[what]} {what}' for what in ('passed', 'failed', 'skipped'))}\n\n"
        text += "".join(f"- {row['test']}: {_last(row['why'].splitlines())}\n" for row in rows
                        if row["outcome"] == "failed")
    return text


def _ceilings(rows: list[dict[str, Any]]) -> str:
    def text(row: Mapping[str, Any]) -> str:
        if "rate" not in row:
            return f"{1e6 * row['seconds']:.2f} us" + (f", host {1e6 * row['host']:.2f} us" if "host" in row else "")
        return f"{row['rate'] / 1e12:.2f} T{'FLOP' if row['ceiling'].startswith('product') else 'B'}/s"

    return _table(("ceiling", "measured"), [(row["ceiling"], text(row)) for row in rows])


def floor(stages: Mapping[str, Any], dtype: str, operations: int, nbytes: int = 0) -> float:
    """Seconds at the measured ceilings; NaN where these were not measured."""
    rates = {row["ceiling"]: row.get("rate", math.nan) for row in _rows(stages, "ceilings")}
    product, copy = rates.get(f"product {dtype}", math.nan), rates.get("copy", math.nan)
    return max(operations / product, nbytes / copy)


def _steps(stages: Mapping[str, Any]) -> str:
    ours = {(row["workload"], row["batch_size"], row["dtype"]): row for row in _rows(stages, "steps")}
    theirs: dict[tuple[str, int, str], dict[str, float]] = {}
    for row in _rows(stages, "peers"):
        if "rival" in row:
            key = row["workload"], row["batch_size"], row["dtype"]
            theirs.setdefault(key, {})[row["rival"]] = row["seconds"]["median"]
    rows = []
    for name, size in dict.fromkeys(key[:2] for key in (*ours, *theirs)):
        for dtype, precisions in RIVALS.items():
            row = ours.get((name, size, dtype), {})
            times = {precision: theirs.get((name, size, precision), {}) for precision in precisions}
            rows.append(_step(stages, name, size, dtype, row, times))
    return _table(("workload", "batch", "type", OURS + ", ms", "from bytes, ms", "two runs", "of floor", "eager",
                   "graph", "compile", "graph, strict float32", "PyTorch's best / ours", "must be"), rows)


def _step(stages: Mapping[str, Any], name: str, size: int, dtype: str, row: Mapping[str, Any],
          times: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    seconds = row["seconds"]["median"] if row else math.nan
    main = next(iter(times.values()))
    best = min((time for found in times.values() for time in found.values()), default=math.nan)
    return (name, str(size), dtype, number(1e3 * seconds),
            number(1e3 * row.get("from_bytes", {}).get("median", math.nan)),
            "-" if not row else "same bits" if row["same_bits"] else "DIFFER",
            _percent(floor(stages, dtype, row["operations"]) / seconds) if row else "-",
            *(number(1e3 * main.get(variant, math.nan)) for variant in ("eager", "graph", "compile")),
            number(1e3 * times["float32"].get("graph", math.nan)) if "float32" in times else "-",
            number(best / seconds), number(MUST.get((name, size), math.nan)) if dtype == "bfloat16" else "-")


def _ops(stages: Mapping[str, Any]) -> str:
    rows = []
    found = [row for row in _rows(stages, "ops") if "cold" in row]
    calls = {(row["workload"], row["dtype"]): row["calls"] for row in _rows(stages, "ops") if "calls" in row}
    for row in sorted(found, key=lambda row: -_total(row, calls)):
        cold = row["cold"]
        rows.append((row["workload"], row["dtype"], row["op"], row["run_by"],
                     str(_calls(row, calls)), *(f"{1e6 * row[clock]:.1f}" for clock in ("cold", "warm", "host")),
                     f"{row['operations'] / cold / 1e12:.1f}" if row["operations"] else "-",
                     f"{row['bytes'] / cold / 1e9:.0f}",
                     _percent(floor(stages, row["dtype"], row["operations"], row["bytes"]) / cold)))
    return _table(("step of", "type", "op", "run by", "calls", "us", "us, again", "host us", "TFLOP/s", "GB/s",
                     "of floor"), rows)


def _calls(row: Mapping[str, Any], calls: Mapping[Any, Mapping[str, int]]) -> int:
    return calls.get((row["workload"], row["dtype"]), {}).get(row["op"], 1)


def _total(row: Mapping[str, Any], calls: Mapping[Any, Mapping[str, int]]) -> float:
    return row["cold"] * _calls(row, calls)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return markdown(head, rows) if rows else ""


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def short(record: Mapping[str, Any], most: int = 60) -> str:
    """The tables without the facts and all but the longest ops, for a reply that keeps only the end of the output."""
    stages: Iterable[tuple[str, Any]] = record["stages"].items()
    text = tables({"stages": {name: found for name, found in stages if name != "environment"}})
    head, mark, ops = text.partition("## Ops")
    return head + mark + "".join(ops.splitlines(keepends=True)[: most + 4])
