"""Weight averaging: an exponential moving average of all parameters, which evaluation uses."""

import contextlib
from collections.abc import Iterator

from fastnet import backend
from fastnet.arrays import Deferred
from fastnet.nn.sequential import Sequential


class WeightAverage:
    """a = a + (1 - decay) (w - a) after every update (see `fastnet.functions.average_update`).

    It starts as a copy of the weights. Running statistics are not averaged: they are averages already.
    Raises ValueError unless 0 <= decay < 1.
    """

    def __init__(self, model: Sequential, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of the weight average must be in [0, 1) but is {decay}")
        self.model, self.decay = model, decay
        self.vector = model.store.vector.copy()

    def update(self, decay: float | Deferred | None = None) -> None:
        """Take in the model's weights as they are now; `decay` says where a GPU finds its own."""
        backend.call("average_update", self.vector, self.model.store.vector,
                     decay=self.decay if decay is None else decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the average as its weights inside the block."""
        weights = self.model.store.vector
        kept = weights.copy()
        weights[...] = self.vector
        try:
            yield
        finally:
            weights[...] = kept
