"""Kill runs of mlp3-bn with SIGKILL, resume them, and compare the end with an undisturbed run, bit by bit.

    python tests/kill_and_resume.py [--runs 60] [--kills 0] [--seed 0] [--json FILE]

Each run is killed several times: at random moments, and inside a save, at a random one of its stages. Every restart
uses 1 or 2 threads at random. There are as many runs as it takes to have `--runs` of them and `--kills` kills.
tests/test_kill.py runs a few of these; the figures quoted elsewhere come from here.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import safetensors.numpy

from fastnet.train.record import versions

VICTIM = Path(__file__).with_name("victim.py")
STAGES = ("open", "write", "flush", "read", "rename", "folder")
OUTSIDE, INSIDE = "at random, outside a save", "at random, inside a save"
MOST_KILLS = 8
LATEST_SAVE = 40  # of one process; a run has some 160 steps and saves after nearly all of them


def start(out: Path, threads: int, resume: bool, die_at: str = "") -> subprocess.Popen:
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "FASTNET_DIE_AT": die_at}
    return subprocess.Popen([sys.executable, str(VICTIM), str(out), str(threads), "resume" if resume else "new"],
                            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


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


def disturbed(out: Path, rng: random.Random, duration: float) -> Counter[str]:
    """One run, killed and resumed until it ends: how many kills there were, by the place where they fell.

    `duration` is how long an undisturbed run trains, in seconds.
    """
    kills: Counter[str] = Counter()
    planned = rng.randint(2, MOST_KILLS)
    while True:
        resume = (out / "checkpoint.safetensors").exists()
        if not resume and out.exists():  # killed before its first checkpoint: nothing to go on from
            for file in out.iterdir():
                file.unlink()
            out.rmdir()
        by_itself = kills.total() < planned and rng.random() < 0.4
        stage = rng.choice(STAGES)
        process = start(out, rng.randint(1, 2), resume, f"{stage}:{rng.randint(1, LATEST_SAVE)}" if by_itself else "")
        if kills.total() < planned and not by_itself:
            process.stdout.readline()  # it is about to train: to kill it while it loads modules would show nothing
            time.sleep(rng.uniform(0, 0.6) * duration)
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        if process.returncode == -signal.SIGKILL:
            kills[f"in a save, {stage}" if by_itself else INSIDE if (out / "inside").exists() else OUTSIDE] += 1
        elif process.returncode:
            raise RuntimeError(f"a run ended with status {process.returncode}: {errors.decode()[-500:]}")
        else:
            return kills


def undisturbed(folder: Path) -> tuple[dict[str, object], float]:
    """The final bits of a run that nobody kills, and the seconds that it trains."""
    for attempt in ("warm", "whole"):  # the first compiles the kernels
        process = start(folder / attempt, 2, False)
        process.stdout.readline()
        began = time.monotonic()
        finish(process)
    return final_bits(folder / "whole"), time.monotonic() - began


def main(runs: int, seed: int, least_kills: int = 0, file: Path | None = None) -> int:
    rng = random.Random(seed)
    places: Counter[str] = Counter()
    number, wrong = 0, []
    with tempfile.TemporaryDirectory() as folder:
        expected, duration = undisturbed(Path(folder))
        while number < runs or places.total() < least_kills:
            out = Path(folder) / f"run{number}"
            places += disturbed(out, rng, duration)
            bits = final_bits(out)
            if bits != expected:
                wrong.append(number)
                print(f"run {number}: differs in {[k for k in expected if bits.get(k) != expected[k]]}", flush=True)
            shutil.rmtree(out)
            number += 1
            inside = places.total() - places[OUTSIDE]
            if file:
                record = {"runs": number, "kills": places.total(), "inside_a_save": inside, "places": dict(places),
                          "runs_with_other_bits": wrong, "compared": len(expected), "seed": seed}
                file.write_text(json.dumps({**record, "versions": versions()}, indent=1) + "\n")
            if number % 10 == 0:
                print(f"{number} runs, {places.total()} kills, {inside} inside a save, {len(wrong)} wrong", flush=True)
    print(f"{number} runs, {places.total()} kills, {inside} inside a save, {len(wrong)} ended with other bits "
          f"({len(expected)} arrays and records compared)")
    for place, count in sorted(places.items()):
        print(f"{count:5} {place}")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    np.seterr(all="raise")
    sys.exit(main(options.runs, options.seed, options.kills, options.json))
