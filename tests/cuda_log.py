"""Every CUDA source compiled for every type it is written for, and what the compiler says of its kernels.

`python tests/cuda_log.py` writes the registers of each kernel, the most over types and targets, to cuda_registers.json:
the table that test_cuda_compile.py holds later versions against. Needs the extra `gpu-test`, and no GPU.
"""

import json
import re
from pathlib import Path

from fastnet.kernels.cuda import _launch, _nvrtc

HERE = Path(__file__).parent
TABLE = HERE / "cuda_registers.json"
SOURCES = sorted([*_launch.FOLDER.glob("*.cu"), *(HERE / "emulator").glob("*words.cu")])
TARGETS = ("sm_80", "sm_90a")  # the oldest that has all instructions, and the one that kernels are tuned for


def kernels(log):
    """Kernel -> (registers, bytes of stack frame, bytes of spills), read from the log of ptxas."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        frame, *spills = map(int, re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes", part)
                             .groups())
        found[part.partition("'")[0]] = int(re.search(r"Used (\d+) registers", part)[1]), frame, sum(spills)
    return found


def most_registers():
    most = {}
    for source in SOURCES:
        for storage in _launch.types(source):
            for target in TARGETS:
                for name, (registers, _, _) in kernels(_nvrtc.compiled(source, storage, target).log).items():
                    most[name] = max(registers, most.get(name, 0))
    return most


if __name__ == "__main__":
    TABLE.write_text(json.dumps(most_registers(), indent=0, sort_keys=True) + "\n")
