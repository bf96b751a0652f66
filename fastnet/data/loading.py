"""`load`: a data set by name, divided into training, validation and test images."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fastnet.data import cifar10, digits, folder, shapes10, splits
from fastnet.data.dataset import Dataset, Source


class _Wanted(NamedTuple):
    place: str | Path | None
    download: bool
    image_size: int


# Name -> how to read it, and how its training files are divided unless `split` says otherwise (None: nine to one).
DATA_SETS: dict[str, tuple[Callable[[_Wanted], Source], str | None]] = {
    "cifar10": (lambda wanted: cifar10.read(wanted.place, download=wanted.download), "45000/5000"),
    "shapes10": (lambda _: shapes10.read(), "9000/1000"),
    "digits": (lambda _: digits.read(), "1300/200"),
    "folder:DIR": (lambda wanted: folder.read(str(wanted.place), wanted.image_size), None),
}
FOLDER = "folder:"


def load(name: str, data_dir: str | Path | None = None, *, split: str | None = None, order: str = "random",
         seed: int = 0, download: bool = True, image_size: int = folder.IMAGE_SIZE) -> Dataset:
    """Load a data set and divide its training files.

    name        cifar10     60,000 photographs, 32x32x3, ten classes; 45,000/5,000 unless `split` says otherwise
                shapes10    generated drawings of CIFAR-10's shape, ten classes; 9,000/1,000
                digits      1,797 handwritten digits, 8x8x1, through scikit-learn; 1,300/200
                folder:DIR  your own images, a folder a class (see `fastnet.data.folder`); nine to one
    data_dir    where CIFAR-10 lies (see `fastnet.data.cifar10.locate`)
    split       'A/B': A training and B validation images, together at most all there are; B may be 0
    order       'random': A, then B images drawn by `seed`; 'file': the first A, then the next B. Either way each split
                keeps the order of the files, so a seed says which images are in it and nothing else
    download    whether CIFAR-10 may be fetched where no folder was named and none is in the cache
    image_size  height and width of the images of a folder:DIR

    The test images are always all of the test files. Raises ValueError for a name, split or order that does not exist
    and for damaged files, OSError (FileNotFoundError, ConnectionError) for files that cannot be had, ImportError where
    scikit-learn or Pillow is needed and not installed.
    """
    is_folder = name.startswith(FOLDER) and name != FOLDER
    key = "folder:DIR" if is_folder else name
    if key not in DATA_SETS:
        raise ValueError(f"load: there is no data set {name!r}; choose from {', '.join(DATA_SETS)}")
    if order not in ("random", "file"):
        raise ValueError(f"load: order {order!r} does not exist; choose from random, file")
    if image_size != folder.IMAGE_SIZE and not is_folder:
        raise ValueError(f"load: image_size {image_size} is for folder:DIR; the images of {name} have their size")
    read, default = DATA_SETS[key]
    if split is not None:
        splits.sizes(split)  # a mistake in it is found before anything is read
    source = read(_Wanted(name.removeprefix(FOLDER) if is_folder else data_dir, download, image_size))
    # A folder goes by its own name: where it lies may differ between the machines that continue a run.
    title = FOLDER + Path(name.removeprefix(FOLDER)).expanduser().resolve().name if is_folder else name
    return splits.divide(title, source, split or default or splits.nine_to_one(len(source.train_labels)), order, seed)
