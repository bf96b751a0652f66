"""What is added up over an epoch's batches."""

from dataclasses import dataclass
from typing import Any

from fastnet.arrays import Array


@dataclass
class Sums:
    """Sums over the part of the current epoch that is done."""

    loss: float = 0.0
    correct: Any = 0  # on a GPU it stays there until somebody asks for it
    seen: int = 0
    seconds: float = 0.0

    def add(self, loss: float, logits: Array, labels: Array) -> None:
        self.loss += loss * len(labels)
        self.correct = self.correct + (logits.argmax(axis=1) == labels).sum()
        self.seen += len(labels)

    def settings(self) -> dict[str, Any]:
        """As plain JSON, for a checkpoint."""
        return {**vars(self), "correct": int(self.correct)}
