"""A residual block's convolutions and what is fused into them, on the emulator: exact, and within limits."""

import itertools

import numpy as np
import pytest
from emulator import engine
from emulator.arrays import emulated

import fastnet as fn
from fastnet import backend
from fastnet.arrays import floating, to_numpy
from fastnet.check.contract import same_bits
from fastnet.kernels.cuda import _batch_norm, _conv3x3, _launch, add, basic_block, conv2d
from fastnet.nn.fuse import Head
from fastnet.nn.layer import Context
from fastnet.ops import batch_norm, batch_norm_add_relu, batch_norm_relu, relu
from fastnet.ops import conv2d as reference

engine.install()
ml_dtypes = pytest.importorskip("ml_dtypes")
HALF, BF16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
# Tails, images larger than a tile and smaller, one pixel, up to three times 64 channels.
TILES = pytest.mark.parametrize(("size", "x_shape", "outputs", "dtype"), [
    ((128, 128), (2, 9, 7, 128), 128, BF16), ((256, 64), (5, 8, 8, 64), 64, HALF),
    ((128, 64), (2, 6, 6, 192), 64, BF16), ((128, 64), (1, 6, 64, 64), 128, HALF), ((128, 64), (1, 1, 1, 64), 64, BF16),
], ids=str)


@pytest.fixture
def small(monkeypatch):
    """small(size): tiles of that size, in blocks that take several."""
    def set_to(size):
        monkeypatch.setattr(_conv3x3, "SIZES", (size, _conv3x3.SIZES[-1]))
        monkeypatch.setattr(_conv3x3, "ENOUGH", 1)
        monkeypatch.setattr(_conv3x3, "DW_BLOCKS", 1)
        monkeypatch.setattr(_launch, "MOST_BLOCKS", 2)
    return set_to


def integers(shape, dtype, seed, most=2):
    return np.random.default_rng([seed, *shape]).integers(-most, most + 1, shape).astype(dtype)


def sparse(shape, seed):
    """Weights of which few are not zero, so that sums stay below 256."""
    rng = np.random.default_rng([seed, *shape])
    return integers(shape, np.float32, seed, 1) * (rng.random(shape) < 0.1)


def known(channels):
    """`found` and beta of a batch normalisation that makes integers of integers; some scales are zero or negative."""
    mean, beta = integers((channels,), np.float32, 1), integers((channels,), np.float32, 2)
    scale = integers((channels,), np.float32, 3)
    return np.stack([mean, np.ones_like(mean), np.ones_like(mean), scale]), beta


def rectified(x, found, beta):
    return np.maximum((x.astype(np.float64) - found[0]) * found[3] + beta, 0)


def assert_exact(ours, exact, most=256):
    assert np.abs(exact).max(initial=0) < most
    np.testing.assert_array_equal(to_numpy(ours).astype(np.float64), exact)


def chunks(x, each):
    """The pixels of x (N, H, W, C), so many at a time."""
    rows = x.reshape(-1, x.shape[-1])
    return [rows[start : start + each] for start in range(0, len(rows), each)]


def assert_sums(sums, firsts, seconds):
    """(2, channels, chunks) of what is summed over each chunk."""
    exact = np.stack([np.stack([a.sum(axis=0) for a in arrays], axis=1) for arrays in (firsts, seconds)])
    assert_exact(sums.part, exact, 1 << 24)


@pytest.mark.parametrize("normed", [False, True])
@TILES
def test_forward_is_exact_on_integers(dtype, size, x_shape, outputs, normed, small):
    """Batch normalisation and ReLU on the way in, where padding stays zero; the sums of the outputs."""
    small(size)
    x, w = integers(x_shape, dtype, 0), sparse((3, 3, x_shape[3], outputs), 1)
    found, beta = known(x_shape[3])
    y, sums = _conv3x3.forward_between(emulated(x), emulated(w.astype(dtype)),
                                       *(map(emulated, (found, beta)) if normed else ()))
    exact, _ = reference.forward(rectified(x, found, beta) if normed else x.astype(np.float64), w, pad=1)
    assert_exact(y, exact)
    parts = [chunk - chunk[0] for chunk in chunks(exact, size[0])]
    assert sums.each == size[0]
    assert_sums(sums, parts, [part**2 for part in parts])


@TILES
def test_backward_is_exact_on_integers(dtype, size, x_shape, outputs, small):
    """dx with an array added; masked by ReLU, with the sums for batch normalisation; dw of what is never stored."""
    small(size)
    x, dy = integers(x_shape, dtype, 0), integers((*x_shape[:3], outputs), dtype, 4)
    w, (found, beta) = sparse((3, 3, x_shape[3], outputs), 1), known(x_shape[3])
    h = rectified(x, found, beta)
    _, cache = reference.forward(h, w.astype(np.float64), pad=1)
    dh, dw, _ = reference.backward(dy.astype(np.float64), cache)
    on = {"x": x, "dy": dy, "w": w, "narrow": w.astype(dtype), "found": found, "beta": beta}
    on = {name: emulated(a) for name, a in on.items()}
    assert_exact(_conv3x3.dx(on["dy"], on["narrow"], None, on["x"]), dh + x.astype(np.float64))
    dz, sums = _conv3x3.dx_between(on["dy"], on["narrow"], on["x"], on["found"], on["beta"])
    exact = dh * (h > 0)
    assert_exact(dz, exact)
    products = exact * (x.astype(np.float64) - found[0])
    assert_sums(sums, chunks(exact, size[0]), chunks(products, size[0]))
    into = emulated(np.full(w.shape, np.nan, np.float32))
    assert_exact(_conv3x3.dw(on["x"], on["dy"], into, None, on["found"], on["beta"]), dw, 1 << 20)


@pytest.mark.parametrize(("far", "dtype"), [(30, HALF), (-30, BF16)])
def test_statistics_far_from_zero(dtype, far, small):
    """The mean to 1e-5 sigma and the variance to 1e-4, of numbers as the type holds them."""
    small((128, 64))
    x = (far + np.random.default_rng(0).standard_normal((7, 8, 8, 64))).astype(dtype)
    w = np.zeros((3, 3, 64, 64), dtype)
    w[1, 1] = np.eye(64)
    y, sums = _conv3x3.forward_between(emulated(x), emulated(w))
    np.testing.assert_array_equal(to_numpy(y), x)
    mean, var, *_ = to_numpy(_batch_norm.measured(y, emulated(np.ones(64, np.float32)), 1e-5, sums))
    rows = x.astype(np.float64).reshape(-1, 64)
    assert (np.abs(mean - rows.mean(axis=0)) <= 1e-5 * rows.std(axis=0)).all()
    np.testing.assert_allclose(var, rows.var(axis=0), rtol=1e-4)


def drawn(n, size, channels, outputs, stride, dtype):
    """Random arrays of a block, and dy; a shortcut where x cannot be that."""
    rng = np.random.default_rng([n, size, stride])
    x = rng.standard_normal((n, size, size, channels)).astype(dtype)
    w1, w2 = (rng.standard_normal((3, 3, c, outputs)) / np.sqrt(9 * c) for c in (channels, outputs))
    gamma1, gamma2 = rng.uniform(0.5, 1.5, (2, outputs)).astype(np.float32)
    beta1, beta2 = rng.standard_normal((2, outputs)).astype(np.float32)
    shortcut = None
    if (stride, channels) != (1, outputs):
        shortcut = rng.standard_normal((n, -(-size // stride), -(-size // stride), outputs)).astype(dtype)
    arrays = [x, w1.astype(np.float32), gamma1, beta1, w2.astype(np.float32), gamma2, beta2, shortcut]
    return arrays, rng.standard_normal((x if shortcut is None else shortcut).shape).astype(dtype)


EPS = {"eps": 0.1}, {"eps": 1e-5}


def rounded_block(arrays, dy, stride, dtype):
    """`fastnet.ops.basic_block` in float64, rounded to `dtype` wherever a kernel stores: y and the gradients."""
    def stored(a):
        return a.astype(dtype).astype(np.float64)

    x, w1, gamma1, beta1, w2, gamma2, beta2, shortcut = (a if a is None else a.astype(np.float64) for a in arrays)
    on_tensor_cores = w1.shape[2] % 64 == 0  # which take the weights in `dtype`
    y1, first = reference.forward(x, stored(w1) if on_tensor_cores else w1, stride=stride, pad=1)
    y1 = stored(y1)
    h, between = batch_norm_relu.forward(y1, gamma1, beta1, **EPS[0])
    y2, second = reference.forward(stored(h), stored(w2), pad=1)
    y, end = batch_norm_add_relu.forward(stored(y2), gamma2, beta2, x if shortcut is None else shortcut,
                                         **EPS[1])
    dy2, dgamma2, dbeta2, dshortcut = batch_norm_add_relu.backward(dy.astype(np.float64), end)
    dh, dw2, _ = reference.backward(stored(dy2), second)
    of_norm, mask = between
    dy1, dgamma1, dbeta1 = batch_norm.backward(relu.backward(stored(dh), mask)[0], of_norm)
    dx, dw1, _ = reference.backward(stored(dy1), first)
    if shortcut is None:
        dx = stored(dx) + dshortcut
    return stored(y), stored(dx), dw1, dgamma1, dbeta1, dw2, dgamma2, dbeta2, None if shortcut is None else dshortcut


def shifted(x):
    """x on the device as a contiguous view that starts where no 16 bytes can be read at once."""
    return x if x is None else emulated(np.concatenate([x.ravel()[:1], x.ravel()]))[1:].reshape(x.shape)


@pytest.mark.parametrize(("n", "size", "channels", "outputs", "stride", "dtype"), [
    (1, 8, 64, 64, 1, BF16), (3, 7, 64, 64, 1, HALF), (3, 7, 64, 64, 1, BF16), (1, 9, 64, 128, 2, BF16),
    (3, 9, 8, 64, 2, HALF)])
def test_a_block_keeps_the_limits(dtype, n, size, channels, outputs, stride):
    """Against a float64 model that rounds at the same points: 3e-3 of the norm; and the same bits in any order."""
    arrays, dy = drawn(n, size, channels, outputs, stride, dtype)
    exact = rounded_block(arrays, dy, stride, dtype)
    runs = []
    for seed, copies in enumerate(engine.COPIES):
        with engine.schedule(seed, copies):
            y, cache = basic_block.forward(*map(shifted, arrays), stride=stride, eps1=EPS[0]["eps"])
            runs.append([y, *basic_block.backward(shifted(dy), cache)])
    for i, (a, other, another, e) in enumerate(zip(*runs, exact, strict=True)):
        assert (a is None) == (e is None)
        if e is not None:
            assert same_bits(a, other)
            assert same_bits(a, another)
            assert a.dtype == (dy.dtype if i in (0, 1, 8) else np.float32)
            assert np.linalg.norm(to_numpy(a).astype(np.float64) - e) <= 3e-3 * np.linalg.norm(e), i


@pytest.mark.parametrize(("stride", "outputs"), [(1, 64), (2, 64), (1, 48)])
def test_only_what_is_needed_is_computed(stride, outputs, monkeypatch):
    """Gradients that are needed have the bits of a full pass, the others are None, in as few launches."""
    arrays, dy = drawn(1, 4, 64 if stride == 1 and outputs == 64 else 8, outputs, stride, np.float16)
    _, cache = basic_block.forward(*map(emulated, arrays), stride=stride)
    dy = emulated(dy)
    everything = basic_block.backward(dy, cache)
    launched, call = [], _launch.Kernel.__call__
    monkeypatch.setattr(_launch.Kernel, "__call__",
                        lambda kernel, *a, **o: launched.append(kernel._name) or call(kernel, *a, **o))
    for needs in [*itertools.product((True, False), repeat=3), ()]:
        x, first, second = needs or (False,) * 3
        asked = (x, first, first, first, second, second, second, bool(needs) and second)
        launched.clear()
        for full, part, needed in zip(everything, basic_block.backward(dy, cache, asked), asked, strict=True):
            assert (part is not None) == (needed and full is not None)
            assert part is None or same_bits(full, part)
        assert sum("conv" in name and "dw" in name for name in launched) == first + second
        assert bool(launched) == any(asked)


@pytest.mark.parametrize(("shape", "outputs", "stride", "expected"), [
    ((2, 8, 8, 64), 64, 1, True), ((2, 8, 8, 3), 64, 2, True), ((2, 8, 8, 64), 96, 1, False),
    ((2, 4, 65, 64), 64, 1, False), ((2, 4, 128, 64), 64, 2, True)])
def test_where_blocks_are_fused(shape, outputs, stride, expected):
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        wide = _launch.accumulator(dtype)
        w1, w2 = (np.empty((3, 3, c, outputs), wide) for c in (shape[3], outputs))
        of = np.empty(outputs, wide)
        y = np.empty((shape[0], -(-shape[1] // stride), -(-shape[2] // stride), outputs), dtype)
        arrays = [emulated(a) for a in (np.empty(shape, dtype), w1, of, of, w2, of, of, y)]
        assert backend.pair("basic_block", *arrays, stride=stride) is basic_block
        assert basic_block.fuses(*arrays, stride=stride) == (expected and y.itemsize == 2)


def one_by_one(arrays, dy):
    """The block's ops, each for itself."""
    x, w1, gamma1, beta1, w2, gamma2, beta2, _ = arrays
    pairs = {name: backend.module("cuda", name) for name in ("batch_norm_relu", "batch_norm_add_relu")}
    y1, first = conv2d.forward(x, w1, pad=1)
    h, between = pairs["batch_norm_relu"].forward(y1, gamma1, beta1)
    y2, second = conv2d.forward(h, w2, pad=1)
    _, end = pairs["batch_norm_add_relu"].forward(y2, gamma2, beta2, x)
    dy2, _, _, dshortcut = pairs["batch_norm_add_relu"].backward(dy, end)
    dh, _, _ = conv2d.backward(dy2, second, (True, True, False))
    dy1, _, _ = pairs["batch_norm_relu"].backward(dh, between)
    add.run(conv2d.backward(dy1, first, (True, True, False))[0], dshortcut)


def test_passes_over_memory(monkeypatch):
    """How often launches read or write an array of the size of x: 27 times in both passes, the ops one by one 34."""
    arrays, dy = drawn(1, 4, 64, 64, 1, np.float16)
    arrays, dy = list(map(emulated, arrays)), emulated(dy)
    only_types = "batch_norm_statistics", "batch_norm_gradients", "conv2d_sum"  # x says to them which type T is
    moved, call = [], _launch.Kernel.__call__

    def noted(kernel, grid, *given, shared=0):
        moved.append(kernel._name not in only_types and sum(getattr(a, "shape", None) == dy.shape for a in given))
        return call(kernel, grid, *given, shared=shared)

    def passes(work):
        moved.clear()
        result = work()
        return sum(moved), result

    monkeypatch.setattr(_launch.Kernel, "__call__", noted)
    forward, (_, cache) = passes(lambda: basic_block.forward(*arrays))
    backward, _ = passes(lambda: basic_block.backward(dy, cache))
    assert (forward, backward, passes(lambda: one_by_one(arrays, dy))[0]) == (7, 20, 34)


def network(dtype, device):
    """A block whose shortcut is a projection, and one with a shape that no kernel of ours has, around two that have."""
    def block(inputs, outputs, stride=1):
        down = fn.Sequential([fn.Conv2d(inputs, outputs, 1, stride, bias=False), fn.BatchNorm(outputs)])
        return fn.Residual([
            fn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), fn.BatchNorm(outputs, eps=1e-2), fn.ReLU(),
            fn.Conv2d(outputs, outputs, 3, pad=1, bias=False), fn.BatchNorm(outputs, eps=4)],
            None if (stride, inputs) == (1, outputs) else down, fn.ReLU())

    return fn.Sequential([block(3, 64, 2), block(64, 64), block(64, 32), fn.GlobalAvgPool(),
                          fn.Linear(32, 10)], seed=1, dtype=dtype, device=device)


def in_training(model, x, labels):
    """The gradients of one pass, the kernels that it launched, and the ops that an observer sees."""
    launched, seen, call = [], [], _launch.Kernel.__call__
    with pytest.MonkeyPatch.context() as m:
        m.setattr(_launch.Kernel, "__call__", lambda kernel, *a, **o: launched.append(kernel._name) or call(
            kernel, *a, **o))
        with backend.observed(lambda name, module, arrays, options: (seen.append(name), module)[1]):
            _, gradients = fn.loss_and_gradients(model, x, labels)
    return {name: to_numpy(g).astype(np.float64) for name, g in gradients.items()}, launched, seen


@pytest.mark.usefixtures("emulated_device")
@pytest.mark.parametrize(("dtype", "fuses"), [("bfloat16", True), ("float32", False)])
def test_networks_run_blocks_as_one_in_training(dtype, fuses, monkeypatch):
    """In 16 bits, where gradients come as near to those of float64 as one by one: some entries pass another ReLU.

    Names and running statistics stay as they were; in float32 all bits do. The end of the network, which would be one
    with the loss, is not looked at.
    """
    monkeypatch.setattr(Head, "of", lambda layers: None)
    x, labels = np.random.default_rng(0).standard_normal((5, 6, 6, 3)).astype(np.float32), np.arange(5)
    exact = network("float64", "cpu")
    with backend.use("reference"):
        _, gradients = fn.loss_and_gradients(exact, x.astype(np.float64), labels)
    plain, together = network(dtype, "emulated"), network(dtype, "emulated")
    for model in (plain, together):
        model.load_state(exact.state())
    fn.nn.fuse(together)
    assert list(together.state()) == list(plain.state())
    expected, launched, _ = in_training(plain, x, labels)
    found, launched_fused, seen = in_training(together, x, labels)
    assert seen.count("basic_block") == (2 if fuses else 0)
    # Six of the main branches and two of shortcuts. Two second convolutions make theirs, and one of the first.
    assert [names.count("batch_norm_sums") for names in (launched, launched_fused)] == [8, 5 if fuses else 8]
    for name, value in gradients.items():
        size = np.linalg.norm(value)
        error, usual = (np.linalg.norm(a[name] - value) / size for a in (found, expected))
        assert error <= (1.5 * usual + 2e-3 if fuses else usual), name
        assert error < (0.2 if fuses else 1e-5), name
    for model in (plain, together):
        model(emulated(x.astype(floating(dtype))), Context(training=True))
    for name, value in plain.statistics().items():
        np.testing.assert_allclose(to_numpy(together.statistics()[name]), to_numpy(value), rtol=1e-2, atol=2e-3)
        assert not np.array_equal(to_numpy(value), np.full(value.shape, name.endswith("var")))
