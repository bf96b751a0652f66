"""Train the same network again and again, each time in a fresh process, and compare the bits it ends with.

    python tests/determinism.py [--steps 1000] [--repeats 20] [--threads 1 2] [--models ...] [--json FILE]

A run is the whole of `fit`: shuffled, padded and flipped batches made beside the step, a penalty, an evaluation after
every 50 steps. Compared are all parameters, running statistics and the optimizer's state after the last step, and every
figure of the history but times. tests/test_determinism.py runs a few steps; the figures quoted elsewhere come from
here. What the fixed order of sums costs is in bench/determinism.py.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numba

import fastnet as fn
from fastnet.train import checkpoint
from fastnet.train.record import CHECKPOINT, versions

STEPS_PER_EPOCH = 50
# Name: model, options, images of a batch. The residual network is as deep as the real one, with 4 to 32 channels.
MODELS = {"mlp3-bn": ("mlp3-bn", {}, 100), "lenet5-bn": ("lenet5-bn", {}, 32),
          "resnet18-narrow": ("resnet18", {"filter_multiplier": 1 / 16}, 16)}


def fingerprint(name: str, steps: int, threads: int) -> str:
    """SHA-256 of what a run in a process of its own ends with. Raises RuntimeError where it fails."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": str(max(threads, numba.config.NUMBA_NUM_THREADS))}
    done = subprocess.run([sys.executable, __file__, "--here", "--models", name, "--steps", str(steps),
                           "--threads", str(threads)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}, {threads} threads: a run ended with status {done.returncode}: "
                           f"{done.stderr[-500:]}")
    return done.stdout.split()[-1]


def train(name: str, steps: int, threads: int) -> str:
    """The same in this process."""
    numba.set_num_threads(threads)
    model, options, batch_size = MODELS[name]
    per_epoch = min(STEPS_PER_EPOCH, steps)
    data = fn.data.load("shapes10", split=f"{per_epoch * batch_size}/{batch_size}")
    with tempfile.TemporaryDirectory() as folder:
        run = fn.fit(fn.build(model, **options), data, fn.SGD(momentum=0.9),
                     fn.schedules.triangular(1e-4, 0.02, half_cycle_steps=100), epochs=steps // per_epoch,
                     batch_size=batch_size, penalty=fn.L2(0.001), checkpoint_seconds=1e9, verbose=False,
                     augmentation=fn.data.Augmentation(pad=2, horizontal_flip=True), out=Path(folder) / "run")
        arrays, _ = checkpoint.load(Path(folder) / "run" / CHECKPOINT)
    digest = hashlib.sha256()
    for key, array in sorted(arrays.items()):
        digest.update(f"{key} {array.dtype} {array.shape}".encode() + array.tobytes())
    for record in run.history:
        digest.update(repr(sorted((k, v) for k, v in record.items() if not k.endswith("seconds"))).encode())
    return digest.hexdigest()


def main(names: Sequence[str], steps: int, repeats: int, threads: Sequence[int], file: Path | None = None) -> int:
    """Compare, printing a line for each model; 1 where runs of a model end with different bits."""
    record = {"steps": steps, "repeats": repeats, "threads": list(threads), "ends": {}, "versions": versions()}
    for name in names:
        ends: Counter[tuple[str, int]] = Counter()
        for _ in range(repeats):
            for count in threads:
                ends[fingerprint(name, steps, count), count] += 1
                record["ends"][name] = [{"sha256": end, "threads": count, "runs": runs}
                                        for (end, count), runs in ends.items()]
                if file:
                    file.write_text(json.dumps(record, indent=1) + "\n")
        different = len({end for end, _ in ends})
        print(f"{name}: {steps} steps, {ends.total()} runs with {' and '.join(map(str, threads))} threads end with "
              f"{'the same bits' if different == 1 else f'{different} different results'}", flush=True)
    return 1 if any(len({end["sha256"] for end in ends}) > 1 for ends in record["ends"].values()) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1000, help=f"a multiple of {STEPS_PER_EPOCH}, or fewer")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", action="store_true", help="train the one model in this process")
    options = parser.parse_args()
    if options.steps < 1 or (options.steps > STEPS_PER_EPOCH and options.steps % STEPS_PER_EPOCH):
        parser.error(f"--steps is {options.steps}, but has to be a multiple of {STEPS_PER_EPOCH}, or fewer")
    if options.here:
        print(train(options.models[0], options.steps, options.threads[0]))
        sys.exit()
    sys.exit(main(options.models, options.steps, options.repeats, options.threads, options.json))
