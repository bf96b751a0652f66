"""Peak memory of training steps, ours or PyTorch's, each in a process of its own.

    python -m fastnet.bench.memory RIVAL WORKLOAD THREADS        prints JSON; the workload is JSON too
"""

import json
import subprocess
import sys

from fastnet.bench.machine import memory
from fastnet.bench.steps import ours_on, theirs_on
from fastnet.bench.workload import Workload

STEPS = 3  # the second and third meet what the first left behind: gradients, momentum, pools


def measure(rival: str, workload: Workload, threads: int) -> tuple[int, int]:
    """Bytes that a process has after its imports, and at the fullest moment of its training steps.

    `rival` is `fastnet` or a variant of PyTorch's. Raises OSError where the process fails.
    """
    found = _run(rival, workload, threads)
    if found["compiled"]:  # compilers take memory too, once on a machine
        found = _run(rival, workload, threads)
    return found["before"], found["peak"]


def _run(rival: str, workload: Workload, threads: int) -> dict[str, int]:
    done = subprocess.run([sys.executable, "-m", "fastnet.bench.memory", rival, json.dumps(workload), str(threads)],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise OSError(f"{workload.label}: no memory was measured for {rival}: {why[0]}")
    return json.loads(done.stdout)


def main() -> None:
    rival, text, threads = sys.argv[1:]
    name, batch_size, kind, shape, options, images = json.loads(text)
    workload = Workload(name, batch_size, kind, None if shape is None else tuple(shape), options, images)
    compiled: list[str] = []
    if rival == "fastnet":
        import numba

        from fastnet import backend

        numba.set_num_threads(int(threads))
        backend.module("cpu", "linear")
        before = memory()[0]
        with backend.on_compilation(compiled.append):
            x, labels = workload.batch()
            step = ours_on(workload.build(), kind, x, labels)
            for _ in range(STEPS):
                step()
    else:
        import torch

        from fastnet.bench import peer

        torch.set_num_threads(int(threads))
        before = memory()[0]
        x, labels = workload.batch()
        step = theirs_on(peer.twin(workload.build(), x.shape[1:]), rival, kind, x, labels)
        for _ in range(STEPS):
            step()
    print(json.dumps({"before": before, "peak": memory()[1], "compiled": len(compiled)}))


if __name__ == "__main__":
    main()
