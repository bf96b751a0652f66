"""Figures. Every function draws from plain numbers and writes one file."""

from fastnet.plots.style import RATE, TRAIN, VALIDATION
from fastnet.plots.training import lr_range, schedule, training_curves

__all__ = ["RATE", "TRAIN", "VALIDATION", "lr_range", "schedule", "training_curves"]
