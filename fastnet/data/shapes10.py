"""shapes10: a generated data set for machines without network, of CIFAR-10's shape.

Ten classes of one figure each on a plain ground, 32x32x3 uint8, 10,000 training and 2,000 test images, as many of every
class. Place, size, turn, colours and noise are random: Philox words of stream SHAPES, keyed by the sample id, so an
image does not depend on the others. A figure is a distance in pixels to its edge (negative inside), which gives smooth
edges: coverage = clip(1/2 - distance, 0, 1). Only exactly rounded operations touch the pixels (no sine, no power), so
that every machine makes the same bytes; VERSION goes up with any change to them.
"""

import functools
import hashlib
import math
from collections.abc import Callable

import numpy as np

from fastnet.data.dataset import Source
from fastnet.functions import philox

VERSION = 1
CLASSES = ("circle", "square", "triangle", "ring", "plus", "cross", "horizontal bars", "vertical bars", "checkerboard",
           "star")
TRAIN, TEST, SIDE = 10_000, 2_000, 32
CHUNK = 50  # images of one class at a time: small enough for the cache
PARAMETERS = 16  # words a sample spends on its figure; the noise follows

NOISE = 50.0  # grey levels: noise is uniform in -NOISE..NOISE, each channel for itself
TURN = 0.3  # radians either way
RADIUS = (6.0, 12.0)  # pixels


def _circle(u, v, r):
    return np.sqrt(u * u + v * v) - r


def _square(u, v, r):
    return np.maximum(np.abs(u), np.abs(v)) - r * np.float32(0.85)


def _triangle(u, v, r):
    # Equilateral, pointing up (v grows downwards); its corners lie on the circle of radius r.
    half = r * np.float32(0.5)
    return np.maximum(v, np.abs(u) * np.float32(math.sqrt(0.75)) - v * np.float32(0.5)) - half


def _ring(u, v, r):
    return np.abs(np.sqrt(u * u + v * v) - r * np.float32(0.78)) - r * np.float32(0.2)


def _plus(u, v, r):
    u, v = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(u, v) - r, np.minimum(u, v) - r * np.float32(0.25))


def _cross(u, v, r):
    diagonal = np.float32(math.sqrt(0.5))
    return _plus((u + v) * diagonal, (u - v) * diagonal, r)


def _stripes(w, r):
    # Distance to the nearest edge of stripes as wide as their gaps: three across the square, the middle one at w = 0.
    period = r * np.float32(0.68)
    t = w / period
    return (np.abs(t - np.rint(t)) - np.float32(0.25)) * period


def _horizontal(u, v, r):
    return np.maximum(_square(u, v, r), _stripes(v, r))


def _vertical(u, v, r):
    return np.maximum(_square(u, v, r), _stripes(u, r))


def _checkerboard(u, v, r):
    a, b = _stripes(u, r), _stripes(v, r)
    return np.maximum(_square(u, v, r), np.maximum(np.minimum(a, b), -np.maximum(a, b)))


def _star(u, v, r):
    # A point is in the pentagram when it is inside at least four of the five lines, so the second largest distance
    # decides. The lines pass the centre at r cos 72 degrees.
    largest = second = np.float32(-np.inf)
    for k in range(5):
        angle = math.pi / 2 + 2 * math.pi * k / 5
        line = u * np.float32(math.cos(angle)) + v * np.float32(math.sin(angle))
        second = np.maximum(second, np.minimum(line, largest))
        largest = np.maximum(largest, line)
    return second - r * np.float32(math.cos(2 * math.pi / 5))


_FIGURES: tuple[Callable, ...] = (_circle, _square, _triangle, _ring, _plus, _cross, _horizontal, _vertical,
                                  _checkerboard, _star)


def generate(ids: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The images (N, 32, 32, 3) uint8 and labels (N,) int64 of the sample ids given (N,): the label is id % 10."""
    ids = np.asarray(ids, np.int64)
    labels = ids % len(CLASSES)
    images = np.empty((len(ids), SIDE, SIDE, 3), np.uint8)
    for label, figure in enumerate(_FIGURES):
        (places,) = np.nonzero(labels == label)
        for start in range(0, len(places), CHUNK):
            at = places[start : start + CHUNK]
            images[at] = _draw(figure, ids[at], seed)
    return images, labels


def _draw(figure: Callable, ids: np.ndarray, seed: int) -> np.ndarray:
    pixels = SIDE * SIDE * 3
    # NumPy's Philox by choice: 0.1 to 0.2 s for the whole set is less than loading the compiler takes.
    words = philox.run(ids, seed=seed, stream=philox.SHAPES, count=PARAMETERS + pixels // 4)
    p = philox.uniform(words[:, :PARAMETERS])
    radius = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * p[:, 0]
    slack = SIDE / 2 - 1 - radius  # the circle around the figure stays a pixel away from the border
    x, y = (SIDE / 2 - 0.5 + slack * (2 * p[:, k] - 1) for k in (1, 2))
    angle = TURN * (2 * p[:, 3] - 1)
    ground, ink = 10 + 110 * p[:, 4:7], 120 + 125 * p[:, 7:10]
    sin, cos, x, y, radius = (a.astype(np.float32)[:, None, None] for a in (np.sin(angle), np.cos(angle), x, y, radius))
    grid = np.arange(SIDE, dtype=np.float32)
    dx, dy = grid[None, None, :] - x, grid[None, :, None] - y
    distance = figure(dx * cos + dy * sin, dy * cos - dx * sin, radius)
    coverage = np.clip(np.float32(0.5) - distance, 0, 1)[..., None]
    ground, ink = (a.astype(np.float32)[:, None, None, :] for a in (ground, ink))
    noise = np.ascontiguousarray(words[:, PARAMETERS:], "<u4").view(np.uint8).reshape(len(ids), SIDE, SIDE, 3)
    levels = ground + coverage * (ink - ground)
    levels += noise.astype(np.float32) * np.float32(2 * NOISE / 255) - np.float32(NOISE)
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


@functools.cache
def _contents() -> tuple[np.ndarray, np.ndarray, str]:
    images, labels = generate(np.arange(TRAIN + TEST))
    digest = hashlib.sha256(images.data)
    digest.update(labels.astype(np.uint8).data)
    return images, labels, digest.hexdigest()


def read() -> Source:
    """The data set as it comes: sample ids 0..9,999 are the training images, the 2,000 after them the test images.

    It is generated once; every call returns new arrays.
    """
    images, labels, sha256 = _contents()
    identity = {"form": f"generated, version {VERSION}", "sha256": sha256, "official": True, "notice": None}
    images, labels = images.copy(), labels.copy()
    return Source(CLASSES, images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:], identity)
