"""How many kernels a training step launches: each costs a microsecond or two of a step that takes a thousand."""

from collections import Counter

import numpy as np
import pytest
from tiny import dataset

import fastnet as fn
from fastnet import graphs
from fastnet.data import Augmentation
from fastnet.kernels.cuda import _launch

# ResNet-18 has 20 convolutions, 20 batch normalisations and 8 blocks. With a sixteenth of the filters half of the
# convolutions have few outputs, and dw of five comes in parts. No gradient is copied to its place.
LAUNCHES = {
    "conv2d_forward": 10, "conv2d_direct_forward": 10,
    "conv2d_dx": 8, "conv2d_direct_dx": 11,  # no dx below the first
    "conv2d_dw": 10, "conv2d_direct_dw": 10, "conv2d_sum": 5,
    "batch_norm_sums": 20, "batch_norm_statistics": 20, "batch_norm_normalise": 20, "track_statistics": 20,
    "batch_norm_gradient_sums": 20, "batch_norm_gradients": 20, "batch_norm_dx": 20,
    "add": 8,
    "pooled_softmax_cross_entropy_rows": 1, "pooled_softmax_cross_entropy_gradients": 1,
    "sgd_update": 1,
}


@pytest.fixture
def launches(monkeypatch):
    """{kernel: how often it was launched}, of all since the counter was cleared."""
    found, call = Counter(), _launch.Kernel.__call__

    def counted(self, *arguments, **options):
        found[self._name] += 1
        call(self, *arguments, **options)

    monkeypatch.setattr(_launch.Kernel, "__call__", counted)
    return found


@pytest.mark.usefixtures("emulated_device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_launches_of_a_step(dtype, launches):
    """All of a step, the update included."""
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    model = fn.build("resnet18", seed=1, filter_multiplier=1 / 16, input_shape=(8, 8, 3), device="emulated",
                     dtype=dtype)
    step = fn.TrainStep(model, fn.SGD(0.1))
    rng = np.random.default_rng(0)
    step(rng.standard_normal((4, 8, 8, 3)).astype(np.float32), rng.integers(0, 10, 4))
    assert dict(launches) == LAUNCHES


# What `fit` has besides: the first convolution reads the data set, and what a step does to the model is judged there.
OF_FIT = LAUNCHES | {
    "conv2d_direct_forward": 9, "conv2d_direct_dw": 9,
    "augment_conv2d_cuts": 1, "augment_conv2d_forward": 1, "augment_conv2d_dw": 1,
    "judge_hits": 1, "judge_step": 1, "write_over": 1, "take_back": 1,
}


@pytest.mark.usefixtures("emulated_device")
def test_the_launches_of_the_graph_of_a_run(launches, monkeypatch):
    """All of a step is in its graph: replayed, it launches nothing else."""
    record, recorded = graphs.RECORDERS["emulated"].record, []

    def noted(self, work):
        launches.clear()
        found = record(self, work)
        recorded.append(dict(launches))
        return found

    monkeypatch.setattr(graphs.RECORDERS["emulated"], "record", noted)
    model = fn.build("resnet18", seed=1, filter_multiplier=1 / 16, input_shape=(8, 8, 3), device="emulated")
    taken, step = [], fn.TrainStep.launch
    monkeypatch.setattr(fn.TrainStep, "launch", lambda *a: (launches.clear(), step(*a), taken.append(dict(launches))))
    fn.fit(model, dataset(20, 4, 4), fn.SGD(0.1), batch_size=4, epochs=1, verbose=False, penalty=fn.L2(1e-3),
           augmentation=Augmentation(pad=1, horizontal_flip=True))
    assert recorded == [OF_FIT]
    assert taken == [OF_FIT, OF_FIT, OF_FIT, {}, {}]  # twice one by one, then recorded, then replayed
