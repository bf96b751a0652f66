"""Standardization: (image - mean) / std, with constants computed from the training images alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.arrays import accumulator

LEAST, MOST = 1e-6, 1e6  # far beyond what images of uint8 can have, and far from where float32 ends
CHUNK = 512  # images summed at a time: 512 * 255^2 fits in 32 bits


@dataclass(frozen=True, eq=False)
class Standardization:
    """Mean and population standard deviation, float64, in grey levels 0..255.

    per 'pixel'    mean and std (H, W, C): each entry of the image has its own (the MLP reports)
    per 'channel'  mean and std (C,): shared by all positions (the convolutional reports)

    An entry that never varies has std 0 and is scaled by 1 instead of 1/0: it stays 0 after the mean is taken off.
    Raises ValueError for shapes that do not fit `per`, and for a std that is negative or not finite.
    """

    mean: np.ndarray
    std: np.ndarray
    per: str

    def __post_init__(self) -> None:
        rank = _rank(self.per)
        if self.mean.shape != self.std.shape or self.mean.ndim != rank:
            raise ValueError(f"Standardization: mean has shape {self.mean.shape} and std {self.std.shape}, but per "
                             f"{self.per} both need {'(H, W, C)' if rank == 3 else '(C,)'}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std >= 0).all()):
            raise ValueError("Standardization: mean and std must be finite and std at least 0")
        used = self.std[self.std > 0]
        if (abs(self.mean) > MOST).any() or (used > MOST).any() or (used < LEAST).any():
            raise ValueError(f"Standardization: mean and std are no grey levels: mean may be {MOST:g} at most, std 0 "
                             f"or from {LEAST:g} to {MOST:g}")

    @classmethod
    def fit(cls, images: np.ndarray, per: str = "pixel") -> "Standardization":
        """Compute the constants from uint8 images (N, H, W, C): give it the training split's, and no others.

        The sums are kept in integers, so the result is exact until the last division and square root.
        """
        rank = _rank(per)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"Standardization: images are {images.dtype}{images.shape}, but uint8 (N, H, W, C) is "
                             f"needed")
        if len(images) == 0:
            raise ValueError("Standardization: there are no images to compute the mean from")
        total = np.zeros(images.shape[1:], np.uint64)
        squares = np.zeros(images.shape[1:], np.uint64)
        for start in range(0, len(images), CHUNK):
            wide = images[start : start + CHUNK].astype(np.uint16)  # 255^2 still fits
            total += wide.sum(axis=0, dtype=np.uint32)
            squares += (wide * wide).sum(axis=0, dtype=np.uint32)
        count = len(images)
        if rank == 1:
            total, squares = total.sum(axis=(0, 1)), squares.sum(axis=(0, 1))
            count *= images.shape[1] * images.shape[2]
        # Python's integers do not overflow, and their quotients are rounded once.
        mean = [t / count for t in total.ravel().tolist()]
        std = [math.sqrt((count * s - t * t) / count**2)
               for t, s in zip(total.ravel().tolist(), squares.ravel().tolist(), strict=True)]
        return cls(np.array(mean).reshape(total.shape), np.array(std).reshape(total.shape), per)

    def constants(self, shape: tuple[int, int, int], dtype: Any = "float32") -> tuple[np.ndarray, np.ndarray]:
        """Mean and scale (1/std) for images of `shape` (H, W, C), each a new array of that shape.

        Raises ValueError where the constants belong to images of another shape.
        """
        if self.mean.shape != tuple(shape)[-self.mean.ndim :]:
            raise ValueError(f"Standardization: the images are {tuple(shape)} (H, W, C), but the mean is per "
                             f"{self.per} and has shape {self.mean.shape}")
        scale = 1 / np.where(self.std == 0, 1.0, self.std)
        mean, scale = (np.array(np.broadcast_to(a, shape), dtype, order="C") for a in (self.mean, scale))
        return mean, scale

    def apply(self, images: np.ndarray, dtype: Any = "float32") -> np.ndarray:
        """Standardize uint8 images (N, H, W, C) of any split; the result is a new array of `dtype`."""
        mean, scale = self.constants(images.shape[1:], accumulator(dtype))
        return backend.call("standardize_batch", images, np.arange(len(images)), mean, scale, dtype=dtype)

    def arrays(self) -> dict[str, np.ndarray]:
        """The constants as named arrays, to be kept in a checkpoint."""
        return {"mean": self.mean, "std": self.std}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Standardization":
        """The inverse of `arrays`: `per` follows from their rank."""
        mean, std = (np.asarray(arrays[name], np.float64) for name in ("mean", "std"))
        return cls(mean, std, "channel" if mean.ndim == 1 else "pixel")


def _rank(per: str) -> int:
    if per not in ("pixel", "channel"):
        raise ValueError(f"Standardization: per {per!r} does not exist; choose from pixel, channel")
    return 3 if per == "pixel" else 1
