"""What a comparison with a published figure may say, and why.

A published accuracy is one run measured on n images. Our runs differ in nothing but the seed (weights, shuffles, and
the random split), k of them with mean m and variance s^2 (divided by k - 1). For one figure

    agrees     where |m - reported| <= 2 sqrt(SE^2 + s^2 (1 + 1/k))
    differs    otherwise

SE^2 = p (1 - p)/n with p = reported: the images are a sample, and theirs and ours need not be the same ones (another
split, other files). s^2 is there once for the published run, which is one draw of a seed, and s^2/k times for our mean.
With one seed s is not known and the seeds' share is left out, which makes `differs` likelier: the table then says so.

For a claim that one network beats another, both answer for the same images, so only those count that one gets right and
the other wrong: with shares b and c of the images, the sampling variance of the difference is ((b + c) - (b - c)^2)/n,
averaged over the seeds, and a single run of each has the variance of its seeds besides:

    one run each    e1^2 = sampling + s_A^2 + s_B^2            our means    ek^2 = sampling + (s_A^2 + s_B^2)/k

    not distinguishable    where the published difference is below its own sampling error e1: one run of each cannot
                           tell; and where our difference is within 2 ek of zero
    agrees, differs        else: our difference has, or does not have, the sign that is claimed

McNemar's exact test (1947) is given for every seed: of the b + c images on which the two disagree, as many on either
side are expected; p is two-sided and says nothing about seeds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

AGREES, DIFFERS, INDISTINGUISHABLE, NOT_RUN = "agrees", "differs", "not distinguishable", "not run"
NO_CLAIM = "-"  # nothing was published to compare with
REDUCED = "reduced"  # fewer images or epochs than were published: there is nothing to agree with
VERDICTS = (AGREES, DIFFERS, INDISTINGUISHABLE, REDUCED, NOT_RUN)


class Figure(NamedTuple):
    """A mean over seeds beside a published figure; all fractions. Spread and reported are None where there is none."""

    mean: float
    spread: float | None
    seeds: int
    standard_error: float
    reported: float | None
    verdict: str


class Comparison(NamedTuple):
    """Better minus worse: ours and the published one, its error for one run of each, McNemar's p for every seed."""

    difference: float
    reported: float | None
    error: float
    p: tuple[float, ...]
    verdict: str


def standard_error(p: float, images: int) -> float:
    """The binomial standard deviation of an accuracy p on so many images."""
    return math.sqrt(max(0.0, p * (1 - p)) / images)


def figure(values: Sequence[float], images: int, reported: float | None) -> Figure:
    """The values of all seeds beside the published one."""
    mean, variance = float(np.mean(values)), _variance(values)
    error = standard_error(mean if reported is None else reported, images)
    verdict = NO_CLAIM
    if reported is not None:
        bound = 2 * math.sqrt(error**2 + (variance or 0.0) * (1 + 1 / len(values)))
        verdict = AGREES if abs(mean - reported) <= bound else DIFFERS
    return Figure(mean, None if variance is None else math.sqrt(variance), len(values), error, reported, verdict)


def comparison(better: Sequence[np.ndarray], worse: Sequence[np.ndarray], reported: float | None) -> Comparison:
    """Which images two networks get right, bool (N,) for every seed; `reported` is the published difference.

    Raises ValueError where the two did not see the same images.
    """
    if len(better) != len(worse) or any(a.shape != b.shape for a, b in zip(better, worse, strict=True)):
        raise ValueError("comparison: both networks need the same seeds and the same images")
    gains, sampling, p = [], [], []
    for a, b in zip(better, worse, strict=True):
        only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
        gains.append((only_a - only_b) / len(a))
        sampling.append(((only_a + only_b) / len(a) - gains[-1] ** 2) / len(a))
        p.append(mcnemar(only_a, only_b))
    seeds = (_variance([a.mean() for a in better]) or 0.0) + (_variance([b.mean() for b in worse]) or 0.0)
    difference, images = float(np.mean(gains)), float(np.mean(sampling))
    one, ours = math.sqrt(images + seeds), math.sqrt(images + seeds / len(gains))
    if (reported is not None and abs(reported) < one) or abs(difference) <= 2 * ours:
        verdict = INDISTINGUISHABLE
    else:
        verdict = AGREES if difference * (1.0 if reported is None else reported) > 0 else DIFFERS
    return Comparison(difference, reported, one, tuple(p), verdict)


def spread_verdict(values: Sequence[float], reported: float) -> str:
    """Of a figure whose only error is that of the seeds: |mean - reported| <= 2 s sqrt(1 + 1/k); one seed cannot tell.
    """
    variance = _variance(values)
    if variance is None:
        return INDISTINGUISHABLE
    bound = 2 * math.sqrt(variance * (1 + 1 / len(values)))
    return AGREES if abs(float(np.mean(values)) - reported) <= bound else DIFFERS


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided exact p: twice the binomial tail at 1/2 of the smaller count, at most 1."""
    from scipy.stats import binom

    return min(1.0, 2 * float(binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def _variance(values: Sequence[float]) -> float | None:
    return float(np.var(values, ddof=1)) if len(values) > 1 else None
