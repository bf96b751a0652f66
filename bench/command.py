"""`fastnet bench`: the workloads as a table beside PyTorch, or one of them taken apart."""

import argparse
import importlib.util
import json
from importlib import metadata
from typing import Any

import numba

from fastnet.bench import steps
from fastnet.bench.ceilings import copy_rate, gemm_rate, machine
from fastnet.bench.profile import profile, training_step
from fastnet.nn.models import entry
from fastnet.nn.summary import align
from fastnet.train.record import versions


def run(options: argparse.Namespace) -> None:
    """Print the table. Raises ValueError for an unknown model or a number below 1, ImportError without Numba."""
    names = options.names or list(steps.WORKLOADS)
    for name in names:
        entry(name)  # an unknown one is refused before anything is timed
    if any(number is not None and number < 1 for number in (options.threads, *(options.batch_size or ()))):
        raise ValueError("--threads and --batch-size must be at least 1")
    if not options.seconds > 0:
        raise ValueError(f"--seconds must be positive but is {options.seconds}")
    threads = options.threads or numba.get_num_threads()
    if threads > numba.config.NUMBA_NUM_THREADS:
        raise ValueError(f"--threads: there are {numba.config.NUMBA_NUM_THREADS}")
    numba.set_num_threads(threads)
    sizes = [(name, size) for name in names for size in options.batch_size or [steps.WORKLOADS.get(name, 128)]]
    if options.profile:
        for name, size in sizes:
            print(f"{name}, batch {size}, {threads} threads")
            print(_profile(name, size))
        return
    with_torch = not options.no_torch and importlib.util.find_spec("torch") is not None
    if with_torch:
        import torch

        torch.set_num_threads(threads)
    gemm, copy = gemm_rate(threads), copy_rate(threads)
    print(f"{machine()}, {threads} threads: matrix product {gemm / 1e9:.0f} GFLOP/s, copy {copy / 1e9:.1f} GB/s"
          + ("" if with_torch else "; without PyTorch"))
    results = []
    for name, size in sizes:
        results.append(steps.measure(name, size, inference=options.inference, torch=with_torch,
                                     seconds=options.seconds))
        print(steps.table(results, gemm).splitlines()[-1], flush=True)
    print(steps.table(results, gemm))
    if options.json:
        record: dict[str, Any] = {
            "machine": machine(), "threads": threads, "gemm_flops": gemm, "copy_bytes": copy,
            "versions": versions() | ({"torch": metadata.version("torch")} if with_torch else {}),
            "results": [{"workload": r.name, "batch_size": r.batch_size, "operations": r.operations,
                         "disagreement": r.disagreement,
                         "seconds": {k: t._asdict() for k, t in r.timings.items()}} for r in results]}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def _profile(name: str, batch_size: int) -> str:
    rows = profile(training_step(name, batch_size))
    whole = rows[-1][1]
    return align([("op", "ms", "calls", "of the step"),
                  *((label, f"{1e3 * seconds:.3f}", str(calls or ""), f"{seconds / whole:.1%}")
                    for label, seconds, calls in rows)], right=(1, 2, 3))
