"""Where a training step's time goes: seconds by op, shape and pass, beside what the machine could do at best.

Two floors stand beside each time. Arithmetic: the multiplications and additions of products with weights, at the rate
of a large matrix product. (Winograd's algorithm needs fewer and may be faster.) Memory: every array that has to be read
or written, once, at the rate of a copy. (What still lies in a cache may be faster.) A backward pass has to read dy and
what it has kept or, where that is less, the arguments; of a product only the other factor.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from fastnet import backend, shapes
from fastnet.nn.summary import align


class Part(NamedTuple):
    """One op and pass: seconds and calls a step, operations and bytes that its calls in one step need."""

    name: str
    seconds: float
    calls: int = 0
    operations: int = 0
    bytes: int = 0

    def floors(self, gemm: float, copy: float) -> tuple[float, float]:
        """Seconds at these rates, of operations and of bytes a second."""
        return self.operations / gemm, self.bytes / copy


BETWEEN, WHOLE = "between the ops", "the step"


def profile(step: Callable[[], object], seconds: float = 1.0, least: int = 3) -> list[Part]:
    """The parts of a step, the longest first; the last two are the rest and the whole.

    Steps are taken for so many seconds, at least `least` and at most 50; two before are not counted. The faster half
    of them is averaged: what else the machine did then has the least share in it.
    """
    watch = Watch()
    with backend.observed(watch.around):
        step()
        watch.forget()
        started = time.perf_counter()
        step()
        steps = min(50, max(least, int(seconds / (time.perf_counter() - started))))
        taken = []
        for _ in range(steps):
            watch.forget()
            started = time.perf_counter()
            step()
            taken.append((time.perf_counter() - started, watch.seconds))
    fast = sorted(taken, key=lambda one: one[0])[: (steps + 1) // 2]
    whole = sum(seconds for seconds, _ in fast) / len(fast)
    parts = [Part(name, sum(seconds[name] for _, seconds in fast) / len(fast), calls, *watch.needed[name])
             for name, calls in watch.calls.items()]
    parts.sort(key=lambda part: -part.seconds)
    return [*parts, Part(BETWEEN, whole - sum(part.seconds for part in parts)),
            Part(WHOLE, whole, 0, sum(part.operations for part in parts), sum(part.bytes for part in parts))]


def needed(call: Callable[[], object]) -> tuple[int, int]:
    """The operations and bytes that the ops and functions which `call` runs need."""
    watch = Watch()
    with backend.observed(watch.around):
        call()
    operations, nbytes = zip(*watch.needed.values(), strict=True)
    return sum(operations), sum(nbytes)


def table(parts: Sequence[Part], gemm: float, copy: float) -> str:
    """The parts as text, beside their floors at these rates."""
    whole = parts[-1].seconds
    rows: list[tuple[str, ...]] = [("op", "ms", "calls", "of the step", "arithmetic, ms", "memory, ms",
                                     "floor / time")]
    for part in parts:
        floors = part.floors(gemm, copy)
        row = (part.name, f"{1e3 * part.seconds:.3f}", str(part.calls or ""), f"{part.seconds / whole:.1%}")
        rows.append((*row, *(f"{1e3 * floor:.3f}" for floor in floors), f"{max(floors) / part.seconds:.0%}")
                    if max(floors) else (*row, "", "", ""))
    return align(rows, right=tuple(range(1, 7)))


class Watch:
    """An observer of `backend`: the modules that run are timed, by `timed`, and what they need goes to `need`."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.needed: dict[str, tuple[int, int]] = {}  # operations and bytes

    def around(self, name: str, module: Any, arrays: tuple[Any, ...], options: dict[str, Any]) -> Any:
        given = dict(zip(backend.arguments(name), arrays, strict=False))
        x, weights = arrays[0], [given[key] for key in ("w", "w1", "w2") if key in given]
        w = weights[0] if weights else None
        label = " ".join(filter(None, [name, _size(x.shape[1:]), *([] if w is None else [_size(w.shape[:-2]),
                                                                                        str(w.shape[-1])]),
                                       module.algorithm(*arrays, **options) if hasattr(module, "algorithm") else ""]))
        layers = options.get("layers", ())
        # Of a vector of all parameters only those of the layers are read, and only their gradients written.
        idle = given["vector"].nbytes - x.itemsize * sum(
            layer.outputs * (layer.features + (layer.b >= 0)) + 2 * layer.features * (layer.gamma >= 0)
            for layer in layers) if layers else 0
        # Of a data set only the images of the batch.
        others = given["images"].nbytes // len(x) * (len(x) - len(given["indices"])) if "images" in given else 0
        read = sum(_bytes(a) for a in arrays) - idle - others
        products = 0
        behind = 0  # of these the products behind the first one

        def forward(*arrays: Any, **options: Any) -> Any:
            nonlocal products, behind
            y, cache = self.timed(f"{label} forward", module.forward, *arrays, **options)
            each = [2 * _outputs(name, x, w, y, options) * w.size // w.shape[-1] for w in weights]
            products, behind = sum(each), sum(each[1:])
            products += sum(2 * len(x) * layer.features * layer.outputs for layer in layers)
            self.need(f"{label} forward", products, read + y.nbytes)
            return y, cache

        def backward(dy: Any, cache: Any, needs: Any = None, into: Any = None) -> Any:
            back, more = (module.backward, ()) if into is None else (module.backward_into, (into,))
            needs = needs or (True,) * len(given)
            if name != "conv2d":
                gradients = self.timed(f"{label} backward", back, dy, cache, needs, *more)
                factors = sum(bool(need) for key, need in zip(given, needs, strict=False)
                              if key in ("x", "w", "w1", "vector"))
                self.need(f"{label} backward", factors * (products - behind) + 2 * behind,
                           _bytes(dy) + _bytes(gradients) - idle + min(read, _bytes(cache)))
                return gradients
            found: list[Any] = []  # one gradient at a time, to tell them apart
            for i, (key, other) in enumerate((("x", w), ("w", x), ("b", None))):
                found.append(None)
                if needs[i]:
                    alone = tuple(j == i for j in range(3))
                    found[i] = self.timed(f"{label} d{key}", back, dy, cache, alone, *more)[i]
                    self.need(f"{label} d{key}", 0 if other is None else products,
                               _bytes(dy) + _bytes(found[i]) + _bytes(other))
            return tuple(found)

        def run(*arrays: Any, **options: Any) -> Any:
            found = self.timed(f"{label} run", module.run, *arrays, **options)
            products = [2 * len(x) * layer.features * layer.outputs for layer in layers]
            operations = 3 * sum(products) - sum(products[:1])  # both ways, without dx of the first
            self.need(f"{label} run", operations, read + _bytes(found))
            return found

        def step(*arrays: Any, **options: Any) -> Any:
            found = self.timed(f"{label} both ways", module.step, *arrays, **options)
            operations = 3 * 2 * _outputs(name, x, w, None, options) * w.size // w.shape[-1]
            self.need(f"{label} both ways", operations, read + _bytes(found))
            return found

        public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        replaced = {"forward": forward, "backward": backward, "backward_into": backward, "run": run, "step": step}
        return SimpleNamespace(**public | {key: replaced[key] for key in replaced.keys() & public.keys()})

    def timed(self, name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        found = function(*arguments, **options)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        self.calls[name] = self.calls.get(name, 0) + 1
        return found

    def need(self, name: str, operations: int, nbytes: int) -> None:
        before = self.needed.get(name, (0, 0))
        self.needed[name] = (before[0] + operations, before[1] + nbytes)


def _outputs(name: str, x: Any, w: Any, y: Any, options: Mapping[str, Any]) -> int:
    """The outputs of the product with w: those of the op, but for one with pooling or a loss behind the product."""
    if name == "pooled_softmax_cross_entropy":
        return len(x) * w.shape[-1]
    if name != "conv2d_relu_max_pool2d":
        return y.size
    spacing = [shapes.pair(name, key, options.get(key, otherwise), otherwise)
               for key, otherwise in (("stride", 1), ("pad", 0), ("dilation", 1))]
    rows, columns = shapes.windows(name, x.shape[1:3], w.shape[:2], *spacing)
    return len(x) * rows.places * columns.places * w.shape[-1]


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _bytes(thing: Any) -> int:
    """Of all arrays in it."""
    if isinstance(thing, (tuple, list)):
        return sum(map(_bytes, thing))
    return getattr(thing, "nbytes", 0)
