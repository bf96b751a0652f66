"""What was measured of a workload: as a row of a table, and as JSON."""

import math
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any, NamedTuple

from fastnet.bench.machine import machine
from fastnet.nn.summary import align
from fastnet.timer import Timing
from fastnet.train.record import versions

FLOAT32 = ("eager", "channels_last")  # PyTorch's variants that compute with our precision


class Result(NamedTuple):
    """One workload: seconds by rival, floating-point operations of ours, and how far the gradients are apart.

    `memory` has (bytes after the imports, bytes at the fullest moment) of a process that takes training steps, by
    rival. `profile` has (op and pass, seconds, calls, arithmetic floor, memory floor) of the parts of our step.
    """

    name: str
    batch_size: int
    timings: Mapping[str, Timing]
    operations: int
    disagreement: float | None = None
    memory: Mapping[str, tuple[int, int]] = {}
    profile: Iterable[tuple[str, float, int, float, float]] = ()

    @property
    def ours(self) -> float:
        return self.timings["fastnet"].median

    def best(self, *variants: str) -> float:
        """PyTorch's best time among these variants; NaN where none was timed."""
        return min((self.timings[v].median for v in variants if v in self.timings), default=math.nan)

    def ratio(self, *variants: str) -> float:
        """That best time over ours."""
        return self.best(*variants) / self.ours

    @property
    def data_share(self) -> float:
        """The making of our batches as a part of an epoch; NaN for other workloads."""
        return self.timings["batches"].median / self.ours if "batches" in self.timings else math.nan

    def record(self) -> dict[str, Any]:
        """JSON, from which `of` makes the result again."""
        found: dict[str, Any] = {"workload": self.name, "batch_size": self.batch_size, "operations": self.operations,
                                 "disagreement": self.disagreement,
                                 "seconds": {rival: timing._asdict() for rival, timing in self.timings.items()}}
        if self.memory:
            found["memory"] = {rival: {"before": before, "peak": peak} for rival, (before, peak) in self.memory.items()}
        if self.profile:
            found["profile"] = [list(row) for row in self.profile]
        return found

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Result":
        timings = {rival: Timing(**timing) for rival, timing in record["seconds"].items()}
        memory = {rival: (m["before"], m["peak"]) for rival, m in record.get("memory", {}).items()}
        return cls(record["workload"], record["batch_size"], timings, record["operations"], record["disagreement"],
                   memory, tuple(tuple(row) for row in record.get("profile", ())))


def conditions(with_torch: bool) -> dict[str, Any]:
    """What a record is worth nothing without: the machine and the versions."""
    return {"machine": machine(), "versions": versions() | ({"torch": metadata.version("torch")} if with_torch else {})}


def table(results: Iterable[Result], ceiling: float) -> str:
    """The results as text; `ceiling` is the machine's measured rate of a matrix product, in operations a second."""
    results = list(results)
    heads = ["workload", "batch", "ours, ms", "spread", "PyTorch float32, ms", "ratio", "bf16, ms", "ratio", "GFLOP/s",
             "of GEMM"]
    rows = []
    for r in results:
        ours = r.timings["fastnet"]
        rows.append([r.name, str(r.batch_size), f"{1e3 * r.ours:.2f}", f"{(ours.high - ours.low) / r.ours:.0%}",
                     number(1e3 * r.best(*FLOAT32)), number(r.ratio(*FLOAT32)), number(1e3 * r.best("bf16")),
                     number(r.ratio("bf16")), f"{r.operations / r.ours / 1e9:.0f}",
                     f"{r.operations / r.ours / ceiling:.0%}"])
    if any(r.memory for r in results):
        heads += ["memory, MiB", "PyTorch's"]
        for row, r in zip(rows, results, strict=True):
            row += [added(r.memory, "fastnet"), added(r.memory, "torch")]
    if any("batches" in r.timings for r in results):
        heads.append("making batches")
        for row, r in zip(rows, results, strict=True):
            row.append(number(100 * r.data_share, " %"))
    return align([tuple(row) for row in (heads, *rows)], right=tuple(range(1, len(heads))))


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown, without the columns that hold nothing."""
    kept = [i for i in range(len(head)) if any(row[i] != "-" for row in rows)]
    lines = [[line[i] for i in kept] for line in (head, ("---",) * len(head), *rows)]
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


def number(value: float, unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:.2f}{unit}"


def added(memory: Mapping[str, tuple[int, int]], rival: str) -> str:
    """MiB at the peak and, of these, what the steps added to the imports: `412 (301)`."""
    if rival not in memory:
        return "-"
    before, peak = memory[rival]
    return f"{peak / 2**20:.0f} ({(peak - before) / 2**20:.0f})"
