"""A sweep's journal: one file that is only ever appended to, by any number of processes.

Each line is written in one piece under the file's lock and is on disk before the lock goes. A process that dies in the
middle of it leaves a line without an end, which the next one to write removes: nobody had been told of it. A disk that
is full leaves the file as it was.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fastnet.lab.search.space import Space
from fastnet.lab.search.sweep import FORMAT, Sweep
from fastnet.train import record
from fastnet.train.lock import held

MOST_BYTES = 1 << 28
_Event = dict[str, Any]


def header(space: Space, *, seed: int, minimize: bool, lease: float, settings: Mapping[str, Any]) -> _Event:
    """The first line of a journal. Raises TypeError for settings that are no JSON."""
    line = {"fastnet": "sweep", "format": FORMAT, "space": {name: one.settings() for name, one in space.items()},
            "seed": seed, "minimize": minimize, "lease": lease, "settings": dict(settings)}
    return json.loads(json.dumps(line, allow_nan=False))  # tuples become lists, as they will when it is read back


class Journal:
    """A sweep in the file `path`; None keeps it in memory.

    The file is begun with `begin` where there is none; without `begin` it has to be there. Raises ValueError for a file
    that is not a journal, or one of another sweep, FileNotFoundError for one that is not there, OSError where it cannot
    be written. Threads of a process may share one.
    """

    def __init__(self, path: Path | None, begin: _Event | None = None) -> None:
        self.path = path
        self._mutex = threading.Lock()
        self._read_bytes = self._read_lines = 0
        self._sweep: Sweep | None = Sweep(begin) if path is None else None
        if path is not None and begin is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError), open(path, "xb"):
                pass
        if path is not None and not path.exists():
            raise FileNotFoundError(f"there is no journal {path}")
        if path is not None and not path.is_file():
            raise ValueError(f"{path} is not a file, so it is not a sweep's journal")
        self._begin = begin
        with self._locked() as file:
            self._read(file)
        if begin is not None and (other := record.differences(self.sweep.header, begin)):
            raise ValueError(f"{path} is the journal of another sweep: {'; '.join(other)}")

    @property
    def sweep(self) -> Sweep:
        """What was read last."""
        assert self._sweep is not None
        return self._sweep

    def update(self, decide: Callable[[Sweep], list[_Event]] = lambda sweep: []) -> list[_Event]:
        """Read what is new, ask `decide` what to write, write it and return it; nobody else writes meanwhile.

        Raises OSError where it cannot be written; then nothing of it is.
        """
        with self._locked() as file:
            self._read(file)
            events = decide(self.sweep)
            if file is not None and events:
                self._append(file, events)
                self._read(file)  # what counts is what the file holds, also when Ctrl-C came in between
            elif file is None:
                for event in events:
                    self.sweep.apply(event)
            return events

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int | None]:
        with self._mutex:
            if self.path is None:
                yield None
                return
            file = os.open(self.path, os.O_RDWR | os.O_APPEND)
            try:
                with held(file, self.path):
                    yield file
            finally:
                os.close(file)

    def _read(self, file: int | None) -> None:
        """Take over the lines that are new."""
        if file is None:
            return
        size = os.fstat(file).st_size
        if size > MOST_BYTES:
            raise ValueError(f"{self.path} has {size:,} bytes, more than any journal ({MOST_BYTES:,})")
        if size < self._read_bytes:
            raise ValueError(f"{self.path} has become shorter: somebody else has changed it")
        if size == 0:
            self._append(file, [self._first_line()])
            size = os.fstat(file).st_size
        text = _read_exactly(file, self._read_bytes, size)
        whole, torn = text[: text.rfind(b"\n") + 1], text[text.rfind(b"\n") + 1 :]
        if torn and not whole and self._read_bytes == 0:
            self._mend_header(file, torn)
            return
        for line in whole.split(b"\n")[:-1]:
            self._take(line)
        if torn:
            os.ftruncate(file, self._read_bytes)

    def _first_line(self) -> _Event:
        if self._begin is None:
            raise ValueError(f"{self.path} is empty; begin the sweep again with the command it was begun with")
        return self._begin

    def _mend_header(self, file: int, torn: bytes) -> None:
        """Write the header again whose writer died; any other text without an end of line is somebody's file."""
        if self._begin is None or not _encode([self._begin]).startswith(torn):
            raise ValueError(f"{self.path}, line 1: it is not a sweep's journal")
        os.ftruncate(file, 0)
        self._read(file)

    def _take(self, line: bytes) -> None:
        try:
            event = _decode(line)
            if self._sweep is None:
                self._sweep = Sweep(event)
            else:
                self._sweep.apply(event)
        except ValueError as error:
            raise ValueError(f"{self.path}, line {self._read_lines + 1}: {error}") from None
        self._read_bytes += len(line) + 1
        self._read_lines += 1

    def _append(self, file: int, events: list[_Event]) -> None:
        text = _encode(events)
        before = os.fstat(file).st_size
        try:
            if os.write(file, text) != len(text):
                raise OSError(f"no space for {len(text)} more bytes")
            os.fsync(file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(file, before)
            raise OSError(f"the journal {self.path} cannot be written ({error.strerror or error}); it stays as it was, "
                          "and the same command goes on from it") from error


def _encode(events: list[_Event]) -> bytes:
    return "".join(json.dumps(event, allow_nan=False) + "\n" for event in events).encode()


def _decode(line: bytes) -> Any:
    """The JSON in a line. Raises ValueError with a short text, whatever the line is."""
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no number")

    try:
        return json.loads(line.decode(), parse_constant=refuse)
    except UnicodeDecodeError:
        raise ValueError("it is not text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None


def _read_exactly(file: int, start: int, end: int) -> bytes:
    os.lseek(file, start, os.SEEK_SET)
    parts = []
    while start < end:
        part = os.read(file, end - start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return b"".join(parts)
