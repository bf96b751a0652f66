"""Whole training steps: `pytest bench`, a group for each workload. `fastnet bench` compares them fairly, in turn."""

import pytest

from fastnet.bench import steps
from fastnet.bench.result import FLOAT32
from fastnet.bench.workload import Workload


@pytest.mark.parametrize("rival", ["fastnet", *FLOAT32])
@pytest.mark.parametrize(("name", "batch_size"), steps.WORKLOADS.items())
@pytest.mark.benchmark(min_rounds=2)
def test_step(timed, name, batch_size, rival):
    workload = Workload(name, batch_size)
    x, labels = workload.batch()
    if rival == "fastnet":
        call = steps.ours_on(workload.build(), "step", x, labels)
    else:
        pytest.importorskip("torch")
        from fastnet.bench import peer

        if rival not in peer.variants(not workload.flat):
            pytest.skip("rows of features have one layout")
        call = steps.theirs_on(peer.twin(workload.build(), x.shape[1:]), rival, "step", x, labels)
    timed(call, workload.label, workload.operations)
