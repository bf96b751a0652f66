"""The judgement of a step as in `fastnet.functions.judge_step`: a launch for the hits, one for all the rest."""

from fastnet.functions.judge_step import GIVEN, NUMBERS
from fastnet.kernels.cuda._arrays import contiguous, empty, on_device, supported
from fastnet.kernels.cuda._launch import WARP, Kernel

_HITS, _JUDGE = Kernel("judge_step", "judge_hits"), Kernel("judge_step", "judge_step")


def supports(control, given, loss, logits, labels=None, overflow=None, scale=None, *, patience, least):
    return (on_device(control, given, labels, overflow) and supported(loss, logits, scale) and loss.dtype.itemsize > 2
            and loss.size == 1 and logits.ndim == 2 and logits.size > 0
            and all(a.dtype == "float64" and a.ndim == 1 and a.flags.c_contiguous for a in (control, given))
            and control.size - NUMBERS == given.size - GIVEN >= 0
            and (labels is None or (labels.dtype == "int64" and labels.shape == logits.shape[:1]))
            and (overflow is None or (overflow.dtype == "uint32" and overflow.size == scale.size == 1)))


def run(control, given, loss, logits, labels=None, overflow=None, scale=None, *, patience, least):
    hits = None
    if labels is not None:
        hits = empty(labels, dtype="uint8")
        _HITS(_HITS.grid_for(len(logits) * WARP), contiguous(logits), contiguous(labels), hits, *logits.shape)
    _JUDGE(1, loss, hits, len(logits), given, control, given.size - GIVEN, overflow, scale, patience, least)
