"""CUDA kernels of a training step's end on the emulator: updates, the judgement of a step, what is taken back.

The updates have the bits of the CPU's, which are held against the published recurrences. On a card products and sums
are fused, as in all kernels; that rounds once where it is twice here.
"""

import numpy as np
import pytest
from emulator.arrays import emulated
from test_optimizers import ALL

from fastnet import backend
from fastnet.arrays import Deferred
from fastnet.functions import judge_step, soft_threshold
from fastnet.functions._update import Regularization
from fastnet.functions.judge_step import CORRECT, DECAY, GOOD, HALTED, LOSSES, NUMBERS, SCALE, SKIPPED, UPDATES
from fastnet.kernels.cuda import _update

pytestmark = pytest.mark.usefixtures("emulated_device")
on_both_types = pytest.mark.parametrize("dtype", ["float32", "float64"])
SIZE, PENALISED = 600, 300


def updated(optimizer, w, gradients, place, steps):
    """w and the state after updates with (step, rate), on arrays made by `place`, as bytes."""
    w, state = place(w), {key: place(vector) for key, vector in optimizer.start(w).items()}
    for g, (step, lr) in zip(gradients, steps, strict=True):
        optimizer.update(w, place(g), state, step=step, lr=lr,
                         regularization=Regularization(0.1, 0.01, 0.1, PENALISED))
    return [a.get().tobytes() if place is emulated else a.tobytes() for a in (w, *state.values())]


def numbers(dtype):
    rng = np.random.default_rng(0)
    w, gradients = rng.standard_normal(SIZE).astype(dtype), rng.standard_normal((3, SIZE)).astype(dtype)
    w[3] = gradients[:, 5] = 0
    return w, gradients


@on_both_types
@pytest.mark.parametrize("name", ALL)
def test_updates_have_the_bits_of_the_cpu_s(name, dtype):
    """Also where the rate and the step stand in the device's memory."""
    given, rates = numbers(dtype), (0.01, 0.03, 1e-4)
    expected = updated(ALL[name], *given, np.array, list(enumerate(rates)))
    assert updated(ALL[name], *given, emulated, list(enumerate(rates))) == expected
    memory = emulated(np.array([7, *rates, 0, 1, 2.0]))
    deferred = [(Deferred(memory, 4 + i), Deferred(memory, 1 + i)) for i in range(3)]
    assert updated(ALL[name], *given, emulated, deferred) == expected
    wrong = [(Deferred(memory, 4 + i), Deferred(memory, 1)) for i in range(3)]
    assert updated(ALL[name], *given, emulated, wrong) != expected


@pytest.mark.parametrize("name", ALL)
def test_a_rate_that_is_nan_leaves_the_update_out(name):
    w, gradients = numbers("float32")
    memory = emulated(np.array([1, np.nan]))
    found = updated(ALL[name], w, gradients[:1], emulated, [(Deferred(memory, 0), Deferred(memory, 1))])
    assert found == [a.tobytes() for a in (w, *ALL[name].start(w).values())]


@pytest.mark.parametrize("name", ALL)
def test_padding_stays_and_a_gradient_that_is_not_a_number_shows(name):
    w, optimizer = np.zeros(20, np.float32), ALL[name]
    w[10:] = 2
    there, g = emulated(w), np.zeros_like(w)
    g[3] = np.nan
    state = {key: emulated(vector) for key, vector in optimizer.start(w).items()}
    optimizer.update(there, emulated(g), state, step=0, lr=0.5, regularization=Regularization(0.1, 0.1, 0.1, 10))
    assert np.flatnonzero(np.isnan(there.get())).tolist() == [3]
    np.testing.assert_array_equal(np.delete(there.get(), 3), np.repeat(np.float32([0, 2]), [9, 10]))


@on_both_types
def test_averages_and_soft_thresholds_are_the_reference_s(dtype):
    rng = np.random.default_rng(0)
    a, w = rng.normal(size=(2, 30)).astype(dtype)
    w[:4] = 0, 0.5, -0.5, np.nan
    memory = emulated(np.array([0.9, 0.5, np.nan]))
    for at in (0, None, 2):
        decay, threshold = (0.9, 0.5) if at is None else (Deferred(memory, at), Deferred(memory, max(1, at)))
        moved, shrunk, averages, weights = a.copy(), w.copy(), emulated(a), emulated(w)
        if at != 2:
            backend.call("average_update", moved, w, decay=0.9)
            soft_threshold.run(shrunk, threshold=0.5)
        backend.call("average_update", averages, weights, decay=decay)
        np.testing.assert_array_equal(averages.get(), moved)
        backend.call("soft_threshold", weights, threshold=threshold)
        np.testing.assert_array_equal(weights.get(), shrunk)


def test_vectors_that_the_kernels_do_not_take():
    w = emulated(np.ones(6))
    assert _update.supports(w, w)
    for other in (w[:5], w.astype(np.float32), w.reshape(2, 3), emulated(np.ones(12))[::2], emulated(np.ones(6, int))):
        assert not _update.supports(w, other)
    assert not _update.supports(w[:0], w[:0])
    assert not _update.supports(np.ones(6), np.ones(6))
    assert not _update.supports(emulated(np.ones(6, np.float16)))


# --- the judgement ---

class Judged:
    """The reference on NumPy arrays or the kernel on emulated ones, over a sequence of steps."""

    def __init__(self, place, dtype, scaled):
        control = np.zeros(NUMBERS + 3)
        control[[HALTED, DECAY, SCALE]] = -1, 0.9, 8
        self.place, self.control = place, place(control)
        self.scaled = (place(np.zeros(1, np.uint32)), place(np.ones((), dtype))) if scaled else ()

    def __call__(self, step, loss, logits, labels, overflow=0):
        if self.scaled:
            self.scaled[0][...] = overflow
        labels = None if labels is None else self.place(labels)
        backend.call("judge_step", self.control, self.place(np.array([step, 3, 0.1, 0.2, step])), self.place(loss),
                     self.place(logits), labels, *self.scaled, patience=4, least=1.0)
        arrays = [self.control, *self.scaled]
        return [a.get() if self.place is emulated else a.copy() for a in arrays]


@on_both_types
@pytest.mark.parametrize("scaled", [False, True])
def test_the_judgement_is_the_reference_s(dtype, scaled):
    """Ties, steps that overflow, a doubled scale, a loss that is not finite and steps after it."""
    rng = np.random.default_rng(1)
    ours, theirs = Judged(emulated, dtype, scaled), Judged(np.array, dtype, scaled)
    overflows = {3, 9, 10}
    for step in range(20):
        shape = ((2, 5), (300, 3), (70, 40))[step % 3]
        logits = rng.integers(-3, 3, shape).astype(dtype)
        logits[0, 1] = -np.inf
        labels = rng.integers(0, shape[1], shape[0]) if step % 4 else None
        loss = np.array(rng.random() if step < 17 else np.inf if step == 17 else 1, dtype)
        found, expected = (judge(step, loss, logits, labels, step in overflows) for judge in (ours, theirs))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        control = found[0]
        left_out = step >= 17 or (scaled and step in overflows)
        assert np.isnan(control[NUMBERS:]).all() == left_out and np.isnan(control[DECAY]) == (step >= 17)
        if not left_out:
            assert control[NUMBERS:].tolist() == [0.1, 0.2, step]
    assert control[HALTED] == 17 and control[UPDATES] == 16 - control[SKIPPED] and control[LOSSES] > 0
    assert control[[SCALE, GOOD, SKIPPED]].tolist() == ([4, 2, 3] if scaled else [8, 0, 0])
    assert 0 < control[CORRECT] < 2000


def test_a_scale_below_the_least_halts():
    judge, nothing = Judged(emulated, "float32", True), np.zeros((2, 2), np.float32)
    for step in range(5):
        control, flag, scale = judge(step, np.float32(0.5).reshape(()), nothing, None, 1)
    assert control[[HALTED, SCALE, SKIPPED]].tolist() == [3, 0.5, 4] and scale == 0.5 and flag == 0
    assert np.isnan(control[DECAY]) and control[LOSSES] == 4


def test_what_the_kernel_of_the_judgement_does_not_take():
    judge = Judged(emulated, "float32", False)
    control, given = judge.control, emulated(np.zeros(5))
    loss, logits, labels = (emulated(np.zeros(shape, np.float32)) for shape in ((), (4, 2), (4,)))
    options = {"patience": 4, "least": 1.0}
    whole = labels.astype(np.int64)
    assert backend.pair("judge_step", control, given, loss, logits, whole, **options) is not judge_step
    for wrong in ((control[1:], given, loss, logits), (control, given, loss, logits, labels),
                  (control, given, loss, logits[:0], whole[:0]), (control, given, loss.astype(np.float64), logits)):
        assert backend.pair("judge_step", *wrong, **options) is judge_step


@on_both_types
@pytest.mark.parametrize("wrong", [None, np.nan, np.inf, -np.inf])
def test_gradients_are_unscaled(dtype, wrong):
    g = np.random.default_rng(0).standard_normal(700).astype(dtype)
    there, overflow = emulated(g), emulated(np.zeros(1, np.uint32))
    if wrong is not None:
        there[699] = g[699] = wrong
    expected, flag = g.copy(), np.zeros(1, np.uint32)
    backend.call("unscale", there, emulated(np.array(2.0**9, dtype)), overflow)
    backend.call("unscale", expected, np.array(2.0**9, dtype), flag)
    np.testing.assert_array_equal(there.get(), expected)
    np.testing.assert_array_equal(expected, g / 512)
    assert overflow.get()[0] == flag[0] == (wrong is not None)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("rate", [0.0, np.nan])
def test_what_changed_is_taken_back(dtype, rate):
    to, kept = np.arange(300).astype(dtype), np.ones(300, dtype)
    there, expected = emulated(to), to.copy()
    backend.call("take_back", there, emulated(kept), emulated(np.array([rate])))
    backend.call("take_back", expected, kept, np.array([rate]))
    np.testing.assert_array_equal(there.get(), expected)
    np.testing.assert_array_equal(expected, kept if np.isnan(rate) else to)
