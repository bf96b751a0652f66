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
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None


def read_history(out: Path) -> list[dict[str, Any]]:
    """The epochs of a run, in order. Raises FileNotFoundError or ValueError."""
    path = out / HISTORY
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: {out} is not a run directory, or its first epoch has not "
                                "ended") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from None


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
