"""The record of a run: a directory with config.json, history.jsonl, checkpoint, curves and result."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastnet.train.checkpoint import write_atomically

CONFIG, HISTORY, CHECKPOINT, CURVES, RESULT, MODEL, NONFINITE = (
    "config.json", "history.jsonl", "checkpoint.safetensors", "curves.png", "result.json", "model.safetensors",
    "nonfinite.safetensors")
LOCK = ".lock"
# Bytes that are read of a file of JSON: as Python's objects it can take thirty times as much. A line of a history has
# some 400, so this is for runs of 100,000 epochs.
MOST_JSON = 1 << 20
MOST_HISTORY = 1 << 26


def versions() -> dict[str, str]:
    """Versions of everything whose change could change a result."""
    from importlib import metadata  # slow to import, and not needed before a run

    found = {"python": platform.python_version()}
    for name in ("fastnet", "numpy", "numba", "scipy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # numba is optional at run time
            found[name] = "not installed"
    return found


def open_directory(out: Path, resume: bool) -> None:
    """Make the run directory, or with `resume` find it.

    Raises FileExistsError where a run is there already, FileNotFoundError where none is to resume, OSError where the
    folder cannot be written.
    """
    if resume:
        if not (out / CHECKPOINT).exists():
            raise FileNotFoundError(f"--resume: there is no {CHECKPOINT} in {out}")
    elif out.is_dir() and any(file.name != LOCK for file in out.iterdir()):
        raise FileExistsError(f"{out} holds files already; name another --out, or continue its run with --resume")
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OSError(f"the output folder {out} cannot be written ({error.strerror})") from None


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def write_history(out: Path, history: list[dict[str, Any]]) -> None:
    write_atomically(out / HISTORY, "".join(json.dumps(line) + "\n" for line in history).encode())


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Raises FileNotFoundError or ValueError with one clear line."""
    try:
        return parsed(_text(path, MOST_JSON))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None


def parsed(text: str) -> Any:
    """The JSON value that is written there. Raises ValueError, also where it is nested more deeply than can be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _text(path: Path, most: int) -> str:
    if path.stat().st_size > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    return path.read_bytes().decode()


def read_history(out: Path) -> list[dict[str, Any]]:
    """The epochs of a run, in order. Raises FileNotFoundError or ValueError."""
    path = out / HISTORY
    try:
        history = [parsed(line) for line in _text(path, MOST_HISTORY).splitlines()]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: {out} is not a run directory, or its first epoch has not "
                                "ended") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from None
    for number, line in enumerate(history, start=1):
        if not isinstance(line, dict):
            raise ValueError(f"{path} is damaged (line {number} is not the record of an epoch)")
    return history


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`name: old, now new` for every setting that differs, nested ones by their dotted names."""
    found = []
    for key in sorted(set(old) | set(new)):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found += differences(before, now, f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key} was {before}, now {now}")
    return found
