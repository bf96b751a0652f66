"""One process a run directory: an advisory lock that the system drops when its holder dies, however it dies."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastnet.train.record import LOCK

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock inside the block. Raises BlockingIOError where another process holds it."""
    with open(folder / LOCK, "ab+") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except (BlockingIOError, PermissionError):
            raise BlockingIOError(f"another process is training in {folder}") from None
        except OSError:  # a file system without locks is no reason not to train
            pass
        yield
