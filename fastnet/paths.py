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
