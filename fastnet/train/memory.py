"""The memory of a training step, predicted without taking it: the step itself runs on arrays without memory.

Nothing here models the layers or the kernels. `fastnet.shadows` takes the place of the arrays, the compiled kernels are
left out, and a ledger counts what `TrainStep`, the layers and the kernels' own code make, keep and let go. What is not
counted: the few hundred kB that a compiled kernel takes for itself while it runs, the gaps between arrays that
`fastnet.arena` tells of, and Python's own objects.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastnet import backend
from fastnet.nn.initializers import Initializer
from fastnet.nn.layer import Shape
from fastnet.nn.sequential import Sequential
from fastnet.nn.watch import watched
from fastnet.optim.optimizers import Optimizer
from fastnet.optim.schedules import constant
from fastnet.shadows import Ledger
from fastnet.train.step import TrainStep


class StepMemory(NamedTuple):
    """Bytes at the fullest moment of a training step: four parts, and what was being done (`conv1 backward`)."""

    parameters: int  # with their gradients and the optimizer's state
    batch: int
    kept: int  # for the backward pass
    in_flight: int  # results and gradients on their way, and scratch
    place: str

    @property
    def peak(self) -> int:
        """The sum of the parts."""
        return self.parameters + self.batch + self.kept + self.in_flight


def step_memory(model: Sequential, input_shape: Shape, batch_size: int, optimizer: Optimizer) -> StepMemory:
    """What one step of `optimizer` needs on a batch of so many samples of `input_shape`, by the CPU kernels.

    The model stays as it is. How many threads the kernels may use counts, as each has scratch of its own. Raises
    ValueError where a layer cannot take what comes before it, for an empty batch, and for a type that the kernels do
    not take; ImportError where Numba is missing.
    """
    if backend.module("cpu", "linear") is None:
        raise ImportError("the CPU kernels are what memory is predicted for, and they need Numba, which is missing")
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1 but is {batch_size}")
    model.output_shape(input_shape)
    ledger, twin = Ledger(), model.undrawn()
    kept: set[int] = set()
    for layer in twin.walk():
        for parameter in layer.parameters_here.values():
            parameter.initializer = _UNDRAWN

    @contextlib.contextmanager
    def at(place: str) -> Iterator[None]:
        if place.endswith(" backward") and not kept:
            kept.update(ledger.alive)
        with ledger.at(place):
            yield

    with watched(twin, at), backend.use("cpu"), ledger.rehearsal():
        step = TrainStep(twin, optimizer, constant(1.0))
        parameters = set(ledger.alive)
        x = ledger.empty((batch_size, *input_shape), model.dtype)
        batch = set(ledger.alive) - parameters
        step(x, np.zeros(batch_size, np.int64))
    there = ledger.at_peak
    known = [sum(there[number] for number in there.keys() & part)
             for part in (parameters, batch, kept - parameters - batch)]
    return StepMemory(known[0], known[1], known[2], sum(there.values()) - sum(known), ledger.place_at_peak)


def format_step_memory(memory: StepMemory) -> str:
    """Two lines, in MiB."""
    parameters, batch, kept, in_flight, peak = (f"{n / 2**20:.1f}" for n in (*memory[:4], memory.peak))
    return (f"peak memory of a training step, predicted: {peak} MiB, in {memory.place}\n"
            f"(parameters, gradients and optimizer state {parameters} MiB, batch {batch}, kept for backward {kept}, "
            f"in flight {in_flight})")


class _Undrawn(Initializer):
    """Draws nothing: there is nowhere to put it."""

    def draw(self, shape: tuple[int, ...], fan_in: int, fan_out: int, *, seed: int, index: int) -> np.ndarray:
        return np.zeros(())


_UNDRAWN = _Undrawn("undrawn", "constant", lambda fan_in, fan_out: 0.0)
