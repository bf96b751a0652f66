"""A model layer by layer: shapes, parameters, multiply-accumulates, bytes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from fastnet.nn.layer import Shape
from fastnet.nn.sequential import Sequential, named_layers


class LayerSummary(NamedTuple):
    """One layer: output shape of a sample, parameters, MACs of a sample each way, bytes of a sample's output.

    `runs_as` names the algorithm, for layers that have several.
    """

    name: str
    kind: str
    shape: Shape
    parameters: int
    macs_forward: int
    macs_backward: int
    activation_bytes: int
    runs_as: str


def summarize(model: Sequential, input_shape: Shape, batch_size: int = 1) -> list[LayerSummary]:
    """One row a layer, under its dotted name; a container's layers instead of itself.

    A layer with weights costs its forward products twice backward, for dw and dx; dx is not computed where no
    parameter lies below it. Raises ValueError where a layer cannot take what comes before it.
    """
    model.output_shape(input_shape)  # says where inside the model something does not fit
    names = {id(layer): name for name, layer in named_layers(model)}
    rows = []
    for layer, shape, needs_dx in model.leaves(input_shape):
        macs, output = layer.macs(shape), layer.output_shape(shape)
        parameters = sum(math.prod(p.shape) for p in layer.parameters_here.values())
        rows.append(LayerSummary(names[id(layer)], layer.kind, output, parameters, macs, macs * (1 + needs_dx),
                                 math.prod(output) * model.dtype.itemsize,
                                 layer.runs_as(shape, batch_size, model.dtype)))
    return rows


def format_summary(model: Sequential, input_shape: Shape, batch_size: int) -> str:
    """The rows as a table, and totals for a batch; a column for the algorithms where any layer has a choice."""
    rows = summarize(model, input_shape, batch_size)
    table: list[tuple[str, ...]] = [("layer", "kind", "output", "parameters", "MACs forward", "MACs backward", "bytes",
                                     "runs as")]
    table += [(r.name, r.kind, "x".join(map(str, r.shape)), f"{r.parameters:,}", f"{r.macs_forward:,}",
               f"{r.macs_backward:,}", f"{r.activation_bytes:,}", r.runs_as) for r in rows]
    total = [sum(column) for column in zip(*(r[3:7] for r in rows), strict=True)]
    table.append(("total", "", "", *(f"{t:,}" for t in total), ""))
    if not any(r.runs_as for r in rows):
        table = [row[:-1] for row in table]
    size = model.dtype.itemsize
    memory = batch_size * (total[3] + math.prod(input_shape) * size)
    return (align(table, right=(3, 4, 5, 6))
            + f"\nper sample, {model.dtype} activations; MACs are multiply-accumulates\n"
            + f"batch of {batch_size}: {2 * batch_size * (total[1] + total[2]) / 1e9:.3f} GFLOP a step, input and "
              f"activations {memory / 2**20:.1f} MiB, parameters and gradients {2 * total[0] * size / 2**20:.1f} MiB")


def align(rows: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
    """Rows as text in columns, a rule under the first."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(w) if i in right else cell.ljust(w)
                       for i, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
