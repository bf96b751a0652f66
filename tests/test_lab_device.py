"""The laboratory on another device's arrays gives what it gives on NumPy's."""

import numpy as np
import pytest
from placed import dropout_net, strict_device  # noqa: F401
from strict_arrays import StrictArray
from tiny import bits, dataset

import fastnet as fn
from fastnet import backend, lab
from fastnet.data import Standardization

pytestmark = pytest.mark.usefixtures("strict_device")


def everything(device):
    """Plain results of all that takes a model, after two steps that are watched."""
    data, net = dataset(), dropout_net(device=device)
    standardization = Standardization.fit(data.train.images, "channel")
    x = standardization.apply(data.train.images[:20])
    recorder, activity = lab.Recorder(parameters="linear2.w", step_sizes=(0.1,)), lab.Activity()
    with backend.use("reference"):
        step = fn.TrainStep(net, fn.SGD(0.1, momentum=0.9))
        for observer in (recorder, recorder, activity):
            observer(step, x, data.train.labels[:20], None, 1)
        found = [recorder.recording(), activity.epochs(), lab.weight_histograms(net, bins=7), lab.direction(net),
                 *(lab.bn_statistics(net, data.train, standardization, method=method) for method in lab.METHODS),
                 lab.loss_surface(net, data.test, standardization, a=[0.0, 0.3], b=[0.1], images=10),
                 lab.feature_maps(net, data.test.images[0], standardization)]
        before = lab.set_statistics(net, found[4])
    assert all(type(a) is np.ndarray for a in before.values())
    return net, lab.plain(found)


def test_all_results_are_those_of_main_memory():
    here, expected = everything("cpu")
    there, found = everything("strict")
    assert isinstance(there.store.vector, StrictArray) and isinstance(there.running, StrictArray)
    assert found == expected
    assert bits({"v": here.store.vector}) == bits({"v": there.store.vector.get()})
