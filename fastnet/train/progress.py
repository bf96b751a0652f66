"""What a person sees of a run: a bar on a terminal, one line an epoch elsewhere."""

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
        self._waiting = False
        self._shown = 0.0

    def __enter__(self) -> "Progress":
        if not self.verbose:
            return self
        if self.done:
            print(f"resumed at step {self.done} (epoch {self.done // self.steps_per_epoch + 1})", flush=True)
        if not backend.kernels_compiled():
            print("compiling kernels (once on this machine, some seconds) ...", flush=True)
            self._waiting = True
        if sys.stdout.isatty():
            import tqdm

            self._bar = tqdm.tqdm(total=self.epochs * self.steps_per_epoch, initial=self.done, desc=self.name,
                                  unit="step", file=sys.stdout, dynamic_ncols=True)
        return self

    def step(self, loss: float) -> None:
        """One step is done."""
        if self._bar is not None:
            self._bar.update()
            if (now := time.monotonic()) - self._shown > 0.2:
                self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
                self._shown = now
        elif self._waiting:
            print("first step done", flush=True)
            self._waiting = False

    def epoch(self, line: dict[str, Any]) -> None:
        """An epoch is done; `line` is its record."""
        if not self.verbose:
            return
        text = (f"epoch {line['epoch']:>{len(str(self.epochs))}}/{self.epochs}  lr {line['lr']:.2e}  "
                f"train loss {line['train_loss']:.4f} acc {100 * line['train_accuracy']:5.2f} %")
        if "validation_loss" in line:
            text += f"  val loss {line['validation_loss']:.4f} acc {100 * line['validation_accuracy']:5.2f} %"
        text += f"  {line['seconds']:.2f} s"
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
