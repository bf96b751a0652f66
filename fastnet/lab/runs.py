"""What the laboratory needs of a run beside its model: the images, and how its loss is computed."""

from pathlib import Path
from typing import Any

from fastnet.data import Dataset, load
from fastnet.train import record


def run_data(out: str | Path, data_dir: str | Path | None = None, *, data: str | None = None) -> Dataset:
    """The data set of the run in the directory `out`, divided as it was.

    `data_dir` says where CIFAR-10 lies; `data` ("folder:DIR") where the images of a folder do, whose path a run does
    not keep. Raises ValueError where these are not the images of the run, and as `fastnet.data.load` does.
    """
    folder = Path(out)
    identity = record.read_json(folder / record.CONFIG)["data"]
    try:
        name = identity["name"]
        if name.startswith("folder:") and data is None:
            raise ValueError(f"{folder}: its images come from a folder ({name}); say where that is: folder:DIR")
        found = load(data or name, data_dir, split=identity["split"], order=identity["order"], seed=identity["seed"],
                     **({"image_size": identity["image_size"]} if "image_size" in identity else {}))
    except KeyError as error:
        raise ValueError(f"{folder}: its data are none that fastnet.data.load made ({error} is not recorded)") from None
    if found.identity["sha256"] != identity["sha256"]:
        raise ValueError(f"{folder}: these are other images than the run's: sha256 {found.identity['sha256'][:12]}..., "
                         f"but the run has {identity['sha256'][:12]}...")
    return found


def run_loss(out: str | Path) -> dict[str, Any]:
    """The arguments `loss` and `loss_options` with which the run in `out` was trained."""
    options = dict(record.read_json(Path(out) / record.CONFIG)["loss"])
    return {"loss": options.pop("name"), "loss_options": options}
