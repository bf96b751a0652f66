"""The machine that something is measured on, and the memory that a process of it has."""

import os
import platform
from pathlib import Path


def machine() -> str:
    """The processor's name and how many cores there are."""
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 numbers; elsewhere libraries emulate it, slower than float32."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set((_cpuinfo("flags") or _cpuinfo("Features")).split()))


def memory() -> tuple[int, int]:
    """Bytes that this process has in memory, and those it had at its fullest moment.

    From Linux's own account of the process: what `getrusage` says starts at the size of the process that started this
    one. Raises OSError elsewhere.
    """
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return (int(lines["VmRSS"].split()[0]) * 1024, int(lines["VmHWM"].split()[0]) * 1024)


def _cpuinfo(key: str) -> str:
    """The first entry of that name in Linux's list of processors; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
