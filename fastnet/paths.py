"""Where fastnet keeps files that it can make again: compiled kernels and downloaded data."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder for caches: `$FASTNET_CACHE`, else `fastnet` in `$XDG_CACHE_HOME` or `~/.cache`.

    The folder is named, not made.
    """
    if named := os.environ.get("FASTNET_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fastnet"


def writable(folder: Path, prefix: str) -> Path:
    """`folder`, made if need be; where it takes no file, a new temporary one whose name begins as `prefix`."""
    import tempfile  # which loads half the standard library, and only compiling asks for it

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix=prefix))
