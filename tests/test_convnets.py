"""The convolutional models: their parameters, products and shapes, the names of their layers, one step of each."""

import pytest

import fastnet as fn
from fastnet.nn.models import entry

# name -> (parameters, multiply-accumulates of one image), the reports' (REPORTS.md section 8) or counted by hand below
COUNTS = {
    "lenet5": (62_006, 651_720),
    "lenet5-bn": (62_006 + 2 * (6 + 16 + 120 + 84), 651_720),
    "lenet5-bn-swish": (62_006 + 2 * (6 + 16 + 120 + 84), 651_720),
    "vgg-a": (9_750_922, 153_293_824),
    "vgg-a-bn": (9_750_922 + 2 * (64 + 128 + 2 * 256 + 4 * 512), 153_293_824),
    "resnet18": (11_173_962, 555_422_720),
    "resnet18-dropout": (11_173_962, 555_422_720),
    "resnet18-x2": (44_595_786, 2_149_263_360),
    "resnet34": (21_282_122, 1_159_402_496),
    "resnet20": (269_722, 40_551_040),
    "resnet18-dw": (1_444_907, 71_503_872),
    "mobilenet": (3_217_226, 46_354_432),
    "squeezenet": (727_626, 23_511_040),
    "alexnet": (60_965_224, 724_406_816),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_products_are_the_published_ones(name):
    model, row = fn.build(name), entry(name)
    assert (model.num_parameters(), model.macs(row.input_shape)) == COUNTS[name]
    assert model.output_shape(row.input_shape) == ((1000,) if name == "alexnet" else (10,))
    assert model._store is None  # nothing is drawn for counting
