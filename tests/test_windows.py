"""Convolution and pooling against plain loops over places, and the geometry they share."""

import itertools

import numpy as np
import pytest

from fastnet import backend, shapes


def naive_conv(x, w, b, stride, pad, dilation, groups):
    """One output at a time, from the definition."""
    (n, height, width, channels), (kh, kw, _, outputs) = x.shape, w.shape
    rows, columns = ((size + 2 * p - d * (k - 1) - 1) // s + 1
                     for size, k, s, p, d in zip((height, width), (kh, kw), stride, pad, dilation, strict=True))
    y = np.zeros((n, rows, columns, outputs))
    for image, p, q, k in itertools.product(range(n), range(rows), range(columns), range(outputs)):
        group = k // (outputs // groups)
        total = b[k]
        for i, j, c in itertools.product(range(kh), range(kw), range(channels // groups)):
            r, s = p * stride[0] - pad[0] + i * dilation[0], q * stride[1] - pad[1] + j * dilation[1]
            if 0 <= r < height and 0 <= s < width:
                total += x[image, r, s, group * (channels // groups) + c] * w[i, j, c, k]
        y[image, p, q, k] = total
    return y


@pytest.mark.parametrize(("size", "kernel", "stride", "pad", "dilation", "groups"), [
    ((5, 6), (3, 3), (1, 1), (1, 1), (1, 1), 1), ((7, 5), (3, 2), (2, 1), (0, 1), (1, 2), 2),
    ((6, 6), (1, 1), (2, 2), (0, 0), (1, 1), 1), ((8, 9), (5, 3), (3, 2), (2, 0), (1, 3), 4),
    ((3, 3), (3, 3), (1, 1), (0, 0), (1, 1), 4), ((4, 4), (2, 2), (3, 3), (1, 1), (2, 2), 2)])
def test_conv2d_is_the_sum_of_its_definition(size, kernel, stride, pad, dilation, groups):
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(2, *size, 4)), rng.normal(size=(*kernel, 4 // groups, 8)), rng.normal(size=8)
    y, _ = backend.run("conv2d", x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups)
    np.testing.assert_allclose(y, naive_conv(x, w, b, stride, pad, dilation, groups), rtol=0, atol=1e-12)


def windows(size, window, stride, pad, ceil_mode):
    """(start, stop) of each place along one axis, in the unpadded input, by counting up."""
    found, start = [], -pad
    while start + window <= size + pad or (ceil_mode and start < size and found[-1][1] < size + pad):
        found.append((start, start + window))
        start += stride
    return found


@pytest.mark.parametrize("size", [4, 5, 6, 7, 9])
@pytest.mark.parametrize(("window", "stride", "pad"), [
    (2, 2, 0), (3, 2, 1), (3, 3, 0), (2, 3, 1), (3, 1, 1), (4, 2, 2)])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pools_over_the_windows_that_counting_finds(size, window, stride, pad, ceil_mode):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, size, size, 3))
    places = windows(size, window, stride, pad, ceil_mode)
    options = {"window": window, "stride": stride, "pad": pad, "ceil_mode": ceil_mode}
    largest, mean = backend.run("max_pool2d", x, **options)[0], backend.run("avg_pool2d", x, **options)[0]
    assert largest.shape == mean.shape == (2, len(places), len(places), 3)
    for (p, (top, bottom)), (q, (left, right)) in itertools.product(enumerate(places), enumerate(places)):
        seen = x[:, max(top, 0) : bottom, max(left, 0) : right]
        counted = (min(bottom, size + pad) - top) * (min(right, size + pad) - left)
        np.testing.assert_array_equal(largest[:, p, q], seen.max(axis=(1, 2)))
        np.testing.assert_allclose(mean[:, p, q], seen.sum(axis=(1, 2)) / counted, rtol=1e-13)


def test_of_equal_entries_the_first_has_the_gradient():
    y, back = backend.run("max_pool2d", np.zeros((1, 2, 2, 1)), window=2)
    assert back(np.ones_like(y))[0].ravel().tolist() == [1, 0, 0, 0]


def test_a_nan_wins_its_window_and_no_other():
    x = np.zeros((1, 4, 4, 1))
    x[0, 3, 3, 0] = np.nan
    for op in ("max_pool2d", "avg_pool2d"):
        y, _ = backend.run(op, x, window=2)
        assert np.isnan(y[0, :, :, 0]).tolist() == [[False, False], [False, True]]


def test_an_image_with_channels_second_is_recognised():
    with pytest.raises(ValueError, match=r"is x \(N, C, H, W\)\? Channels come last here"):
        backend.run("conv2d", np.ones((2, 3, 8, 8)), np.ones((3, 3, 3, 4)))


def test_geometry():
    assert shapes.window("op", 5, 3, 2, 1) == shapes.Window(3, 1, 1)
    assert shapes.window("op", 6, 2, 4, 0) == shapes.Window(2, 0, 0)
    assert shapes.window("op", 7, 2, 4, 0).after == -1  # the last place is never covered
    assert shapes.pair("op", "pad", 2, 0) == (2, 2) and shapes.pair("op", "pad", (0, 1), 0) == (0, 1)
    with pytest.raises(ValueError, match="op: the kernel covers 5 places, more than the padded input's 4"):
        shapes.window("op", 4, 3, 1, 0, dilation=2)


def test_against_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    x, w, b = rng.normal(size=(3, 9, 8, 4)), rng.normal(size=(3, 3, 2, 6)), rng.normal(size=6)
    options = {"stride": 2, "pad": 1, "dilation": 2, "groups": 2}
    y, back = backend.run("conv2d", x, w, b, **options)
    dy = rng.normal(size=y.shape)
    given = [torch.tensor(a, requires_grad=True) for a in (x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), b)]
    theirs = torch.nn.functional.conv2d(*given, stride=2, padding=1, dilation=2, groups=2)
    theirs.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(y, theirs.detach().numpy().transpose(0, 2, 3, 1), atol=1e-12)
    for ours, their, axes in zip(back(dy), given, ((0, 2, 3, 1), (2, 3, 1, 0), (0,)), strict=True):
        np.testing.assert_allclose(ours, their.grad.numpy().transpose(axes), atol=1e-12)
    for op, pool in (("max_pool2d", torch.nn.functional.max_pool2d), ("avg_pool2d", torch.nn.functional.avg_pool2d)):
        for ceil_mode in (False, True):
            y, back = backend.run(op, x, window=3, stride=2, pad=1, ceil_mode=ceil_mode)
            image = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
            theirs = pool(image, 3, 2, 1, ceil_mode=ceil_mode)
            dy = rng.normal(size=y.shape)
            theirs.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
            np.testing.assert_allclose(y, theirs.detach().numpy().transpose(0, 2, 3, 1), atol=1e-13)
            np.testing.assert_allclose(back(dy)[0], image.grad.numpy().transpose(0, 2, 3, 1), atol=1e-13)
