"""A training step's passes as a CUDA graph: recorded for each form of batch, then replayed."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

from fastnet import graphs
from fastnet.arrays import Array, array_module
from fastnet.nn.layer import Context
from fastnet.nn.layers import Dropout
from fastnet.nn.sequential import Sequential
from fastnet.unmade import form as form_of
from fastnet.unmade import room

WARM_UPS = 2  # the first compiles, the second finds the memory of the first: what it needs more, a recording would too

Passes = Callable[[Array, Array, Context, float], tuple[Array, Array]]  # (x, labels, context, scale) -> (loss, logits)


@dataclass
class _Form:
    """Batches of one shape: what their recording has in it, once there is one."""

    baked: Hashable = None  # numbers that change now and then; a recording is good for those that it was made with
    warm_ups: int = 0
    batch: list[Array] = field(default_factory=list)  # x, labels, samples: where the kernels read them
    result: tuple[Array, Array] | None = None
    replay: Callable[[], None] | None = None


class GraphedPasses:
    """`passes`, which run a model forward and back, from the third batch of a form on as one CUDA graph.

    Loss and logits are then the same arrays each time, good until the next call. What is baked into a recording: the
    shapes, the epoch where it keys the masks of dropout (so each epoch is recorded anew), the factor of the loss, and
    all settings of layers. Raises ValueError for a device that records nothing.
    """

    def __init__(self, model: Sequential, passes: Passes) -> None:
        library = array_module(model.store.vector).__name__
        if library not in graphs.RECORDERS:
            raise ValueError(f"TrainStep: there are no graphs on device {model.device!r}")
        self._passes, self._recorder = passes, graphs.RECORDERS[library]()
        self._by_epoch = any(isinstance(layer, Dropout) and layer.p > 0 for layer in model.walk())
        self._forms: dict[Hashable, _Form] = {}

    def __call__(self, x: Array, labels: Array, context: Context, scale: float) -> tuple[Array, Array]:
        batch = [x, labels, context.samples]
        form = self._forms.setdefault(tuple(map(form_of, batch)), _Form())
        baked = self._baked(context, scale)
        if form.baked != baked:
            form.baked, form.warm_ups, form.replay = baked, 0, None
        if form.replay is None and form.warm_ups < WARM_UPS:
            form.warm_ups += 1
            return self._recorder.warm_up(lambda: self._passes(x, labels, context, scale))
        if not form.batch:
            form.batch = [room(a) for a in batch]
        for fixed, given in zip(form.batch, batch, strict=True):
            fixed[...] = given
        if form.replay is None:
            form.result, form.replay = self._recorder.record(lambda: self._recorded(form, context, scale))
        form.replay()
        return form.result  # type: ignore[return-value]

    def _baked(self, context: Context, scale: float) -> Hashable:
        return context.seed, context.epoch if self._by_epoch else None, scale

    def _recorded(self, form: _Form, context: Context, scale: float) -> tuple[Array, Array]:
        x, labels, samples = form.batch
        return self._passes(x, labels, replace(context, samples=samples), scale)
