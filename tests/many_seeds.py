"""False alarms of the op checks: ops that are right, checked on inputs, dy and directions of many seeds.

    python tests/many_seeds.py [--seeds 1000] [--first 0] [--json FILE] [op ...]

Every implementation for NumPy arrays of every op, on all its test inputs; of convolution's covering set those that are
small, a few a seed. Some entries of each array are differentiated one by one: another seed draws others, and the
adjoint test sees all of them. Behind an alarm is a bound that is too tight or an input at a kink, which is to be mended
there: nothing is tried again.
tests/test_many_seeds.py runs a few seeds; the figures quoted elsewhere come from here.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numba

from fastnet import backend
from fastnet.check.cases import Case, cases, ops
from fastnet.check.covering import covering_cases
from fastnet.check.op import check_op
from fastnet.train.record import versions

ENTRIES = 8
SMALL = 4096  # entries of the arrays together
SHARE = 20  # one in so many of the covering set is taken with each seed


def drawn(op: str, seed: int) -> Iterator[Case]:
    """The op's test inputs, and the share of its covering set that is this seed's turn."""
    yield from cases(op, seed)
    small = [case for case in covering_cases(op, seed) if sum(a.size for a in case.arrays if a is not None) <= SMALL]
    yield from small[seed % SHARE :: SHARE]


def check_seed(op: str, seed: int) -> tuple[int, int, list[str]]:
    """(checks, gradients compared, alarms) of one op in one seed; each alarm is all that the report says."""
    checks, gradients, alarms = 0, 0, []
    for case in drawn(op, seed):
        for implementation in backend.ORDER["numpy"]:
            module = backend.module(implementation, op)
            if module is None or (hasattr(module, "supports") and not module.supports(*case.arrays, **case.options)):
                continue
            report = check_op(module, case.arrays, case.options, case=case.label, seed=seed, entries=ENTRIES,
                              raises=False)
            checks, gradients = checks + 1, gradients + len(report.rows)
            if not report.passed:
                alarms.append(f"{op}, {implementation}, {case.label!r}, seed {seed}: {report.text}")
    return checks, gradients, alarms


def main(names: Sequence[str], first: int, seeds: int, file: Path | None = None) -> int:
    """Check, print each alarm and the sums by op; 1 where there was an alarm."""
    checks: Counter[str] = Counter()
    gradients, alarms = 0, {op: [] for op in names}
    for seed in range(first, first + seeds):
        for op in names:
            count, compared, found = check_seed(op, seed)
            checks[op] += count
            gradients += compared
            alarms[op] += found
            for line in found:
                print(line, flush=True)
        done, wrong = seed + 1 - first, sum(map(len, alarms.values()))
        if done % 10 == 0:
            print(f"{done} seeds, {checks.total()} checks, {wrong} false alarms", flush=True)
        if file:
            record = {"first": first, "seeds": done, "checks": dict(checks), "gradients": gradients, "alarms": alarms}
            file.write_text(json.dumps({**record, "versions": versions()}, indent=1) + "\n")
    for op in names:
        print(f"{op:28} {checks[op]:7} checks, {len(alarms[op])} false alarms")
    wrong = sum(map(len, alarms.values()))
    print(f"{seeds} seeds, {checks.total()} checks of {gradients} gradients, {wrong} false alarms")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="op", help="all where none is named")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    numba.set_num_threads(1)  # arrays so small are not worth waking threads for, and the bits are the same
    sys.exit(main(options.names or ops(), options.first, options.seeds, options.json))
