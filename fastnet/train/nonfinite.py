"""When a loss stops being finite: where it began."""

from dataclasses import replace

from fastnet.arrays import Array, array_module
from fastnet.nn.layer import Context, Layer
from fastnet.nn.sequential import Sequential, named_layers
from fastnet.unmade import Unmade, made


class NonFiniteError(FloatingPointError):
    """A loss is NaN or infinite. Holds the step (counted from 0) and the batch: x, labels, samples."""

    def __init__(self, step: int, where: str, x: Array | Unmade, labels: Array, samples: Array) -> None:
        super().__init__(f"the loss is not finite at step {step}: {where}")
        self.step, self.where, self.x, self.labels, self.samples = step, where, made(x), labels, samples


def explain(model: Sequential, x: Array | Unmade, context: Context) -> str:
    """Name the first array that is not finite: the input, a parameter, or a layer's output in the forward pass."""
    x = made(x)
    if (text := _entry(x)) is not None:
        return f"the input x is not finite, {text}"
    for name, value in model.parameters().items():
        if (text := _entry(value)) is not None:
            return f"parameter {name} is not finite, {text}; an earlier update made it so (is the rate too high?)"
    paths = {id(layer): path for path, layer in named_layers(model)}
    found: list[str] = []

    def tap(layer: Layer, x: Array, y: Array) -> None:
        if not found and (text := _entry(y)) is not None:
            found.append(f"the output of {paths[id(layer)]} ({layer.kind}) is the first that is not finite, {text}")

    model(x, replace(context, update_statistics=False, tap=tap))
    return found[0] if found else "the logits are finite, so the loss itself overflows"


def _entry(x: Array) -> str | None:
    """The first entry that is not finite, in words, or None where there is none."""
    wrong = ~array_module(x).isfinite(x)
    if not bool(wrong.any()):
        return None
    flat = int(wrong.reshape(-1).argmax())
    index = []
    for size in reversed(x.shape):
        flat, at = divmod(flat, size)
        index.append(at)
    return f"{float(x[tuple(reversed(index))])} at {list(reversed(index))}, {int(wrong.sum())} of {x.size} entries"
