"""Two implementations in lockstep: each op of real training steps runs by both, on the same numbers, and is compared.

The first implementation leads: what it computes is what the next op of both is given. So a difference is the op's own,
not what has become of earlier ones. A result departs where

    |a - b| > ROUNDING max|r| + 4 spread

entry by entry. r is the reference's result in float64, and spread the furthest that r moves when the numbers that go in
are shaken by some units in their last place: what is ill-conditioned (a channel of hardly any variance, a sum that is
zero by algebra), and what stands at a kink (a ReLU's input of nearly 0), may differ by more, and there alone it may.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet import backend, devices
from fastnet.arrays import Array, move, to_numpy
from fastnet.check.errors import worst
from fastnet.nn.sequential import Sequential
from fastnet.nn.watch import watched

# Of the largest entry, by the size in bytes of an entry: twice what is measured of Winograd's convolutions.
ROUNDING = {8: 2e-12, 4: 6e-5, 2: 2e-2}
SHAKES, ULPS = 8, 64  # how often and by how many units the numbers that go in are shaken

Options = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One call of an op or a function in a training step: all it takes to make it again. Arrays are NumPy's."""

    op: str
    step: int
    layer: str  # and the pass it was in, as `fastnet.nn.watch` says it
    arrays: tuple[np.ndarray | None, ...]
    options: Options
    dy: np.ndarray | None = None  # of the backward pass, if that is what differs


@dataclass(frozen=True)
class Departure:
    """Where two implementations differ by more than rounding explains."""

    call: Call
    result: str  # "y", "dw", ...
    index: tuple[int, ...]
    values: tuple[float, float, float]  # the first's, the second's, the reference's in float64
    error: float  # of the largest entry
    allowed: float

    def sentence(self, first: str, second: str) -> str:
        """What departs where, and whose value is nearer to the reference in float64."""
        ours, theirs, truth = self.values
        nearer = first if abs(ours - truth) <= abs(theirs - truth) else second
        return (f"step {self.call.step}, {self.call.layer}: {self.result} of {self.call.op} at {list(self.index)} is "
                f"{ours:.9g} by {first} and {theirs:.9g} by {second}, where the reference in float64 has {truth:.9g} "
                f"({nearer} is nearer): a difference of {self.error:.1e} of the largest entry, and rounding explains "
                f"{self.allowed:.1e}")


@dataclass
class Row:
    """One op of one layer: its calls, the worst difference within the bound, relative to the largest entry, and how
    many results were beyond the bound for reasons of rounding alone.
    """

    layer: str
    op: str
    calls: int = 0
    error: float = 0.0
    explained: int = 0


@dataclass
class Lockstep:
    """What `lockstep` found. `fallbacks` are ops that an implementation has not, for which the reference stood in."""

    first: str
    second: str
    steps: int = 0
    rows: list[Row] = field(default_factory=list)
    fallbacks: dict[str, set[str]] = field(default_factory=dict)
    departure: Departure | None = None

    @property
    def passed(self) -> bool:
        return self.departure is None


class _Departed(Exception):
    """Ends the step in which implementations part."""


def lockstep(model: Sequential, step: Callable[..., object], batches: Iterable[Sequence[Any]], first: str,
             second: str) -> Lockstep:
    """Run `step(*batch)`, which trains `model`, on each batch with both implementations, up to the first departure.

    Implementations are named as for `fastnet.backend.use`; an op that one has not, the reference runs in its place. The
    model is in main memory and is trained by the first. Raises ValueError for a name that is none, for a model
    elsewhere, and where the implementations turn out to be the same for every op; what `devices.library` raises for a
    GPU that is not there.
    """
    if model.device != "cpu":
        raise ValueError(f"lockstep: the model is on {model.device!r}, but one in main memory is needed; the "
                         "implementations move what they are given")
    both = _Both(Lockstep(first, second))
    with watched(model, both.at), contextlib.suppress(_Departed):
        for batch in batches:
            with backend.observed(both.observe):
                step(*batch)
            both.report.steps += 1
    if not both.differ:
        raise ValueError(f"lockstep: {first} and {second} run every op of this model by the same code, so comparing "
                         "them shows nothing")
    return both.report


def again(call: Call, first: str, second: str) -> Departure | None:
    """Make one call by both implementations once more: how they differ, or None where rounding explains it."""
    both = _Both(Lockstep(first, second), call.step)
    with contextlib.suppress(_Departed), both.at(call.layer):
        twin = both.observe(call.op, None, call.arrays, call.options)
        if hasattr(twin, "run"):
            twin.run(*(None if a is None else a.copy() for a in call.arrays), **call.options)
        else:
            _, cache = twin.forward(*call.arrays, **call.options)
            if call.dy is not None:
                twin.backward(call.dy, cache)
    return both.report.departure


class _Side:
    """One implementation: the modules that it runs, and its arrays."""

    def __init__(self, name: str) -> None:
        if name not in backend.IMPLEMENTATIONS:
            raise ValueError(f"{name!r} is not an implementation; choose from {', '.join(backend.IMPLEMENTATIONS)}")
        self.name, self.library = name, devices.library("cuda") if name == "cuda" else np
        self.fallbacks: set[str] = set()

    def module(self, op: str, arrays: Sequence[Array | None], options: Options) -> Any:
        found = backend.module(self.name, op)
        if found is not None and (self.name == "reference" or found.supports(*self.take(arrays), **options)):
            return found
        self.fallbacks.add(op)
        return backend.module("reference", op)

    def take(self, thing: Any) -> Any:
        """`thing` with its arrays moved to this side's library."""
        return _mapped(lambda a: move(a, self.library), thing)


class _Both:
    """An observer of `backend` that has both sides run each call."""

    def __init__(self, report: Lockstep, step: int | None = None) -> None:
        self.report, self._step = report, step
        self._sides = _Side(report.first), _Side(report.second)
        report.fallbacks = {side.name: side.fallbacks for side in self._sides}
        self._places: list[str] = []
        self._rows: dict[tuple[str, str], Row] = {}
        self.differ = False

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        self._places.append(place)
        try:
            yield
        finally:
            self._places.pop()

    def observe(self, op: str, module: Any, arrays: tuple[Array | None, ...], options: Options) -> Any:
        modules = [side.module(op, arrays, options) for side in self._sides]
        self.differ |= modules[0] is not modules[1]
        return (_Function if hasattr(modules[0], "run") else _Pair)(self, op, modules)

    def call(self, op: str, arrays: Sequence[Array | None], options: Options, dy: Array | None = None) -> Call:
        layer = self._places[-1] if self._places else "outside the layers"
        return Call(op, self.report.steps if self._step is None else self._step, layer, tuple(arrays), options, dy)

    def on_each(self, work: Callable[[int, _Side], Any]) -> tuple[Any, Any]:
        """`work` by both sides; the results, arrays inside them NumPy's."""
        found = [work(i, side) for i, side in enumerate(self._sides)]
        return found[0], found[1]

    def compare(self, call: Call, results: dict[str, tuple[Any, Any]],
                precise: Callable[[Sequence[Any], Any], dict[str, Any]]) -> None:
        """Compare what each side has for each result; `precise(arrays, dy)` gives the reference's.

        Raises _Departed, with the departure in the report, where they differ by more than rounding explains.
        """
        row = self._rows.get((call.layer, call.op))
        if row is None:
            row = self._rows[call.layer, call.op] = Row(call.layer, call.op)
            self.report.rows.append(row)
        row.calls += 1
        for name, pair in results.items():
            ours, theirs = (np.asarray(to_numpy(a)) for a in pair)
            itemsize = min(ours.dtype.itemsize, theirs.dtype.itemsize)
            error = worst(ours.astype(np.float64), theirs.astype(np.float64))[0]
            if error <= (ROUNDING[itemsize] if ours.dtype.kind == "f" else 0):
                row.error = max(row.error, error)
            else:
                self._judge(call, name, ours, theirs, precise)
                row.explained += 1

    def _judge(self, call: Call, name: str, ours: np.ndarray, theirs: np.ndarray, precise: Any) -> None:
        """Whether rounding explains a difference after all."""
        wide = [_wide(a) for a in call.arrays]
        truth = np.asarray(precise([_copy(a) for a in wide], _wide(call.dy))[name], np.float64)
        largest = float(np.max(np.abs(truth), initial=0.0)) or 1.0
        units = ULPS * float(np.finfo(ours.dtype).eps if ours.dtype.kind == "f" else 0)
        rng, spread = np.random.default_rng(0), np.zeros(truth.shape)
        for _ in range(SHAKES):
            shaken = precise([_shaken(a, units, rng) for a in wide], _shaken(_wide(call.dy), units, rng))[name]
            spread = np.maximum(spread, np.abs(shaken - truth))
        allowed = (ROUNDING[ours.dtype.itemsize] if ours.dtype.kind == "f" else 0) * largest + 4 * spread
        finite = np.isfinite(ours) & np.isfinite(theirs)
        distance = np.where(finite, np.abs(np.where(finite, ours, 0.0) - np.where(finite, theirs, 0.0)), np.inf)
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        beyond = np.where(same, -np.inf, distance - allowed)
        index = np.unravel_index(int(np.argmax(beyond)), beyond.shape)
        if beyond[index] > 0:
            call = Call(call.op, call.step, call.layer, tuple(_copy(a) for a in call.arrays), call.options,
                        _copy(call.dy))
            self.report.departure = Departure(
                call, name, tuple(map(int, index)), (float(ours[index]), float(theirs[index]), float(truth[index])),
                float(distance[index]) / largest, float(allowed[index]) / largest)
            raise _Departed


class _Pair:
    """Stands for the module of an op: runs both, compares, goes on with the first's results."""

    def __init__(self, both: _Both, op: str, modules: Sequence[Any]) -> None:
        self._both, self._op, self._modules = both, op, modules
        self._reference: Any = backend.module("reference", op)
        if hasattr(modules[0], "statistics"):
            self.statistics = lambda cache: _mapped(to_numpy, list(modules[0].statistics(cache[0][0])))

    def forward(self, *arrays: Array | None, **options: Any) -> tuple[Array, Any]:
        found = self._both.on_each(lambda i, side: self._modules[i].forward(*side.take(arrays), **options))
        sides = [self._results(module, *passed) for module, passed in zip(self._modules, found, strict=True)]
        self._both.compare(
            self._both.call(self._op, arrays, options), {name: (a, sides[1][name]) for name, a in sides[0].items()},
            lambda wide, _: self._results(self._reference, *self._reference.forward(*wide, **options)))
        return sides[0]["y"], ((found[0][1], found[1][1]), arrays, options)

    def _results(self, module: Any, y: Array, cache: Any) -> dict[str, Array]:
        """All that a forward pass gives: y, and what goes into running averages."""
        moments = _arrays(list(module.statistics(cache))) if hasattr(self, "statistics") else []
        return {"y": to_numpy(y)} | {f"{('mean', 'var')[i % 2]} {i // 2}": a for i, a in enumerate(moments)}

    def backward(self, dy: Array, cache: Any, needs: Any = None) -> tuple[Array | None, ...]:
        caches, arrays, options = cache
        names = backend.arguments(self._op)
        found = self._both.on_each(lambda i, side: self._modules[i].backward(side.take(dy), caches[i], needs))

        def precise(wide: Sequence[Any], wide_dy: Any) -> dict[str, Any]:
            gradients = self._reference.backward(wide_dy, self._reference.forward(*wide, **options)[1], needs)
            return {f"d{name}": g for name, g in zip(names, gradients, strict=False) if g is not None}

        self._both.compare(self._both.call(self._op, arrays, options, dy),
                           {f"d{name}": pair for name, pair in zip(names, zip(*found, strict=True), strict=False)
                            if pair[0] is not None}, precise)
        return tuple(None if g is None else to_numpy(g) for g in found[0])


class _Function:
    """Stands for the module of a function, which may change the arrays that it is given."""

    def __init__(self, both: _Both, op: str, modules: Sequence[Any]) -> None:
        self._both, self._op, self._modules = both, op, modules
        self._reference: Any = backend.module("reference", op)
        if hasattr(modules[0], "supports"):
            self.supports = modules[0].supports

    def run(self, *arrays: Array | None, **options: Any) -> Any:
        before = tuple(_copy(a) for a in arrays)
        names = backend.arguments(self._op)
        given: list[Any] = [None, None]

        def work(i: int, side: _Side) -> Any:
            given[i] = side.take([_copy(a) for a in before])
            return self._modules[i].run(*given[i], **options)

        found = self._both.on_each(work)

        def results(returned: Any, after: Sequence[Any]) -> dict[str, Any]:
            there = {name: a for name, a, b in zip(names, after, before, strict=False) if b is not None}
            return there | {f"result {i}" if i else "the result": a for i, a in enumerate(_arrays(returned))}

        def precise(wide: Sequence[Any], _: Any) -> dict[str, Any]:
            returned = self._reference.run(*wide, **options)
            return results(returned, wide)

        sides = [results(found[i], given[i]) for i in range(2)]
        self._both.compare(self._both.call(self._op, before, options),
                           {name: (a, sides[1][name]) for name, a in sides[0].items()}, precise)
        for a, changed in zip(arrays, given[0], strict=True):
            if a is not None:
                a[...] = to_numpy(changed)
        return _mapped(to_numpy, found[0])


def _mapped(change: Callable[[Array], Array], thing: Any) -> Any:
    """`thing` with `change` made to every array in it, through tuples and lists."""
    if isinstance(thing, (tuple, list)):
        return type(thing)(*(_mapped(change, e) for e in thing)) if hasattr(thing, "_fields") else type(thing)(
            _mapped(change, e) for e in thing)
    return change(thing) if hasattr(thing, "dtype") and hasattr(thing, "shape") else thing


def _arrays(thing: Any) -> list[Array]:
    if isinstance(thing, (tuple, list)):
        return [a for e in thing for a in _arrays(e)]
    return [thing] if hasattr(thing, "dtype") else []


def _copy(a: Any) -> Any:
    return a.copy() if hasattr(a, "dtype") else a


def _wide(a: Any) -> Any:
    floats = hasattr(a, "dtype") and a.dtype.kind not in "iub"
    return np.asarray(to_numpy(a)).astype(np.float64) if floats else a


def _shaken(a: Any, units: float, rng: np.random.Generator) -> Any:
    if not hasattr(a, "dtype") or a.dtype.kind != "f":
        return _copy(a)
    # By the typical entry too: a sum's rounding depends on all of its terms, however small one of them is.
    size = np.abs(a) + np.sqrt(np.mean(a * a)) if a.size else a
    return a + units * size * rng.uniform(-1, 1, a.shape)
