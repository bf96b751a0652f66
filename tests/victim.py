"""A run to be killed: mlp3-bn on part of shapes10, saving after nearly every step. See tests/kill_and_resume.py.

    python tests/victim.py OUT THREADS new|resume

$FASTNET_DIE_AT = "stage:k" makes it kill itself in that stage of its k-th save: open, write (half of the bytes are
out), flush, read, rename or folder. The file `inside` exists in OUT while a save is going on.
$FASTNET_EPOCHS is the length of the run (default 8).
"""

import os
import signal
import sys
from pathlib import Path

import numba

import fastnet as fn
from fastnet.train import checkpoint

out, threads, mode = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
stage, _, number = os.environ.get("FASTNET_DIE_AT", "").partition(":")
saves = 0


def dying(here: str) -> None:
    if here == stage and saves == int(number):
        os.kill(os.getpid(), signal.SIGKILL)


def instrumented(name: str, real):
    def call(*arguments):
        dying(name)
        return real(*arguments)
    return call


class Half:
    """A file that dies with half of its bytes written."""

    def __init__(self, file) -> None:
        self.file = file

    def write(self, content: bytes) -> None:
        half = len(content) // 2
        self.file.write(content[:half])
        self.file.flush()
        dying("write")
        self.file.write(content[half:])

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def __enter__(self) -> "Half":
        return self

    def __exit__(self, *error) -> None:
        self.file.close()


class Watched(type(Path())):  # Path itself cannot be subclassed before Python 3.12
    def read_bytes(self) -> bytes:
        dying("read")
        return super().read_bytes()


def write_atomically(path: Path, content: bytes) -> None:
    global saves
    if path.name != "checkpoint.safetensors":
        return real_write(path, content)
    saves += 1
    (out / "inside").touch()
    real_write(Watched(path), content)
    (out / "inside").unlink()
    return None


class Os:
    """The os module with its calls watched."""

    def __getattr__(self, name: str):
        return getattr(os, name)

    fsync = staticmethod(instrumented("flush", os.fsync))
    replace = staticmethod(instrumented("rename", os.replace))
    open = staticmethod(instrumented("folder", os.open))


def watched_open(path, mode):
    dying("open")
    return Half(open(path, mode))


real_write = checkpoint.write_atomically
checkpoint.write_atomically = write_atomically
if stage:
    checkpoint.os = Os()
    checkpoint.open = watched_open
(out / "inside").unlink(missing_ok=True)
numba.set_num_threads(threads)
data = fn.data.load("shapes10", split="2000/500")
print("ready", flush=True)
fn.fit(fn.build("mlp3-bn"), data, fn.SGD(momentum=0.9), fn.schedules.triangular(1e-5, 0.05, half_cycle_steps=40),
       epochs=int(os.environ.get("FASTNET_EPOCHS", "8")), batch_size=100, penalty=fn.L2(0.005), normalization="pixel",
       out=out, resume=mode == "resume", checkpoint_seconds=0.005)
