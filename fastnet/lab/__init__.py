"""The laboratory: looking into any model and any run.

Functions of a model and of arrays or a split; what they return are small dataclasses of plain arrays and numbers, which
`plain` makes JSON of and `fastnet.plots` draws. Only `set_statistics` changes the model it is given. `Recorder` and
`Activity` watch training, as `fit`'s `observer` or around a `TrainStep`, and leave its bits as they are.
"""

from fastnet.lab.activity import Activity, EpochActivity, LayerActivity, ParameterActivity
from fastnet.lab.bn_statistics import (
    METHODS,
    BatchNormStatistics,
    adaptive_bn_statistics,
    bn_statistics,
    set_statistics,
)
from fastnet.lab.features import FeatureMaps, feature_maps
from fastnet.lab.histograms import WeightHistogram, weight_histograms
from fastnet.lab.landscape import Band, RateRun, band, rate_runs
from fastnet.lab.plain import plain
from fastnet.lab.recorder import Recorder, Recording, last_linear
from fastnet.lab.runs import run_data, run_loss
from fastnet.lab.search import Choice, Log, Result, Trial, Tuner, Uniform
from fastnet.lab.surface import Surface, direction, loss_surface

__all__ = ["METHODS", "Activity", "Band", "BatchNormStatistics", "Choice", "EpochActivity", "FeatureMaps",
           "LayerActivity", "Log", "ParameterActivity", "RateRun", "Recorder", "Recording", "Result", "Surface",
           "Trial", "Tuner", "Uniform", "WeightHistogram", "adaptive_bn_statistics", "band", "bn_statistics",
           "direction", "feature_maps", "last_linear", "loss_surface", "plain", "rate_runs", "run_data", "run_loss",
           "set_statistics", "weight_histograms"]
