"""ResNet-18 by the recipe of its report, on the card, as far as the time goes; the next command goes on from there."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from fastnet.bench.gpu.watchdog import Report
from fastnet.train.record import CHECKPOINT, HISTORY, RESULT, read_history, read_json

COMMAND = (sys.executable, "-m", "fastnet", "train", "resnet18")
SAVING = 30  # seconds that are left for the checkpoint


def run(report: Report, settings: dict[str, Any]) -> None:
    """A row for each epoch, and the result where the run has come to its end. Raises RuntimeError where it fails."""
    out = Path(settings["run"])
    before = len(epochs(out))
    command = [*COMMAND, "--device", settings["device"], "--dtype", settings["dtype"], "--out", str(out)]
    command += ["--data-dir", settings["data"]] if settings["data"] else []
    command += ["--resume"] if (out / CHECKPOINT).exists() else []
    process = subprocess.Popen(command)
    try:
        status = process.wait(settings["seconds"] - SAVING)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it finishes the step and saves
        status = process.wait(SAVING)
    for line in epochs(out)[before:]:
        report.row(**line)
    if (out / RESULT).exists():
        report.row(result=read_json(out / RESULT))
    if status not in (0, 130):
        raise RuntimeError(f"{' '.join(command)}: exit status {status}")


def epochs(out: Path) -> list[dict[str, Any]]:
    """The epochs that a run has done, of one that has not begun too."""
    return read_history(out) if (out / HISTORY).exists() else []
