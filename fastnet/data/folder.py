"""folder:DIR: a user's own images, in a folder for each class.

    DIR/train/CLASS/image.png and DIR/test/CLASS/image.png
    DIR/CLASS/image.png    where DIR has not both of these folders: a tenth of the images, of every class the same part
                           and always the same ones, is for testing

Classes and files come in the order of their names. Images are read through Pillow, turned as their camera says (EXIF),
made RGB (transparency is dropped), cut to the largest square in the middle and resized to `image_size`, by a triangle
filter as wide as the pixels it makes, so that fine patterns do not turn into false coarse ones. Hidden files are
skipped without a word; what does not end like an image is ignored and counted in the identity's `notice`.
"""

import hashlib
from pathlib import Path

import numpy as np

from fastnet.data.dataset import Source
from fastnet.data.images import read_image, require_pillow
from fastnet.data.splits import stratified

IMAGE_SIZE = 32
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read(place: str | Path, image_size: int = IMAGE_SIZE) -> Source:
    """Read the images below `place` as (N, image_size, image_size, 3).

    Raises OSError where there is no such folder, ImportError without Pillow, and ValueError for fewer than two classes,
    a class without images, training and test classes that differ, and files that are damaged, no images, above Pillow's
    limit of size or of more than 8 bits a channel.
    """
    top = Path(place).expanduser()
    if type(image_size) is not int or image_size < 1:
        raise ValueError(f"folder: image_size must be a whole number of pixels, at least 1, but is {image_size!r}")
    if not top.exists():
        raise FileNotFoundError(f"folder: {top} does not exist")
    if not top.is_dir():
        raise NotADirectoryError(f"folder: {top} is a file, but a folder with a folder for each class is needed")
    parts = [top / "train", top / "test"]
    apart = all(part.is_dir() for part in parts)
    found = [_Files(part) for part in (parts if apart else [top])]
    if apart and found[0].classes != found[1].classes:
        only = [sorted(set(a.classes) - set(b.classes)) for a, b in (found, found[::-1])]
        raise ValueError(f"folder: {top}/train and {top}/test have different classes: only in train are "
                         f"{only[0] or 'none'}, only in test {only[1] or 'none'}")
    images = _images([path for files in found for path in files.paths], image_size)
    labels = np.array([label for files in found for label in files.labels], np.int64)
    test = np.arange(len(found[0].paths), len(labels)) if apart else stratified(labels, max(1, round(len(labels) / 10)))
    train = np.setdiff1d(np.arange(len(labels)), test)
    digest = hashlib.sha256("\0".join(found[0].classes).encode("utf-8", "surrogateescape"))
    for at in (train, test):
        digest.update(labels[at].astype("<i8").tobytes())
        digest.update(images[at].tobytes())
    ignored = sum(files.ignored for files in found) + (len(_visible(top)) - 2 if apart else 0)
    notice = f"{top}: {ignored} {'entry that is' if ignored == 1 else 'entries that are'} no image ignored"
    identity = {"form": "folder", "sha256": digest.hexdigest(), "official": None, "notice": notice if ignored else None,
                "image_size": image_size, "training_files": len(train), "test_files": len(test)}
    return Source(found[0].classes, images[train], labels[train], images[test], labels[test], identity)


class _Files:
    """Paths and labels of the images in the class folders of `top`, and how many other entries there are."""

    def __init__(self, top: Path) -> None:
        entries = _visible(top)
        folders = [entry for entry in entries if entry.is_dir()]
        self.classes = tuple(folder.name for folder in folders)
        self.ignored = len(entries) - len(folders)
        if not folders:
            raise ValueError(f"folder: {top} has no folders; one for each class, with its images, is needed")
        if len(folders) == 1:
            raise ValueError(f"folder: {top} has the class {folders[0].name!r} alone, but at least 2 are needed")
        self.paths: list[Path] = []
        self.labels: list[int] = []
        for label, folder in enumerate(folders):
            inside = _visible(folder)
            images = [path for path in inside if path.suffix.lower() in SUFFIXES and path.is_file()]
            if not images:
                raise ValueError(f"folder: {folder} has no images (files that end in {', '.join(SUFFIXES)})")
            self.ignored += len(inside) - len(images)
            self.paths += images
            self.labels += [label] * len(images)


def _visible(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def _images(paths: list[Path], size: int) -> np.ndarray:
    require_pillow("folder: ")
    images = np.empty((len(paths), size, size, 3), np.uint8)
    bad = []
    for k, path in enumerate(paths):
        try:
            images[k] = read_image(path, images.shape[1:])
        except (OSError, ValueError) as error:
            bad.append((path, error))
    if bad:
        raise ValueError(f"folder: {len(bad)} of {len(paths)} files cannot be read as images, first {bad[0][0]}: "
                         f"{bad[0][1]}")
    return images
