"""Figures. Every function draws from plain numbers and writes one file."""

from fastnet.plots.landscape import bands, loss_contours, loss_lines
from fastnet.plots.layers import activity, weight_histograms
from fastnet.plots.pictures import feature_maps, image_grid
from fastnet.plots.style import COLOURS, RATE, STYLE, TRAIN, VALIDATION
from fastnet.plots.training import lr_range, schedule, training_curves

__all__ = ["COLOURS", "RATE", "STYLE", "TRAIN", "VALIDATION", "activity", "bands", "feature_maps", "image_grid",
           "loss_contours", "loss_lines", "lr_range", "schedule", "training_curves", "weight_histograms"]
