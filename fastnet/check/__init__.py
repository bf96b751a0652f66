"""Proofs of gradients: centered differences, the complex step, the adjoint test, and that each of them can fail."""

from fastnet.check.catalogue import check_models
from fastnet.check.errors import GradientError, relative_error
from fastnet.check.models import check_model
from fastnet.check.op import OpReport, check_op
from fastnet.check.sharpness import check_is_sharp
from fastnet.check.statistics import check_statistics
from fastnet.check.table import check_ops, format_table
from fastnet.check.updates import check_optimizer, check_penalty, check_schedule

__all__ = ["GradientError", "OpReport", "check_is_sharp", "check_model", "check_models", "check_op", "check_ops",
           "check_optimizer", "check_penalty", "check_schedule", "check_statistics", "format_table", "relative_error"]
