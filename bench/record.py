"""The whole record: every workload beside PyTorch, other batch sizes and inputs, one thread, memory, where time goes.

    python -m fastnet.bench.record --json bench/results/steps-cpu.json [--quick] [--threads N]
    python -m fastnet.bench.readme                                           # puts it into the README

The file is written after each workload. One that fails is named at the end (exit status 1), and the others go on.
Some 25 minutes on 2 cores; --quick leaves out all but the first two sections, the memory and the parts.
"""

import argparse
import gc
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numba

from fastnet.bench import command, steps
from fastnet.bench.ceilings import Rates, rates
from fastnet.bench.result import Result, table
from fastnet.bench.steps import WORKLOADS
from fastnet.bench.workload import Workload

MAIN, WHOLE = "training steps", "inference and epochs"


class Section(NamedTuple):
    """Workloads that stand together, and how long each library is timed on each: seconds, and rounds at least."""

    workloads: tuple[Workload, ...]
    seconds: float = 1.0
    least: int = 3
    threads: int | None = None


SECTIONS = {
    MAIN: Section(tuple(Workload(name, size) for name, size in WORKLOADS.items()), 2.0),
    WHOLE: Section((Workload("resnet18", 128, "inference"), Workload("resnet18", 1, "inference"),
                    Workload("lenet5", 128, "epoch"))),
    "batches of 32": Section(tuple(Workload(name, 32) for name in WORKLOADS)),
    "other sizes": Section((Workload("resnet18", 128, options={"filter_multiplier": 0.75}),
                            *(Workload("resnet18", 128, shape=(side, side, 3)) for side in (28, 40)))),
    "one thread": Section(tuple(Workload(name, WORKLOADS[name]) for name in ("mlp3-bn", "lenet5", "resnet18")), 1.0, 1,
                          1),
    "batches of 512": Section(tuple(Workload(name, 512) for name in WORKLOADS), least=1),  # the longest
}


def record(path: Path, sections: Mapping[str, Section], threads: int, torch: bool, quick: bool) -> dict[str, str]:
    """Measure, printing each row and a table a section, and write the record; {workload: why it failed}."""
    results: dict[str, list[Result]] = {title: [] for title in sections}
    failures: dict[str, str] = {}
    speeds: dict[int, Rates] = {}
    for title, section in sections.items():
        count = section.threads or threads
        command.set_threads(count, torch)
        if count not in speeds:
            speeds[count] = rates(count)
        print(f"{title}, {count} threads: {speeds[count]}", flush=True)
        for workload in section.workloads:
            try:
                result = steps.measure(workload, torch=torch, seconds=section.seconds, least=section.least)
                if title == MAIN and not quick:
                    result = completed(result, workload, count, speeds[count])
            except Exception as error:  # whatever it is, the others are still worth having
                failures[f"{title}: {workload.label}, {workload.batch_size}"] = f"{type(error).__name__}: {error}"
                print(f"{workload.label}: {error}", flush=True)
            else:
                results[title].append(result)
                print(table([result], speeds[count].gemm).splitlines()[-1], flush=True)
            command.write(path, results, speeds, threads, torch, failures=failures)
            gc.collect()
        if results[title]:
            print(f"{table(results[title], speeds[count].gemm)}\n", flush=True)
    return failures


def completed(result: Result, workload: Workload, threads: int, speed: Rates) -> Result:
    """The result with its peak memory and the parts of the step."""
    parts = [(part.name, part.seconds, part.calls, *part.floors(*speed))
             for part in command.take_apart(workload, seconds=1.0)]
    return command.with_memory(result, workload, threads)._replace(profile=parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=numba.get_num_threads())
    options = parser.parse_args()
    sections = {title: SECTIONS[title]._replace(seconds=0.5, least=1) for title in (MAIN, WHOLE)}
    failures = record(options.json, sections if options.quick else SECTIONS, options.threads,
                      importlib.util.find_spec("torch") is not None, options.quick)
    for label, why in failures.items():
        print(f"FAILED {label}: {why}")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
