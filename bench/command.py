"""`fastnet bench`: workloads or ops as a table beside PyTorch, or a training step taken apart."""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import numba

from fastnet.bench import memory, ops, profile, sizes, steps
from fastnet.bench.ceilings import Rates, rates
from fastnet.bench.machine import machine
from fastnet.bench.result import FLOAT32, Result, conditions, table
from fastnet.bench.workload import KINDS, Workload
from fastnet.nn.models import entry


def run(options: argparse.Namespace) -> None:
    """Print the table. Raises ValueError for what does not exist or a number below 1, ImportError without Numba."""
    numbers = (options.threads, options.images, *(options.batch_size or ()))
    if any(number is not None and number < 1 for number in numbers):
        raise ValueError("--threads, --images and --batch-size must be at least 1")
    if not options.seconds > 0:
        raise ValueError(f"--seconds must be positive but is {options.seconds}")
    todo = sizes.calls(options.names) if options.ops else workloads(options)  # before anything is timed
    threads = options.threads or numba.get_num_threads()
    with_torch = not options.no_torch and importlib.util.find_spec("torch") is not None
    set_threads(threads, with_torch)
    speed = rates(threads)
    print(f"{machine()}, {threads} threads: {speed}" + ("" if with_torch or options.profile else "; without PyTorch"))
    if options.ops:
        _print_ops(todo, speed, with_torch, options.seconds)
    elif options.profile:
        for workload in todo:
            print(f"{workload.label}, batch {workload.batch_size}")
            print(profile.table(take_apart(workload, options.seconds), *speed))
    else:
        results = []
        for workload in todo:
            result = steps.measure(workload, torch=with_torch, seconds=options.seconds)
            if options.memory:
                result = with_memory(result, workload, threads)
            results.append(result)
            print(table([result], speed.gemm).splitlines()[-1], flush=True)
        print(table(results, speed.gemm))
        if options.json:
            write(options.json, {"steps": results}, {threads: speed}, threads, with_torch)


def workloads(options: argparse.Namespace) -> list[Workload]:
    """What the options ask for. Raises ValueError or TypeError for what does not exist."""
    kind = next((kind for kind in KINDS if getattr(options, kind, False)), "step")
    names = options.names or list(steps.WORKLOADS)
    for name in names:
        entry(name)
    found = [Workload(name, size, kind, options.shape, options.given, options.images)
             for name in names for size in options.batch_size or [steps.WORKLOADS.get(name, 128)]]
    for workload in found:
        workload.build()
        if kind == "epoch" and workload.batch_size > workload.images:
            raise ValueError(f"--images: {workload.images} are fewer than a batch of {workload.batch_size}")
    return found


def set_threads(threads: int, with_torch: bool) -> None:
    """Of both libraries. Raises ValueError for more than there are."""
    if threads > numba.config.NUMBA_NUM_THREADS:
        raise ValueError(f"--threads: there are {numba.config.NUMBA_NUM_THREADS}")
    numba.set_num_threads(threads)
    if with_torch:
        import torch

        torch.set_num_threads(threads)


def with_memory(result: Result, workload: Workload, threads: int) -> Result:
    """The result, and the peak memory of our steps and of PyTorch's in its fastest float32 variant."""
    found = {"fastnet": memory.measure("fastnet", workload, threads)}
    if theirs := [variant for variant in FLOAT32 if variant in result.timings]:
        fastest = min(theirs, key=lambda variant: result.timings[variant].median)
        found["torch"] = memory.measure(fastest, workload, threads)
    return result._replace(memory=found)


def take_apart(workload: Workload, seconds: float) -> list[profile.Part]:
    """The parts of a training step of the workload."""
    return profile.profile(steps.ours_on(workload.build(), "step", *workload.batch()), seconds)


def write(path: Path, sections: dict[str, list[Result]], speeds: dict[int, Rates], threads: int, with_torch: bool,
          **more: Any) -> None:
    """The record as JSON: results by section, the rates of the machine by number of threads, versions."""
    record = {**conditions(with_torch), "threads": threads,
              "rates": {str(count): speed._asdict() for count, speed in speeds.items()},
              "results": {title: [result.record() for result in found] for title, found in sections.items()}, **more}
    path.write_text(json.dumps(record, indent=1) + "\n")


def _print_ops(calls: list[sizes.Call], speed: Rates, with_torch: bool, seconds: float) -> None:
    results = []
    for call in calls:
        results.append(ops.measure(call, torch=with_torch, seconds=seconds / 4))
        print(ops.table(results[-1:], *speed).splitlines()[-1], flush=True)
    print(ops.table(results, *speed))
