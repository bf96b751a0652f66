"""Checkpoints: one safetensors file of named arrays and JSON metadata, replaced as a whole or not at all.

Format 1. The file's `__metadata__` has three entries, all of them text:

    format   the number of the format; files of a higher one are refused, those of all lower ones are read
    fastnet  JSON, an object: what else is to be known, as plain values
    crc32    8 hexadecimal digits, of the text "{format} {fastnet}", then of "{name} {type} {shape}" and the bytes of
             every array, in the order of their names; type and shape are written as NumPy and Python do

What the checkpoint of a run holds in them (`fastnet.train.state`):

    arrays    model/NAME for each parameter and running statistic; optimizer.KEY/NAME for each parameter and each vector
              of the optimizer's state (velocity; m, v; ...); average/NAME with a weight average; best/NAME, as model/
              of the best epoch so far, with early stopping once there is one
    metadata  step, the updates done; sums {loss, correct, seen, seconds} of the current epoch; history, a list with the
              record of each epoch; config, as in config.json; first_loss; versions; and where the run has them
              schedule (its state), scaling {scale, good, skipped} and stopping {best_epoch, best_value}

The model.safetensors of a finished run has model/NAME and standardization/mean and /std; its metadata are config,
classes and input_shape.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
MOST_HEADER = 1 << 26  # bytes: a run's history has some 400 an epoch, twice that where it stands inside JSON


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: written beside it, flushed to disk, read back, renamed.

    Whatever fails, the old file stays. Raises OSError.
    """
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if part.read_bytes() != content:
            raise OSError(f"{part} does not read back as it was written")
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    # The rename itself is only durable once the folder is on disk.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write arrays and JSON-able metadata to `path`. Raises OSError; the file that was there stays until the end."""
    import safetensors.numpy

    # safetensors writes garbage for arrays that are not C-contiguous. (ascontiguousarray would give 0-d ones an axis.)
    arrays, text = {name: np.asarray(a, order="C") for name, a in arrays.items()}, json.dumps(metadata)
    write_atomically(path, safetensors.numpy.save(arrays, {"format": str(FORMAT), "fastnet": text,
                                                           "crc32": _checksum(arrays, FORMAT, text)}))


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata of a checkpoint. Raises ValueError for a file that is not as written, OSError if unread.

    It takes twice the file's size of memory while it reads, and once afterwards.
    """
    return parse(path, path.read_bytes())


def parse(path: Path, content: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """`load`, of what was read from `path` before. Raises ValueError."""
    import safetensors
    import safetensors.numpy

    try:
        header = header_of(content)["__metadata__"]
        metadata = json.loads(header["fastnet"])
        arrays = safetensors.numpy.load(content)
        version, checksum = int(header["format"]), header.get("crc32")
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        raise ValueError(f"{path} is not a whole fastnet checkpoint ({type(error).__name__}: {error})") from None
    except RecursionError:
        raise ValueError(f"{path} is not a whole fastnet checkpoint (its metadata is nested too deeply)") from None
    if version > FORMAT:
        raise ValueError(f"{path} has checkpoint format {version}, but this fastnet reads up to {FORMAT}")
    if not isinstance(metadata, dict):
        raise ValueError(f"{path} is not a whole fastnet checkpoint (its metadata is no JSON object)")
    if checksum != _checksum(arrays, version, header["fastnet"]):
        raise ValueError(f"{path} is damaged: what it holds does not have the checksum that was written with it")
    return arrays, metadata


def header_of(content: bytes) -> dict[str, Any]:
    """The header of a safetensors file. Raises ValueError where it is none, or larger than any of ours: as Python's
    objects JSON can take thirty times its size.
    """
    size = int.from_bytes(content[:8], "little")
    if size > MOST_HEADER:
        raise ValueError(f"its header has {size:,} bytes, more than {MOST_HEADER:,}")
    try:
        header = json.loads(content[8 : 8 + size])
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header


def _checksum(arrays: Mapping[str, np.ndarray], version: int, metadata: str) -> str:
    """CRC-32 of the metadata and of every array with its name, type and shape."""
    found = zlib.crc32(f"{version} {metadata}".encode())
    for name in sorted(arrays):
        array = arrays[name]
        found = zlib.crc32(array.data, zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), found))
    return f"{found:08x}"
