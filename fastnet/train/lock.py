"""Advisory locks that the system drops when their holder dies, however it dies."""

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
    """Hold a run directory's lock inside the block. Raises BlockingIOError where another process holds it."""
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


@contextlib.contextmanager
def held(file: int, path: Path) -> Iterator[None]:
    """Wait for the lock of an open file, hold it inside the block. Raises OSError where there are no locks: processes
    that share the file would tear each other's lines apart."""
    try:
        if fcntl is None:
            raise OSError("this system has no flock")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise OSError(f"{path} cannot be locked ({error.strerror or error}), which several processes need; put it on "
                      "another file system") from error
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
