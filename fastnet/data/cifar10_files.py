"""The files of CIFAR-10: their names, sizes and hashes, and how the labels and pixels lie in them.

Each of the six batches is 10,000 rows of one label byte and 3,072 pixel bytes (1,024 red, 1,024 green, 1,024 blue,
each 32 rows of 32). The binary form holds just that; the Python form is a pickle (`fastnet.data.batch_pickle`). Either
comes as a folder or as a .tar.gz.

Source: the data set's page, https://www.cs.toronto.edu/~kriz/cifar.html, which also gives the md5 of the archives;
those of the Python batches are of the files in its archive. Single binary files have none.
"""

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastnet.data import batch_pickle

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ROWS = 10_000
PIXELS = 3072
LIMIT = 64 << 20  # bytes: no batch is half as large
ARCHIVE_LIMIT = 256 << 20
BLOCK = 512  # of a tar archive

BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
ARCHIVES = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
}
FOLDERS = {"python": "cifar-10-batches-py", "binary": "cifar-10-batches-bin"}


class Location(NamedTuple):
    """A copy of CIFAR-10: in the 'python' or the 'binary' form, as a folder or an archive."""

    form: str
    archive: bool
    path: Path

    def file_name(self, batch: str) -> str:
        return f"{batch}.bin" if self.form == "binary" else batch


def look(place: Path) -> Location | None:
    """The first copy in `place`, which may be a copy itself or the folder it lies in: folders before archives."""
    if place.name in ARCHIVES and place.is_file():
        return _archive(place)
    for form, name in FOLDERS.items():
        inside, itself = Location(form, False, place / name), Location(form, False, place)
        if inside.path.is_dir():
            return inside
        if any((place / itself.file_name(batch)).exists() for batch in BATCHES):
            return itself
    return next((_archive(place / name) for name in ARCHIVES if (place / name).is_file()), None)


def contents(found: Location) -> Iterator[tuple[str, bytes]]:
    """The six batches as (name, bytes), in the order of `BATCHES`.

    Raises FileNotFoundError for a missing file, ValueError for a wrong size or an archive with a wrong hash.
    """
    if found.archive:
        yield from _contents_of_archive(found)
        return
    files = {batch: found.path / found.file_name(batch) for batch in BATCHES}
    for file in files.values():
        if not file.is_file():
            raise FileNotFoundError(f"cifar10: {found.path} is incomplete: {file.name} is missing")
        _check_size(found, file.stat().st_size, str(file))
    for batch, file in files.items():
        yield batch, file.read_bytes()


def rows(found: Location, content: bytes, file: str) -> np.ndarray:
    """One batch as the binary form has it, (ROWS, 1 + PIXELS) bytes with the label first.

    Raises ValueError, naming `file`, for a pickle that is no CIFAR-10 batch and for a label outside 0..9.
    """
    if found.form == "binary":
        both = np.frombuffer(content, np.uint8).reshape(ROWS, 1 + PIXELS)
        labels = both[:, 0].astype(np.int64)
    else:
        both = np.empty((ROWS, 1 + PIXELS), np.uint8)
        pixels, labels = batch_pickle.read(content, ROWS, file)
    wrong = (labels < 0) | (labels >= len(CLASSES))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"cifar10: {file} has label {labels[row]} in row {row} (the first is 0), but labels are 0..9")
    if found.form == "python":
        both[:, 0], both[:, 1:] = labels, pixels
    return both


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _archive(path: Path) -> Location:
    return Location("python" if "python" in path.name else "binary", True, path)


def _contents_of_archive(found: Location) -> Iterator[tuple[str, bytes]]:
    if found.path.stat().st_size > ARCHIVE_LIMIT:
        raise ValueError(f"cifar10: {found.path} is larger than {ARCHIVE_LIMIT} bytes, so it is not the archive")
    content = found.path.read_bytes()
    expected, actual = ARCHIVES[found.path.name], md5(content)
    if actual != expected:
        raise ValueError(f"cifar10: {found.path} has md5 {actual}, but the official archive has {expected}: it is "
                         f"damaged or another file; delete it and fetch it again")
    # Unpacked in memory and read there: nothing is written, whatever the names in it. The batches do not lie in order,
    # and going back in a compressed file would mean to unpack it once more.
    unpacked = _unpacked(found.path, content)
    del content
    members = _members(unpacked)
    for batch in BATCHES:
        name = f"{FOLDERS[found.form]}/{found.file_name(batch)}"
        if name not in members:
            raise ValueError(f"cifar10: {found.path} has no file {name}")
        start, size = members[name]
        _check_size(found, size, f"{found.path}/{name}")
        if start + size > len(unpacked):
            raise ValueError(f"cifar10: {found.path} ends within {name}")
        yield batch, unpacked[start : start + size]


def _unpacked(path: Path, content: bytes) -> bytes:
    """What is packed in a .gz. Raises ValueError where it is damaged, or larger than any of CIFAR-10's."""
    packed = zlib.decompressobj(wbits=31)
    try:
        found = packed.decompress(content, ARCHIVE_LIMIT)
    except zlib.error as error:
        raise ValueError(f"cifar10: {path} cannot be unpacked ({error})") from None
    if not packed.eof:
        raise ValueError(f"cifar10: {path} is cut off, or holds more than {ARCHIVE_LIMIT} bytes")
    return found


def _members(tar: bytes) -> dict[str, tuple[int, int]]:
    """{name: (start, size)} of the plain files in a tar archive; what cannot be understood is passed over, or ends it.

    Python's tarfile does far more than is needed (links, sparse files, other headers), and can be made to go on for
    ever by headers that say so. Format: POSIX.1-1988 (ustar), a header of 512 bytes before each file of such blocks.
    """
    found, at = {}, 0
    while at + BLOCK <= len(tar):
        header = tar[at : at + BLOCK]
        name, kind = header[:100].split(b"\0")[0].decode("latin-1"), header[156:157]
        digits = header[124:136].strip(b" \0")
        if not digits.isdigit() or not set(digits) <= set(b"01234567"):
            break
        size = int(digits, 8)
        if kind in (b"0", b"\0"):
            found[name] = at + BLOCK, size
        at += BLOCK + -(-size // BLOCK) * BLOCK
    return found


def _check_size(found: Location, size: int, file: str) -> None:
    exact = ROWS * (1 + PIXELS)
    if found.form == "binary" and size != exact:
        raise ValueError(f"cifar10: {file} has {size} bytes, but {ROWS} rows of 1 label byte and {PIXELS} pixel bytes "
                         f"are exactly {exact}")
    if size > LIMIT:
        raise ValueError(f"cifar10: {file} has {size} bytes, more than the {LIMIT} that a batch may have")
