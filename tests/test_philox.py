"""Philox: the published known answers, kernel against reference, and independence from the company a sample is in."""

import numpy as np
import pytest

from fastnet import backend
from fastnet.functions import philox

# Random123's known-answer file for philox4x32-10: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_the_rounds_give_the_known_answers(counter, key, answer):
    words = philox.rounds(tuple(np.array([c], np.uint64) for c in counter), key)
    assert [int(w[0]) for w in words] == list(answer)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_the_compiled_rounds_give_the_known_answers(counter, key, answer):
    from fastnet.kernels.cpu._philox import philox as compiled

    assert tuple(int(w) for w in compiled(*counter, *key)) == answer


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_the_counter_words_are_block_sample_epoch_stream(implementation):
    with backend.use(implementation):
        words = backend.call("philox", np.array([5]), seed=(7 << 32) | 9, stream=3, epoch=2, count=8)[0]
    for block in (0, 1):
        expected = philox.rounds(tuple(np.array([c], np.uint64) for c in (block, 5, 2, 3)), (9, 7))
        assert words[4 * block : 4 * block + 4].tolist() == [int(w[0]) for w in expected]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 64])
@pytest.mark.parametrize(("seed", "stream", "epoch"), [
    (0, 0, 0), (1, philox.SHUFFLE, 3), (2**32 - 1, 1, 1000), (2**32, philox.DROPOUT + 7, 5),
    (2**64 - 1, 2**32 - 1, 2**32 - 1)])
def test_kernel_equals_reference(count, seed, stream, epoch):
    for samples in (np.array([2**32 - 1]), np.arange(3000, dtype=np.int32)[::-7], np.arange(1030)):
        words = {}
        for implementation in ("reference", "cpu"):
            with backend.use(implementation):
                words[implementation] = backend.call("philox", samples, seed=seed, stream=stream, epoch=epoch,
                                                     count=count)
        assert words["cpu"].dtype == words["reference"].dtype == np.uint32
        assert words["cpu"].shape == (len(samples), count)
        np.testing.assert_array_equal(words["cpu"], words["reference"])


def test_a_sample_gets_the_same_words_in_any_batch():
    together = backend.call("philox", np.arange(100), seed=3, stream=1, epoch=4, count=6)
    some = np.array([41, 7, 99])
    np.testing.assert_array_equal(backend.call("philox", some, seed=3, stream=1, epoch=4, count=6), together[some])
    np.testing.assert_array_equal(backend.call("philox", some, seed=3, stream=1, epoch=4, count=2), together[some, :2])


@pytest.mark.parametrize("other", [{"seed": 4}, {"seed": 3 + 2**32}, {"stream": 2}, {"epoch": 5}])
def test_every_part_of_the_key_counts(other):
    key = {"seed": 3, "stream": 1, "epoch": 4}
    a = backend.call("philox", np.arange(64), **key, count=4)
    b = backend.call("philox", np.arange(64), **key | other, count=4)
    assert not (a == b).any()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_64_bits_is_an_error(seed):
    with pytest.raises(ValueError, match=f"seed must be in 0..2\\^64-1 but is {seed}"):
        backend.call("philox", np.arange(3), seed=seed, stream=0, count=4)


def test_uniform_is_in_the_half_open_interval():
    words = np.array([0, 1, 2**31, 2**32 - 1], np.uint32)
    assert philox.uniform(words).tolist() == [0.0, 2.0**-32, 0.5, 1 - 2.0**-32]


@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_normal_has_the_size_asked_for(size):
    x = philox.normal(size, seed=1, stream=0)
    assert x.shape == (size,) and x.dtype == np.float64 and np.isfinite(x).all()


def test_normal_has_the_moments_of_a_normal():
    n = 200_000
    x = philox.normal(n, seed=5, stream=philox.INITIALIZATION, sample=3)
    assert abs(x.mean()) < 4 / n**0.5
    assert abs(x.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((x**3).mean()) < 4 * (15 / n) ** 0.5
    assert abs((x**4).mean() - 3) < 4 * (96 / n) ** 0.5
    assert abs((np.abs(x) < 1).mean() - 0.6826895) < 4 * (0.6826895 * 0.3173105 / n) ** 0.5
    half = n // 2
    assert abs((x[:half] * x[half:]).mean()) < 4 / half**0.5  # cosine and sine halves are uncorrelated


def test_normal_depends_on_seed_stream_and_sample():
    x = philox.normal(8, seed=1, stream=0, sample=0)
    np.testing.assert_array_equal(x, philox.normal(8, seed=1, stream=0, sample=0))
    for other in ({"seed": 2}, {"stream": 1}, {"sample": 1}):
        assert not (philox.normal(8, **{"seed": 1, "stream": 0, "sample": 0} | other) == x).any()
