"""Kill runs of mlp3-bn with SIGKILL, resume them, and compare the end with an undisturbed run, bit by bit.

    python tests/kill_and_resume.py [--runs 60] [--seed 0]

Each run is killed several times: at random moments, and inside a save, at a random one of its stages. Every restart
uses 1 or 2 threads at random. tests/test_kill.py runs a few of these; the figures quoted elsewhere come from here.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import safetensors.numpy

VICTIM = Path(__file__).with_name("victim.py")
MOST_KILLS = 5


def start(out: Path, threads: int, resume: bool, die_at: str = "") -> subprocess.Popen:
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "FASTNET_DIE_AT": die_at}
    return subprocess.Popen([sys.executable, str(VICTIM), str(out), str(threads), "resume" if resume else "new"],
                            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a run ended with status {process.returncode}: {errors.decode()[-500:]}")


def final_bits(out: Path) -> dict[str, object]:
    """All that a run leaves behind but times and versions."""
    bits: dict[str, object] = {}
    for file in ("checkpoint.safetensors", "model.safetensors"):
        for name, array in safetensors.numpy.load_file(out / file).items():
            bits[f"{file}/{name}"] = (array.shape, array.dtype.name, array.tobytes())
    for line in (out / "history.jsonl").read_text().splitlines():
        record = json.loads(line)
        bits[f"epoch {record['epoch']}"] = {k: v for k, v in record.items() if not k.endswith("seconds")}
    bits["test accuracy"] = json.loads((out / "result.json").read_text())["test_accuracy"]
    return bits


def disturbed(out: Path, rng: random.Random, duration: float) -> tuple[int, int]:
    """One run, killed and resumed until it ends. Return (kills, kills inside a save)."""
    kills = inside = 0
    planned = rng.randint(2, MOST_KILLS)
    while True:
        resume = (out / "checkpoint.safetensors").exists()
        if not resume and out.exists():  # killed before its first checkpoint: nothing to go on from
            for file in out.iterdir():
                file.unlink()
            out.rmdir()
        by_itself = kills < planned and rng.random() < 0.4
        stage = f"{rng.choice(['open', 'write', 'flush', 'read', 'rename', 'folder'])}:{rng.randint(1, 12)}"
        process = start(out, rng.randint(1, 2), resume, stage if by_itself else "")
        if kills < planned and not by_itself:
            time.sleep(rng.uniform(0.3, 1.0) * duration)
            process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            kills += 1
            inside += (out / "inside").exists()
        elif process.returncode:
            raise RuntimeError(f"a run ended with status {process.returncode}")
        else:
            return kills, inside


def main(runs: int, seed: int) -> int:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        for attempt in ("warm", "whole"):  # the first compiles the kernels
            began = time.monotonic()
            finish(start(Path(folder) / attempt, 2, False))
            duration = time.monotonic() - began
        expected = final_bits(whole)
        kills = inside = wrong = 0
        for number in range(runs):
            out = Path(folder) / f"run{number}"
            found = disturbed(out, rng, duration)
            kills, inside = kills + found[0], inside + found[1]
            bits = final_bits(out)
            if bits != expected:
                wrong += 1
                print(f"run {number}: differs in {[k for k in expected if bits.get(k) != expected[k]]}", flush=True)
            if (number + 1) % 10 == 0:
                print(f"{number + 1} runs, {kills} kills, {inside} inside a save, {wrong} wrong", flush=True)
    print(f"{runs} runs, {kills} kills, {inside} inside a save, {wrong} ended with other bits "
          f"({len(expected)} arrays and records compared)")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    np.seterr(all="raise")
    sys.exit(main(options.runs, options.seed))
