"""Stages of a measurement, each in processes of its own under a watchdog, their results on disk at once.

A kernel that waits for ever hangs its process, and one that touches foreign memory spoils every later call of it. So a
process that ends badly, or says nothing for too long, is ended with what it was doing on record, and another does the
parts that none has begun.
"""

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastnet.train.record import write_json

LINES = 15  # of a failed process's output that are kept
TICK = 0.1  # seconds between looks at the processes
START = 60.0  # seconds that a process may take to import what it needs
GRACE = 20.0  # seconds that a killed process may take to end: the driver has to free the card


class Stage(NamedTuple):
    """A function `module:name` of (report, settings), the seconds it may take, and those it may be silent for.

    Of `workers` processes each does its share of the parts.
    """

    name: str
    target: str
    seconds: float = 60
    patience: float = 60
    workers: int = 1


class Report:
    """What a stage's function writes to. A line is on disk when the call returns."""

    def __init__(self, path: Path, begun: Sequence[str] = (), share: tuple[int, int] = (0, 1)) -> None:
        self._path, self._begun, self.share = path, frozenset(begun), share

    def begin(self, part: str) -> bool:
        """Note that the part is under way; False if an earlier process of this worker has begun it."""
        if part in self._begun:
            return False
        self._write({"begin": part})
        return True

    def row(self, **values: Any) -> None:
        self._write({"row": values})

    def ready(self) -> None:
        """Say that the work starts."""
        self._write({})

    def _write(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class _Worker:
    """A process that does a share of a stage, and those that follow it where it fails."""

    def __init__(self, stage: Stage, settings: Mapping[str, Any], share: tuple[int, int], folder: Path,
                 found: dict[str, Any]) -> None:
        self._stage, self._settings, self._share, self._folder, self._found = stage, settings, share, folder, found
        self._begun: list[str] = []
        self._number = 0
        self._start()

    def _start(self) -> None:
        self._number += 1
        stem = f"{self._share[0]}-{self._number}"
        self._rows, self._log = self._folder / f"{stem}.rows", self._folder / f"{stem}.log"
        self._rows.touch()
        given = self._folder / f"{stem}.json"
        write_json(given, {"target": self._stage.target, "rows": str(self._rows), "begun": self._begun,
                           "share": self._share, "settings": self._settings})
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([sys.executable, "-u", "-m", "fastnet.bench.gpu.watchdog", str(given)],
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                             start_new_session=True)
        self._read, self._before = 0, len(self._begun)
        self._heard, self._patience = time.monotonic(), START

    def look(self) -> bool:
        """Take what is new; whether the worker goes on."""
        status = self._process.poll()
        self._take()
        silent = time.monotonic() - self._heard > self._patience
        if status is None and not silent:
            return True
        if status == 0:
            self._keep_log()
            return False
        self.stop(f"hung for {self._patience:g} s" if status is None else
                   f"died of signal {-status}" if status < 0 else f"failed with exit status {status}")
        if len(self._begun) == self._before:
            return False  # another would fail at the same place
        self._start()
        return True

    def stop(self, why: str = "") -> None:
        """End the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            if self._process.poll() is None:
                os.kill(self._process.pid, signal.SIGUSR1)  # it says where it is
                time.sleep(TICK)
            os.killpg(self._process.pid, signal.SIGKILL)
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            why += "; it does not end even when killed"
        self._take()
        self._keep_log()
        if why:
            self._fail(why)

    def _take(self) -> None:
        """The whole lines that have come since."""
        with self._rows.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        for text in new.splitlines():
            self._heard = time.monotonic()
            line = json.loads(text)
            self._patience = self._stage.patience
            if "begin" in line:
                self._begun.append(line["begin"])
            elif "row" in line:
                self._found["rows"].append(line["row"])

    def _fail(self, why: str) -> None:
        part = self._begun[-1] if len(self._begun) > self._before else None
        self._found["failures"].append({"part": part, "why": why, "output": self.output()[-LINES:]})

    def output(self) -> list[str]:
        """The lines that the process printed."""
        return self._log.read_bytes().decode(errors="replace").splitlines()

    def _keep_log(self) -> None:
        if self._settings.get("log"):
            with Path(self._settings["log"]).open("a") as file:
                file.write("\n".join([f"--- {self._stage.name} {self._rows.stem}", *self.output(), ""]))


def run(stages: Sequence[Stage], path: Path, settings: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Run the stages in turn within so many seconds, writing the record to `path` as it grows, and return it.

    All that their processes print goes to the file settings["log"], where there is one.

    Each stage has `status` ("done", "failed", "out of time", "not reached"), `seconds`, `rows` and `failures`.
    Results of other stages that stand in `path` already are kept.
    """
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"stages": {}}
    ends = time.monotonic() + seconds
    for stage in stages:
        found: dict[str, Any] = {"status": "not reached", "seconds": 0.0, "rows": [], "failures": []}
        record["stages"][stage.name] = found
        if time.monotonic() < ends:
            _run(stage, settings, min(ends, time.monotonic() + stage.seconds), found, lambda: write_json(path, record))
        write_json(path, record)
        print(_line(stage.name, found), flush=True)
    return record


def _run(stage: Stage, settings: Mapping[str, Any], ends: float, found: dict[str, Any], write: Any) -> None:
    started = time.monotonic()
    found["status"] = "running"
    with tempfile.TemporaryDirectory(prefix="fastnet-gpu-") as folder:
        going = [_Worker(stage, settings, (number, stage.workers), Path(folder), found)
                 for number in range(stage.workers)]
        try:
            while going:
                count = len(found["rows"]) + len(found["failures"])
                late = time.monotonic() > ends
                if late:
                    for worker in going:
                        worker.stop(f"out of time after {time.monotonic() - started:.0f} s")
                    break
                going = [worker for worker in going if worker.look()]
                if len(found["rows"]) + len(found["failures"]) > count:
                    found["seconds"] = time.monotonic() - started
                    write()
                time.sleep(TICK)
        except BaseException:
            for worker in going:
                worker.stop()
            raise
    found["seconds"] = time.monotonic() - started
    found["status"] = "out of time" if going else "failed" if found["failures"] else "done"


def _line(name: str, found: Mapping[str, Any]) -> str:
    text = f"{name}: {found['status']} after {found['seconds']:.0f} s, {len(found['rows'])} rows"
    for failure in found["failures"]:
        text += "\n  ".join(["", f"{failure['part'] or 'the start'}: {failure['why']}", *failure["output"][-5:]])
    return text


def work(given: Mapping[str, Any]) -> None:
    """What a worker's process does."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    module, _, name = given["target"].partition(":")
    report = Report(Path(given["rows"]), given["begun"], tuple(given["share"]))
    function = getattr(importlib.import_module(module), name)
    report.ready()
    function(report, given["settings"])


if __name__ == "__main__":
    work(json.loads(Path(sys.argv[1]).read_text()))
