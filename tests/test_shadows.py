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


# --- kernels, with and without memory ---

def counted(op, arrays, options, needs, count):
    """Bytes that forward takes, that it leaves, and that each gradient takes by itself.

    `count()` gives (bytes that are there, most that there were since the last count).
    """
    start = count()[0]
    y, back = backend.run(op, *arrays, **options)
    left, most = count()
    found = {"forward": most - start, "left": left - start}
    for i, needed in enumerate(needs):
        if needed:
            back(y, tuple(i == k for k in range(len(needs))))
            found[f"gradient {i}"] = count()[1] - left
    return found


def by_ledger(op, shapes, options, needs):
    ledger = Ledger()

    def count():
        there, most = sum(ledger.alive.values()), sum(ledger.at_peak.values())
        ledger._most, ledger.at_peak = there, dict(ledger.alive)
        return there, most

    with ledger.rehearsal(), backend.use("cpu"):
        return counted(op, [ledger.empty(s, "float32") for s in shapes], options, needs, count)


def by_numpy(op, shapes, options, needs):
    def count():
        found = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        return found

    inputs = [np.ones(s, "float32") for s in shapes]
    counted(op, inputs, options, needs, lambda: (0, 0))  # which compiles
    tracemalloc.start()
    try:
        return counted(op, inputs, options, needs, count)
    finally:
        tracemalloc.stop()


# Shapes of x and w, options, and where a compiled kernel has scratch of its own: that of a thread.
CALLS = {
    "winograd": ("conv2d", [(6, 16, 16, 32), (3, 3, 32, 32)], {"pad": 1}),
    "winograd by points": ("conv2d", [(4, 8, 8, 192), (3, 3, 192, 192)], {"pad": 1}),
    "winograd, stride 2": ("conv2d", [(16, 16, 16, 32), (3, 3, 32, 64)], {"stride": 2, "pad": 1}),
    "winograd by points, stride 2": ("conv2d", [(8, 16, 16, 96), (3, 3, 96, 128)], {"stride": 2, "pad": 1}),
    "winograd of part of a vector": ("conv2d", [(8, 16, 16, 20), (3, 3, 20, 24)], {"pad": 1}),
    "small maps": ("conv2d", [(32, 2, 2, 96), (3, 3, 96, 128)], {"pad": 1}),
    "few places": ("conv2d", [(2, 8, 8, 192), (3, 3, 192, 256)], {"pad": 1}),
    "narrow": ("conv2d", [(96, 28, 28, 6), (5, 5, 6, 12)], {}),
    "narrow, outputs in vectors": ("conv2d", [(96, 28, 28, 3), (3, 3, 3, 32)], {"pad": 1}),
    "narrow, pooled": ("conv2d_relu_max_pool2d", [(96, 28, 28, 6), (5, 5, 6, 12)], {"window": 2}),
    "depthwise": ("conv2d", [(8, 16, 16, 64), (3, 3, 1, 64)], {"pad": 1, "groups": 64}),
    "depthwise, two outputs a channel": ("conv2d", [(8, 16, 16, 32), (3, 3, 1, 64)], {"pad": 1, "groups": 32}),
    "im2col": ("conv2d", [(16, 16, 16, 32), (3, 3, 32, 64)], {"stride": 2, "pad": 1, "conv_algorithm": "direct"}),
    "im2col in groups": ("conv2d", [(8, 16, 16, 32), (3, 3, 16, 32)], {"stride": 2, "groups": 2}),
    "pointwise": ("conv2d", [(8, 16, 16, 64), (1, 1, 64, 128)], {}),
    "linear": ("linear", [(500, 300), (300, 200)], {}),
    "linear, wide": ("linear", [(60, 3000), (3000, 100)], {}),
    "max_pool2d": ("max_pool2d", [(16, 32, 32, 16)], {"window": 2}),
    "max_pool2d, large windows": ("max_pool2d", [(16, 32, 32, 16)], {"window": 16, "stride": 2}),
    "avg_pool2d": ("avg_pool2d", [(16, 32, 32, 16)], {"window": 3, "stride": 2, "pad": 1}),
    "global_avg_pool": ("global_avg_pool", [(16, 32, 32, 64)], {}),
    **{op: (op, [(16, 32, 32, 16)], {}) for op in ("relu", "leaky_relu", "elu", "gelu", "swish", "sigmoid", "tanh")},
    "batch_norm": ("batch_norm", [(16, 32, 32, 16), (16,), (16,)], {}),
}
OWN = {("few places", "forward"): (64 + 66) * 64 * 4,
       ("narrow", "forward"): 28 * 28 * 6 * 64, ("narrow", "gradient 0"): 24 * 24 * 12 * 64 + 28 * 6 * 64,
       ("narrow", "gradient 1"): 30 * 28 * 6 * 4 + 24 * 24 * 12 * 4,
       ("narrow, pooled", "forward"): (28 * 28 * 6 + 2 * 24 * 12 + 12 * 12) * 64,
       ("narrow, pooled", "gradient 0"): (24 * 24 + 12 * 12) * 12 * 64 + 28 * 6 * 64,
       ("narrow, pooled", "gradient 1"): 28 * 28 * 6 * 4 + 12 * 12 * 12,
       ("narrow, outputs in vectors", "gradient 0"): 28 * 28 * 32 * 64 + 30 * 3 * 64}
SMALL = 20_000  # bytes of Python's objects, biases, statistics, sums of a few rows


@pytest.mark.parametrize("name", CALLS)
def test_a_kernel_takes_what_its_shadows_say(name):
    op, shapes, options = CALLS[name]
    needs = (True,) * len(shapes) if op != "batch_norm" else (True, False, False)
    needs += (False,) * (op in ("conv2d", "conv2d_relu_max_pool2d", "linear"))
    predicted, measured = (how(op, shapes, options, needs) for how in (by_ledger, by_numpy))
    assert predicted.keys() == measured.keys()
    for what, expected in predicted.items():
        own = OWN.get((name, what), 0) * numba.get_num_threads()
        assert -SMALL < measured[what] - expected < SMALL + 0.01 * expected + own, what


def test_the_scratch_of_dw_does_not_meet_dx():
    def taken(dx):
        ledger = Ledger()
        with ledger.rehearsal():
            x, w = ledger.empty((8, 32, 32, 128), "float32"), ledger.empty((3, 3, 128, 128), "float32")
            y, back = backend.run("conv2d", x, w, pad=1)
            back(y, (dx, True, False))
        return sum(ledger.at_peak.values())

    assert taken(dx=True) == taken(dx=False)


def test_a_shortcut_does_not_keep_its_input():
    ledger = Ledger()
    with ledger.rehearsal():
        back = ZeroPadShortcut(2, 8)(ledger.empty((2, 4, 4, 4), "float32"), Context(training=True))[1]
        assert not ledger.alive
        assert back(ledger.empty((2, 2, 2, 8), "float32")).shape == (2, 4, 4, 4)
