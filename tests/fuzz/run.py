"""Fuzz the readers: python tests/fuzz/run.py --inputs N --seed S [--target NAME ...].

Prints a row for each target: inputs, how many were taken, the longest time of the processor, the most memory at a
peak, failures. An input that fails is kept as corpus/TARGET-HASH, which pytest tries from then on. Exit status 1 where
any failed.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.targets import TARGETS, most
from fuzz.watch import MB, give_back_at_once, watched

CORPUS = Path(__file__).parent / "corpus"
STUCK = 60  # seconds after which not even an alarm has come through: the reader is in C code for ever
LARGEST_KEPT = 100_000  # bytes
TRACED = 50  # one input in so many is tried again with every allocation counted, touched or not


class Tally:
    def __init__(self):
        self.inputs = self.taken = self.failures = 0
        self.longest, self.peak, self.said = 0.0, 0, {}


def mutant(name, number, seed):
    """Input `number` of a target: a function of the seed."""
    draw = random.Random(f"{name} {number} {seed}")
    content = draw.choice(TARGETS[name].seeds())
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = TARGETS[name].mutate(draw, content)
    return content


def attempt(name, content, folder, *, traced):
    target = TARGETS[name]
    return watched(lambda: target.read(content, folder), target.documented, most(name, content), traced=traced)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="of all targets together (default 10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", choices=tuple(TARGETS), help="one of several (default: all)")
    options = parser.parse_args()
    give_back_at_once()
    tallies = {name: Tally() for name in options.target or TARGETS}
    names = [name for name in tallies for _ in range(TARGETS[name].share)]
    began = time.monotonic()
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shared, prefix="fuzz-") as scratch:
        for name in tallies:
            (Path(scratch) / name).mkdir()
            for content in TARGETS[name].seeds():  # compiles and imports what is needed, unwatched
                attempt(name, content, Path(scratch) / name, traced=False)
        with contextlib.suppress(KeyboardInterrupt):  # what was found so far is told
            for number in range(options.inputs):
                name = names[number % len(names)]
                tally = tallies[name]
                folder, content = Path(scratch) / name, mutant(name, tally.inputs, options.seed)
                faulthandler.dump_traceback_later(STUCK, exit=True, file=sys.__stderr__)
                seen = attempt(name, content, folder, traced=False)
                if seen.fault is None and tally.inputs % TRACED == 0:
                    counted = attempt(name, content, folder, traced=True)
                    seen = counted._replace(seconds=seen.seconds) if counted.peak > seen.peak or counted.fault else seen
                note(tally, name, content, seen)
                if number % 10_000 == 9_999:
                    print(f"{number + 1} inputs, {time.monotonic() - began:.0f} s, "
                          f"{sum(t.failures for t in tallies.values())} failures", file=sys.stderr, flush=True)
        faulthandler.cancel_dump_traceback_later()
    print(f"{'target':14}{'inputs':>10}{'taken':>9}{'longest, s':>12}{'peak, MB':>10}{'failures':>10}")
    for name, tally in tallies.items():
        print(f"{name:14}{tally.inputs:10}{tally.taken:9}{tally.longest:12.3f}{tally.peak / MB:10.1f}"
              f"{tally.failures:10}")
    total = sum(tally.inputs for tally in tallies.values())
    print(f"{'all':14}{total:10} in {time.monotonic() - began:.0f} s, seed {options.seed}")
    return int(any(tally.failures for tally in tallies.values()))


def note(tally, name, content, seen):
    tally.inputs += 1
    tally.taken += seen.error is None
    tally.longest, tally.peak = max(tally.longest, seen.seconds), max(tally.peak, seen.peak)
    if seen.fault is None:
        return
    tally.failures += 1
    kind = seen.fault.partition(":")[0]
    tally.said[kind] = tally.said.get(kind, 0) + 1
    if tally.said[kind] > 3 or len(content) > LARGEST_KEPT:  # the same again
        return
    CORPUS.mkdir(exist_ok=True)
    path = CORPUS / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    path.write_bytes(content)
    print(f"{path.name}: {seen.fault}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
