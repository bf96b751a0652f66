"""A model's weights from and to files: PyTorch's, through safetensors, and those that a run of ours leaves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.nn import interop
from fastnet.nn.layer import Shape
from fastnet.nn.sequential import Sequential
from fastnet.train import checkpoint

# safetensors' names of the types we read; bfloat16, the upper half of a float32, is read by hand.
TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "u1",
         "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?"}
PICKLES = (b"PK", b"\x80")  # how the files of torch.save begin: a zip archive today, a bare pickle once


def load_weights(model: Sequential, source: str | Path | Mapping[str, Any], *,
                 input_shape: Shape | None = None) -> None:
    """Give the model the weights and running statistics in `source`, all of them or, where something is wrong, none.

    source       a safetensors file with a PyTorch state dict, whose arrays are turned round and renamed (see
                 `fastnet.nn.interop`); or {name: array} of one, torch tensors too; or the model.safetensors or
                 checkpoint.safetensors of a run of ours
    input_shape  of a sample, (H, W, C) or (D,): needed for a model that `fastnet.build` did not make, since PyTorch
                 flattens images in another order

    float16, bfloat16, float32 and float64 are converted to the model's type. Raises ValueError for a file that is not a
    whole safetensors file, or naming every entry that is missing, extra, misshapen, not floating or not finite; OSError
    for a file that cannot be read. Reading takes twice the file's size of memory.
    """
    if isinstance(source, Mapping):
        interop.from_torch(model, source, input_shape)
        return
    path = Path(source)
    content = path.read_bytes()
    try:
        if _is_ours(content):
            model.load_state(model_state(checkpoint.parse(path, content)[0]))
        else:
            entries = _entries(path, content)
            del content  # which the entries hold copies of
            interop.from_torch(model, {name: _array(entry) for name, entry in entries}, input_shape)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None


def save_torch_weights(model: Sequential, path: str | Path, *, input_shape: Shape | None = None) -> None:
    """Write the model's weights and running statistics as a safetensors file that PyTorch's `load_state_dict` takes.

    Layers are called as in the model (see `fastnet.nn.interop.to_torch`); `input_shape` as in `load_weights`. A file
    that is there is replaced, as a whole or not at all. Raises ValueError for a model that PyTorch cannot have, OSError
    where the file cannot be written.
    """
    import safetensors.numpy

    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; a file is needed")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} in")
    arrays = interop.to_torch(model, input_shape)
    checkpoint.write_atomically(path, safetensors.numpy.save(arrays, {"format": "pt"}))


def model_state(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `Sequential.load_state` takes, of the arrays in a run's file.

    Raises ValueError where there is no model, and naming the arrays that are not finite and the variances below zero.
    """
    # Sorted, so that what does not fit is listed in the same order every time: a file's own order is arbitrary.
    found = {name.removeprefix("model/"): arrays[name] for name in sorted(arrays) if name.startswith("model/")}
    if not found:
        raise ValueError("there is no model in it")
    problems = [f"{name} holds {bad} entries that are not finite" for name, array in found.items()
                if (bad := int((~np.isfinite(array)).sum()))]
    problems += [f"{name} holds variances below 0" for name, array in found.items()
                 if name.endswith("running_var") and (array < 0).any()]
    if problems:
        raise ValueError("; ".join(problems))
    return found


def _is_ours(content: bytes) -> bool:
    try:
        metadata = checkpoint.header_of(content).get("__metadata__")
    except ValueError:  # which is said better where the entries are read
        return False
    return isinstance(metadata, dict) and "fastnet" in metadata


def _entries(path: Path, content: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Names and entries of a safetensors file, which are in little-endian order whatever the machine."""
    import safetensors

    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        guess = ("; it looks like a pickle of torch.save, which may run anything and is never read here: "
                 "safetensors.torch.save_file(net.state_dict(), path) writes the file that is needed"
                 if content.startswith(PICKLES) else "")
        raise ValueError(f"{path} is not a whole safetensors file ({error}){guess}") from None
    if foreign := [name for name, entry in entries if entry["dtype"] not in ("BF16", *TYPES)]:
        raise ValueError(f"{path} has entries of types that are not read here: {', '.join(foreign)}")
    return entries


def _array(entry: dict[str, Any]) -> np.ndarray:
    """The array of an entry, which is emptied: of bfloat16, twice as large as float32, only one is there twice."""
    kind, data = entry["dtype"], entry.pop("data")
    if kind == "BF16":
        halves = np.zeros((len(data) // 2, 2), "<u2")
        halves[:, 1] = np.frombuffer(data, "<u2")
        return halves.view("<f4").reshape(entry["shape"])
    return np.frombuffer(data, TYPES[kind]).reshape(entry["shape"])
