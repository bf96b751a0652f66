"""What a comparison with a published figure says: the formulas, and that each verdict can come out."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from fastnet.reports import verdicts


def test_the_standard_errors_that_the_reports_differences_are_measured_by():
    found = [round(100 * verdicts.standard_error(p, 10_000), 2) for p in (0.53, 0.89, 0.95)]
    assert found == [0.50, 0.31, 0.22]


def test_a_figure_is_judged_by_sampling_and_seeds_together():
    values, reported, images = [0.52, 0.53, 0.55], 0.50, 10_000
    mean, s2 = np.mean(values), np.var(values, ddof=1)
    bound = 2 * math.sqrt(reported * (1 - reported) / images + s2 * (1 + 1 / 3))
    found = verdicts.figure(values, images, reported)
    assert found.mean == pytest.approx(mean)
    assert found.spread == pytest.approx(math.sqrt(s2))
    assert found.standard_error == pytest.approx(0.005)
    for away, verdict in ((0.999, verdicts.AGREES), (1.001, verdicts.DIFFERS), (-0.999, verdicts.AGREES)):
        shifted = [v - mean + reported + away * bound for v in values]
        assert verdicts.figure(shifted, images, reported).verdict == verdict


def test_one_seed_has_no_spread_and_the_images_alone_decide():
    found = verdicts.figure([0.509], 10_000, 0.5)
    assert (found.spread, found.verdict) == (None, verdicts.AGREES)
    assert verdicts.figure([0.511], 10_000, 0.5).verdict == verdicts.DIFFERS


def test_without_a_published_figure_there_is_no_verdict():
    found = verdicts.figure([0.5, 0.6], 100, None)
    assert found.verdict == verdicts.NO_CLAIM
    assert found.standard_error == pytest.approx(math.sqrt(0.55 * 0.45 / 100))


@pytest.mark.parametrize(("a", "b"), [(0, 0), (3, 3), (1, 7), (7, 1), (40, 60), (0, 12)])
def test_mcnemar_is_the_exact_binomial_test(a, b):
    expected = binomtest(min(a, b), a + b, 0.5).pvalue if a + b else 1.0
    assert verdicts.mcnemar(a, b) == pytest.approx(expected, rel=1e-12)


def pairs(n, only_a, only_b, both=10):
    """What two networks get right, with so many images that only one of them does."""
    a, b = np.zeros(n, bool), np.zeros(n, bool)
    a[:only_a] = True
    b[only_a : only_a + only_b] = True
    a[-both:] = b[-both:] = True
    return a, b


def test_a_difference_has_the_variance_of_its_pairs_and_of_the_seeds():
    rng = np.random.default_rng(0)
    better, worse = (rng.random((3, 400)) < p for p in (0.6, 0.5))
    found = verdicts.comparison(better, worse, 0.1)
    paired = np.mean([np.var(a.astype(float) - b) / 400 for a, b in zip(better, worse, strict=True)])
    seeds = np.var(better.mean(1), ddof=1) + np.var(worse.mean(1), ddof=1)
    assert found.difference == pytest.approx(better.mean() - worse.mean())
    assert found.error == pytest.approx(math.sqrt(paired + seeds))
    assert len(found.p) == 3


@pytest.mark.parametrize(("only_a", "only_b", "reported", "verdict"), [
    (60, 10, 0.05, verdicts.AGREES),
    (10, 60, 0.05, verdicts.DIFFERS),
    (60, 10, -0.05, verdicts.DIFFERS),
    (60, 10, None, verdicts.AGREES),
    (10, 60, None, verdicts.DIFFERS),
    (60, 10, 0.001, verdicts.INDISTINGUISHABLE),  # less than the published runs could tell
    (30, 28, 0.05, verdicts.INDISTINGUISHABLE),  # no difference here
])
def test_verdicts_on_an_effect(only_a, only_b, reported, verdict):
    a, b = pairs(1000, only_a, only_b)
    assert verdicts.comparison([a], [b], reported).verdict == verdict


def test_networks_that_saw_other_images_are_not_compared():
    with pytest.raises(ValueError, match="the same seeds and the same images"):
        verdicts.comparison([np.ones(5, bool)], [np.ones(6, bool)], None)
    with pytest.raises(ValueError, match="the same seeds and the same images"):
        verdicts.comparison([np.ones(5, bool)] * 2, [np.ones(5, bool)], None)


def test_errors_are_as_large_as_the_spread_that_draws_show():
    """Two networks with known probabilities, many draws: `agrees` is wrong about one time in twenty."""
    rng = np.random.default_rng(1)
    images, seeds = 2000, 3
    wrong = 0
    for _ in range(2000):
        p = 0.5 + 0.01 * rng.normal(size=seeds + 1)  # of each seed, the published run's last
        seen = rng.binomial(images, p) / images
        wrong += verdicts.figure(list(seen[:-1]), images, seen[-1]).verdict == verdicts.DIFFERS
    assert 0.02 < wrong / 2000 < 0.12  # with three seeds s has few degrees of freedom
