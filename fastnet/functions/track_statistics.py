"""Running mean and variance of batch normalisation, moved towards those of a batch, in place.

    running_mean = decay running_mean + (1 - decay) mean
    running_var  = decay running_var  + (1 - decay) correction var

`correction` makes the unbiased variance of the biased one.

Source: Ioffe & Szegedy, "Batch normalization", 2015, algorithm 2.
"""


def factors(decay, correction):
    """What mean and var are multiplied by."""
    return 1 - decay, (1 - decay) * correction


def run(running_mean, running_var, mean, var, *, decay, correction=1.0):
    """Move the running statistics, (C,) each, towards mean and var (C,). Returns nothing."""
    for running, batch, factor in zip((running_mean, running_var), (mean, var), factors(decay, correction),
                                      strict=True):
        running *= decay
        running += (factor * batch).astype(running.dtype, copy=False)
