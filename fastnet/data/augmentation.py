"""Augmentation: how training images are varied from epoch to epoch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from fastnet.functions.augment_batch import problem


@dataclass(frozen=True)
class Augmentation:
    """Which transforms training images go through, each keyed by (seed, epoch, sample id).

    pad              crop of the image's size from the image with a border of so many black pixels
    horizontal_flip  left and right change places for half of the samples
    vertical_flip    top and bottom do; not for digits or letters, which would no longer be what their label says
    resized_crop     (lo, hi): a rectangle of lo..hi of the image's area, resized to the image's size; not with `pad`
    cutout           side in pixels of a square of the mean colour, laid anywhere

    `fastnet.functions.augment_batch` says exactly what each does. Raises ValueError for values that do not exist.
    """

    pad: int = 0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    resized_crop: tuple[float, float] | None = None
    cutout: int = 0

    def __post_init__(self) -> None:
        if wrong := problem(**vars(self)):
            raise ValueError(f"Augmentation: {wrong}")

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError where images of `shape` (H, W, C) are too small for it."""
        if wrong := problem(shape[:2], **vars(self)):
            raise ValueError(f"Augmentation: {wrong}")

    def settings(self) -> dict[str, Any]:
        """All settings as plain JSON, to be kept with a run."""
        return asdict(self) | {"resized_crop": list(self.resized_crop) if self.resized_crop else None}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Augmentation":
        """The inverse of `settings`; those left out have their defaults. Raises ValueError for any others."""
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in settings if name not in known]:
            raise ValueError(f"Augmentation: {', '.join(map(repr, unknown))}: no such setting; there are "
                             f"{', '.join(known)}")
        crop = settings.get("resized_crop")
        return cls(**{**settings, "resized_crop": tuple(crop) if isinstance(crop, list) else crop})
