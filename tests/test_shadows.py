"""Arrays without memory do what NumPy's do, but for the numbers."""

import tracemalloc

import numba
import numpy as np
import pytest

from fastnet import arrays, backend
from fastnet.nn.blocks import ZeroPadShortcut
from fastnet.nn.layer import Context
from fastnet.shadows import Ledger


def pair(*shape, dtype="float32"):
    """The same array with and without numbers."""
    return np.zeros(shape, dtype), Ledger().empty(shape, dtype)


OPERATIONS = {
    "first axis": lambda x: x[1:3],
    "every other": lambda x: x[::2],
    "last axis": lambda x: x[..., :2],
    "one entry": lambda x: x[-1],
    "inner": lambda x: x[:, 1:, ::2],
    "ellipsis": lambda x: x[...],
    "flat": lambda x: x.reshape(-1),
    "rows": lambda x: x.reshape(len(x), -1),
    "reshaped by a tuple": lambda x: x.reshape((2, 2, 3, 20)),
    "reshaped after a cut": lambda x: x[..., :2].reshape(-1),
    "transposed": lambda x: x.transpose(1, 2, 3, 0),
    "swapped": lambda x: x.swapaxes(2, 3),
    "copied": lambda x: x[:, :2].copy(),
    "another type": lambda x: x.astype("float64"),
    "the same type": lambda x: x.astype("float32", copy=False),
    "the same type, copied": lambda x: x.astype("float32"),
    "contiguous": lambda x: arrays.contiguous(x[1:]),
    "made contiguous": lambda x: arrays.contiguous(x[..., 1:]),
    "summed": lambda x: x.sum(axis=3),
    "summed first": lambda x: x.sum(0),
    "added": lambda x: x + x,
    "added along axes": lambda x: x + np.zeros((3, 4, 5)),
    "scaled": lambda x: 0.5 * x,
    "scaled by NumPy": lambda x: np.float64(2) * x,
    "divided": lambda x: x / np.ones(5, "float32"),
    "compared": lambda x: x > 0,
    "added in place": lambda x: x.__iadd__(1),
    "padded": lambda x: np.pad(x, [(0, 0), (1, 2), (0, 0), (0, 3)]),
    "repeated": lambda x: np.repeat(x, 3, axis=3),
    "joined": lambda x: np.concatenate([x, x[..., :2]], axis=-1),
    "joined in front": lambda x: np.concatenate([x, x]),
    "zeros": lambda x: np.zeros_like(x, shape=(2, 3), order="C"),
    "empty": np.empty_like,
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_shadows_do_what_arrays_do(operation):
    x, shadow = pair(4, 3, 4, 5)
    expected, found = operation(x), operation(shadow)
    for name in ("shape", "dtype", "ndim", "size", "itemsize", "nbytes"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.flags.c_contiguous == expected.flags.c_contiguous
    assert len(found) == len(expected) and sum(1 for _ in found) == len(expected)
    ledger = shadow._block.ledger
    new = 0 if np.shares_memory(x, expected) else expected.nbytes
    assert sum(ledger.alive.values()) == x.nbytes + new
    left = new or x.nbytes  # by a view, all that it is a view of
    del x, shadow
    assert sum(ledger.alive.values()) == left


def test_writing_makes_nothing_and_looks_at_the_shape():
    _, x = pair(4, 3)
    ledger = x._block.ledger
    x[:, 1] = np.ones(4)
    x[...] = x
    x += 1
    real = np.zeros(3)
    real += x[0]
    assert real.tolist() == [0, 0, 0] and list(ledger.alive.values()) == [48]
    with pytest.raises(IndexError):
        x[:, 3] = 0
    with pytest.raises(ValueError, match="reshape"):
        x.reshape(5)
    with pytest.raises(ValueError, match="broadcast"):
        x + np.zeros(4)


@pytest.mark.parametrize("use", [np.asarray, np.ascontiguousarray, bool, float, np.add.reduce, np.modf, np.stack])
def test_what_needs_numbers_or_is_not_known_is_refused(use):
    with pytest.raises(TypeError):
        use(pair(2, 2)[1])


def test_an_unknown_function_says_where_it_belongs():
    with pytest.raises(TypeError, match=r"numpy\.roll is not known for shadows: add it to fastnet/shadows\.py"):
        np.roll(pair(2, 2)[1], 1)


def test_the_ledger_keeps_the_fullest_moment():
    ledger = Ledger()
    with ledger.rehearsal():
        first = arrays.empty(10, "float32")
        with ledger.at("there"):
            second = arrays.zeros((5, 4), "float64")
        del first
        third = arrays.empty(20, "uint8")
    assert sorted(ledger.at_peak.values()) == [40, 160] and ledger.place_at_peak == "there"
    assert sorted(ledger.alive.values()) == [20, 160]
    assert len(second) == 5 and len(third) == 20
    assert isinstance(arrays.empty(3, "float32"), np.ndarray) and not arrays.rehearsing()


def used(ledger=None, *, forward, backward):
    """The most memory beside the arguments that a pass takes: by the ledger, else by NumPy's own account."""
    if ledger is None:
        tracemalloc.start()
    before = sum(ledger.alive.values()) if ledger else tracemalloc.get_traced_memory()[0]
    y, back = forward()
    backward(back)
    del y
    if ledger is not None:
        return sum(ledger.at_peak.values()) - before
    most = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return most


CONVOLUTIONS = {
    "winograd": ((6, 16, 16, 32), (3, 3, 32, 32), {"pad": 1}),
    "winograd by points": ((4, 8, 8, 192), (3, 3, 192, 192), {"pad": 1}),
    "winograd of part of a vector": ((8, 16, 16, 20), (3, 3, 20, 24), {"pad": 1}),
    "narrow": ((24, 28, 28, 6), (5, 5, 6, 12), {}, 24 * 24 * 12 * 64 + 28 * 28 * 64),
    "narrow, outputs in vectors": ((24, 28, 28, 3), (3, 3, 3, 32), {"pad": 1}, 28 * 28 * 32 * 64 + 28 * 28 * 64),
    "depthwise": ((8, 16, 16, 64), (3, 3, 1, 64), {"pad": 1, "groups": 64}),
    "depthwise, two outputs a channel": ((8, 16, 16, 32), (3, 3, 1, 64), {"pad": 1, "groups": 32}),
    "im2col": ((8, 16, 16, 32), (3, 3, 32, 64), {"stride": 2, "pad": 1}),
    "im2col in groups": ((8, 16, 16, 32), (3, 3, 16, 32), {"stride": 2, "groups": 2}),
    "pointwise": ((8, 16, 16, 64), (1, 1, 64, 128), {}),
}


@pytest.mark.parametrize(("x_shape", "w_shape", "options", "own"), [(*c, 0)[:4] for c in CONVOLUTIONS.values()],
                         ids=CONVOLUTIONS)
def test_what_a_convolution_takes_is_what_its_shadows_say(x_shape, w_shape, options, own):
    """Results, gradients, scratch; but for Python's objects, biases, and a compiled kernel's `own` bytes a thread."""
    def passes(x, w, dy):
        return {"forward": lambda: backend.run("conv2d", x, w, **options),
                "backward": lambda back: back(dy, (True, True, False))}

    ledger = Ledger()
    with ledger.rehearsal(), backend.use("cpu"):
        x, w = ledger.empty(x_shape, "float32"), ledger.empty(w_shape, "float32")
        dy = ledger.empty(backend.run("conv2d", x, w, **options)[0].shape, "float32")
        predicted = used(ledger, **passes(x, w, dy))
    real = passes(*(np.zeros(a.shape, "float32") for a in (x, w, dy)))
    real["backward"](real["forward"]()[1])  # which compiles
    measured = used(**real)
    assert -20_000 < measured - predicted < 20_000 + own * numba.get_num_threads()
    assert predicted > 900_000


def test_the_scratch_of_dw_does_not_meet_dx():
    ledger = Ledger()
    with ledger.rehearsal():
        x, w = ledger.empty((8, 32, 32, 128), "float32"), ledger.empty((3, 3, 128, 128), "float32")
        y, back = backend.run("conv2d", x, w, pad=1)
        of_dw, of_both = (used(ledger, forward=lambda: (None, back),
                               backward=lambda back, dx=dx: back(y, (dx, True, False))) for dx in (False, True))
    assert of_dw == of_both


def test_a_shortcut_does_not_keep_its_input():
    ledger = Ledger()
    with ledger.rehearsal():
        back = ZeroPadShortcut(2, 8)(ledger.empty((2, 4, 4, 4), "float32"), Context(training=True))[1]
        assert not ledger.alive
        assert back(ledger.empty((2, 2, 2, 8), "float32")).shape == (2, 4, 4, 4)
