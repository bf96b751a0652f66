"""Checkpoints: one safetensors file of named arrays and JSON metadata, replaced as a whole or not at all."""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1


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
    """Arrays and metadata of a checkpoint. Raises ValueError for a file that is not as written, OSError if unread."""
    import safetensors
    import safetensors.numpy

    content = path.read_bytes()
    try:
        arrays = safetensors.numpy.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        metadata = json.loads(header["fastnet"])
        version, checksum = int(header["format"]), header.get("crc32")
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a whole fastnet checkpoint ({type(error).__name__}: {error})") from None
    if version > FORMAT:
        raise ValueError(f"{path} has checkpoint format {version}, but this fastnet reads up to {FORMAT}")
    if not isinstance(metadata, dict):
        raise ValueError(f"{path} is not a whole fastnet checkpoint (its metadata is no JSON object)")
    if checksum != _checksum(arrays, version, header["fastnet"]):
        raise ValueError(f"{path} is damaged: what it holds does not have the checksum that was written with it")
    return arrays, metadata


def _checksum(arrays: Mapping[str, np.ndarray], version: int, metadata: str) -> str:
    """CRC-32 of the metadata and of every array with its name, type and shape."""
    found = zlib.crc32(f"{version} {metadata}".encode())
    for name in sorted(arrays):
        array = arrays[name]
        found = zlib.crc32(array.data, zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), found))
    return f"{found:08x}"
