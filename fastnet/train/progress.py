"""What a person sees of a run: a bar on a terminal, one line an epoch elsewhere."""

import contextlib
import errno
import sys
import time
from typing import Any

from fastnet import backend


class Progress:
    """Progress of `epochs` epochs of `steps_per_epoch` steps, `done` of them behind us. Writes to standard output."""

    def __init__(self, name: str, epochs: int, steps_per_epoch: int, done: int, verbose: bool) -> None:
        self.name, self.epochs, self.steps_per_epoch = name, epochs, steps_per_epoch
        self.done, self.verbose = done, verbose
        self._bar: Any = None
        self._exit = contextlib.ExitStack()
        self._told = False
        self._shown = 0.0

    def __enter__(self) -> "Progress":
        if not self.verbose:
            return self
        if self.done:
            print(f"resumed at step {self.done} (epoch {self.done // self.steps_per_epoch + 1})", flush=True)
        self._exit.enter_context(backend.on_compilation(self._compiling))
        if sys.stdout.isatty():
            import tqdm

            self._bar = tqdm.tqdm(total=self.epochs * self.steps_per_epoch, initial=self.done, desc=self.name,
                                  unit="step", file=sys.stdout, dynamic_ncols=True)
        return self

    def first_loss(self, loss: float, expected: float | None) -> None:
        """The loss before any update; beside it, where it is known, that of a model which knows nothing."""
        if not self.verbose or expected is None:
            return
        text = f"first loss {loss:.3f}, ln(classes) = {expected:.3f}"
        if not 0.5 * expected < loss < 1.5 * expected:
            text += ": far apart; are the images normalised and the weights drawn on the right scale?"
        self._write(text)

    def due(self, seconds: float) -> bool:
        """Whether a bar shows a loss that is older than that."""
        return self._bar is not None and time.monotonic() - self._shown > seconds

    def step(self, loss: float | None) -> None:
        """One step is done; None for a loss that nobody knows yet."""
        if self._bar is not None:
            self._bar.update()
            if loss is not None and (now := time.monotonic()) - self._shown > 0.2:
                self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
                self._shown = now

    def epoch(self, line: dict[str, Any]) -> None:
        """An epoch is done; `line` is its record."""
        if not self.verbose:
            return
        text = (f"epoch {line['epoch']:>{len(str(self.epochs))}}/{self.epochs}  lr {line['lr']:.2e}  "
                f"train loss {line['train_loss']:.4f} acc {100 * line['train_accuracy']:5.2f} %")
        if "validation_loss" in line:
            text += f"  val loss {line['validation_loss']:.4f} acc {100 * line['validation_accuracy']:5.2f} %"
        text += f"  {line['seconds']:.2f} s"
        if line.get("skipped_steps"):
            text += f"  {line['skipped_steps']} steps skipped so far (overflow), loss scale {line['loss_scale']:g}"
        self._write(text)

    def _write(self, text: str) -> None:
        try:
            if self._bar is not None:
                self._bar.write(text, file=sys.stdout)
            else:
                print(text, flush=True)
        except OSError as error:
            if error.errno != errno.ENOSPC:  # a log on a full disk is no reason to lose the run
                raise

    def _compiling(self, kernel: str) -> None:
        if not self._told:
            self._told = True
            self._write("compiling kernels (once on this machine, some seconds) ...")

    def __exit__(self, *_: Any) -> None:
        self._exit.close()
        if self._bar is not None:
            self._bar.close()
