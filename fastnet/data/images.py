"""Image files as arrays, through Pillow.

An image is turned as its camera says (EXIF), made RGB or, for one channel, grey (transparency is dropped), cut to the
largest rectangle in the middle that has the wanted aspect, and resized by a triangle filter as wide as the pixels it
makes, so that fine patterns do not turn into false coarse ones.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

MODES = {1: "L", 3: "RGB"}  # Pillow's, by the number of channels


def require_pillow(prefix: str = "") -> None:
    """Raise ImportError, with `prefix` before what it says, where Pillow is not installed."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise ImportError(f"{prefix}Pillow is needed to read images: pip install 'fastnet[images]'") from None


def read_image(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The image in the file `path` as uint8 `shape`, (H, W, C) with 1 or 3 channels. Pillow must be installed.

    Raises ValueError, whose one line does not name the file, for one that is damaged, no image, above Pillow's limit of
    size or of more than 8 bits a channel; OSError where there is no such file.
    """
    from PIL import Image, UnidentifiedImageError

    height, width, channels = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which does not touch the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return np.asarray(_image(path, height, width, MODES[channels])).reshape(shape)
    except UnidentifiedImageError:
        raise ValueError("it is none that Pillow knows") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble over
        if isinstance(error, OSError) and error.strerror:  # the system's, not Pillow's
            raise
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _image(path: Path, height: int, width: int, mode: str) -> Any:
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        if opened.mode.startswith(("I", "F")):
            raise ValueError(f"its pixels ({opened.mode}) have more than 8 bits a channel")
        image = ImageOps.exif_transpose(opened).convert(mode)
    across, down = image.size
    if across * height > down * width:
        part = max(1, down * width // height), down
    else:
        part = across, max(1, across * height // width)
    left, upper = (across - part[0]) // 2, (down - part[1]) // 2
    cut = image.crop((left, upper, left + part[0], upper + part[1]))  # resize's own box lets pixels from outside it in
    return cut.resize((width, height), Image.Resampling.BILINEAR)  # the filter is widened where it shrinks
