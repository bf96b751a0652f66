"""Image files as arrays, through Pillow.

An image is turned as its camera says (EXIF), made RGB or, for one channel, grey (transparency is dropped), cut to the
largest rectangle in the middle that has the wanted aspect, and resized by a triangle filter as wide as the pixels it
makes, so that fine patterns do not turn into false coarse ones.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODES = {1: "L", 3: "RGB"}  # Pillow's, by the number of channels
# Pillow knows more; one of these, EPS, is a program that it runs.
MOST_PIXELS = 52_000_000  # of the largest usual cameras: a tiny file may unpack to as many
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def require_pillow(prefix: str = "") -> None:
    """Raise ImportError, with `prefix` before what it says, where Pillow is not installed."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise ImportError(f"{prefix}Pillow is needed to read images: pip install 'fastnet[images]'") from None


def read_image(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The image in the file `path` as uint8 `shape`, (H, W, C) with 1 or 3 channels. Pillow must be installed.

    Raises ValueError, whose one line does not name the file, for one that is damaged, no image, of none of `FORMATS`,
    of more than `MOST_PIXELS` (or above Pillow's own limit) or of more than 8 bits a channel; OSError where there is no
    such file. It takes 4 bytes a pixel of memory, up to 16 where its format is unpacked elsewhere and converted.
    """
    height, width, channels = shape
    return _read(path, channels, lambda down, across: (height, width))


def read_whole_image(path: Path, channels: int, longest: int | None = None) -> np.ndarray:
    """The image in its own size and aspect, or smaller where its longer side has more than `longest` pixels.

    Raises as `read_image` does.
    """
    def size(down: int, across: int) -> tuple[int, int]:
        scale = min(1.0, longest / max(down, across)) if longest else 1.0
        return max(1, round(down * scale)), max(1, round(across * scale))

    return _read(path, channels, size)


def _read(path: Path, channels: int, size: Callable[[int, int], tuple[int, int]]) -> np.ndarray:
    """The image, whose height and width are to be `size` of those that it has."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which does not touch the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            pixels = np.asarray(_image(path, size, MODES[channels]))
            return pixels.reshape(*pixels.shape[:2], channels)
    except UnidentifiedImageError:
        raise ValueError(f"it is none of {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble over
        if isinstance(error, OSError) and error.strerror:  # the system's, not Pillow's
            raise
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _image(path: Path, size: Callable[[int, int], tuple[int, int]], mode: str) -> Any:
    from PIL import Image, ImageOps

    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"its pixels ({image.mode}) have more than 8 bits a channel")
        ImageOps.exif_transpose(image, in_place=True)
        return _resized(image if image.mode == mode else image.convert(mode), size)


def _resized(image: Any, size: Callable[[int, int], tuple[int, int]]) -> Any:
    from PIL import Image

    across, down = image.size
    height, width = size(down, across)
    if across * height > down * width:
        part = max(1, down * width // height), down
    else:
        part = across, max(1, across * height // width)
    left, upper = (across - part[0]) // 2, (down - part[1]) // 2
    cut = image.crop((left, upper, left + part[0], upper + part[1]))  # resize's own box lets pixels from outside it in
    return cut.resize((width, height), Image.Resampling.BILINEAR)  # the filter is widened where it shrinks
