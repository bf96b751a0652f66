"""Every op at its sizes, forward and backward: `pytest bench` (a group for each, a row for each implementation)."""

import functools

import pytest

from fastnet.bench import ops, sizes
from fastnet.bench.profile import needed
from fastnet.bench.result import FLOAT32

CASES = [(op, number) for op in sizes.ops() for number in range(len(sizes.sizes(op)))]


@functools.lru_cache(maxsize=1)  # the next group needs other arrays
def case(op, number):
    call = sizes.calls([op])[number]
    dy = ops.cotangent(call)
    return call, dy, needed(ops.both_passes(call, dy, "cpu"))


@pytest.mark.parametrize("rival", ["cpu", "reference", *FLOAT32])  # the inner loop: a group is run in one go
@pytest.mark.parametrize(("op", "number"), CASES)
def test_op(timed, op, number, rival):
    call, dy, work = case(op, number)
    if rival not in FLOAT32:
        return timed(ops.both_passes(call, dy, rival), call.label, *work)
    pytest.importorskip("torch")
    from fastnet.bench import peer_ops

    if op not in peer_ops.COUNTERPARTS or (rival == "channels_last" and len(call.size.x) != 4):
        pytest.skip("PyTorch has no such op, or it has one layout")
    return timed(peer_ops.both_passes(call, dy, rival), call.label, *work)
