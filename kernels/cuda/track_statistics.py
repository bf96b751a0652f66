"""Running statistics as in `fastnet.functions.track_statistics`: one launch for both."""

from fastnet.functions.track_statistics import factors
from fastnet.kernels.cuda._arrays import contiguous, supported
from fastnet.kernels.cuda._launch import Kernel

_TRACK = Kernel("track_statistics", "track_statistics")


def supports(running_mean, running_var, mean, var, **options):
    arrays = running_mean, running_var, mean, var
    return (supported(*arrays) and all(a.dtype == mean.dtype and a.ndim == 1 and a.shape == mean.shape for a in arrays)
            and running_mean.flags.c_contiguous and running_var.flags.c_contiguous and mean.size > 0)


def run(running_mean, running_var, mean, var, *, decay, correction=1.0):
    _TRACK(_TRACK.grid_for(mean.size), running_mean, running_var, contiguous(mean), contiguous(var), decay,
           *factors(decay, correction), mean.size)
