"""Every intermediate value of a pass, by name."""

from dataclasses import replace

from fastnet.arrays import Array, array_module, single_threaded_blas
from fastnet.nn.layer import INFERENCE, Context, Layer
from fastnet.nn.sequential import Sequential, named_layers


def trace(model: Sequential, x: Array, *, training: bool = False) -> dict[str, Array]:
    """{layer's dotted name: its output (N, ...)} for every layer, in the order in which the outputs come to be.

    A container's output stands under the container's name, behind those of the layers inside it. The layers run one by
    one, not fused: in inference mode, or with `training` as a training step would run them, dropout's masks keyed by
    the model's seed and the place in the batch. The arrays are copies, NumPy's, or CuPy's where x is; the model is not
    changed. x is floating, (N, H, W, C) or (N, D), already normalised: raises TypeError or ValueError otherwise.
    """
    given, x = x, model.prepare(x)
    model.require_fit(x)
    model.store  # noqa: B018  (numbers the dropout layers)
    names = {id(layer): name for name, layer in named_layers(model)}
    found: dict[str, Array] = {}

    def tap(layer: Layer, x: Array, y: Array) -> None:
        found[names[id(layer)]] = model.answer(y.copy(), given)

    context = INFERENCE
    if training:
        context = Context(training=True, seed=model.seed, samples=array_module(x).arange(len(x)),
                          update_statistics=False)
    with single_threaded_blas():
        model(x, replace(context, tap=tap))
    return found
