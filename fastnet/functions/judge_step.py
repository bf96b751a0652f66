"""Whether a step may change the model, found where the model is, and the sums of the steps: no host has to wait for it.

A loss that is not finite: its step and all that follow change nothing, until a host has looked (`halted`). Gradients
that overflow, where the loss is scaled (`fastnet.train.scaling`): the step changes nothing, and the scale is halved; if
that leaves less than `least`, it is as with such a loss. After `patience` steps in a row without, the scale is doubled.

`given`, what a host says of the step, and `control`, what is known after it, are vectors of float64 with the entries
named below. The numbers of the update stand in given from GIVEN on and are copied to control from NUMBERS on; where the
update is to be left out they are NaN there, which leaves it out (`kernels/cuda/update.cuh`). DECAY, of the average of
the weights, is not the host's to say anew: it becomes NaN when the run halts.
"""

import numpy as np

from fastnet.arrays import assign, to_numpy

STEP, EPOCH, GIVEN = range(3)
HALTED, LOSS, LOSSES, CORRECT, SCALE, GOOD, SKIPPED, UPDATES, DECAY, NUMBERS = range(10)
# HALTED   the step that halted the run, -1 without one
# LOSS     of the last step that was looked at        LOSSES   the sum of losses times samples
# CORRECT  how many labels had the largest logit      SCALE, GOOD, SKIPPED   as in `LossScale`
# UPDATES  how many updates were made before this step's


def run(control, given, loss, logits, labels=None, overflow=None, scale=None, *, patience, least):
    """Judge a step and write to `control`. Returns nothing.

    loss () and logits (N, classes) are the step's, of one type; labels (N,) int64, without which none are counted.
    Where the loss is scaled: overflow (1,) uint32 is not 0 where a gradient is not finite, and becomes 0; scale () of
    the loss' type becomes the scale of the next step.
    """
    now, step, value = to_numpy(control).copy(), to_numpy(given), float(to_numpy(loss))
    if now[HALTED] < 0:
        now[LOSS] = value
        if not np.isfinite(value):
            now[HALTED] = step[STEP]
    whole = now[HALTED] < 0
    if whole:
        now[LOSSES] += value * len(logits)
        if labels is not None:
            now[CORRECT] += (to_numpy(logits).argmax(axis=1) == to_numpy(labels)).sum()
        if overflow is not None:
            whole = not to_numpy(overflow)[0]
            now[GOOD] = now[GOOD] + 1 if whole else 0
            if not whole:
                now[SCALE], now[SKIPPED] = now[SCALE] / 2, now[SKIPPED] + 1
                if now[SCALE] < least:
                    now[HALTED] = step[STEP]
            elif now[GOOD] == patience:
                now[SCALE], now[GOOD] = now[SCALE] * 2, 0
        now[UPDATES] = step[STEP] - now[SKIPPED]
    now[NUMBERS:] = step[GIVEN:] if whole else np.nan
    if now[HALTED] >= 0:
        now[DECAY] = np.nan
    assign(control, now)
    if overflow is not None:
        assign(overflow, np.zeros(1, np.uint32))
        assign(scale, now[SCALE].astype(scale.dtype))
