"""The only dispatcher: it picks the implementation that runs an op or a function on given arrays.

An *op* is a module of `fastnet.ops` with `forward` and `backward`; a *function* is a module of
`fastnet.functions` with `run`. A kernel module of the same name may stand in for either; it says by
`supports(*arrays, **options)` which calls it takes. Whatever no kernel takes, malformed calls included, goes to
the reference, which is where arguments are checked; here only that they are arrays, and of one library.
"""

import contextlib
import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np

from fastnet.arrays import Array, array_module

IMPLEMENTATIONS = ("reference", "cpu", "cuda")
ORDER = {"numpy": ("cpu", "reference"), "cupy": ("cuda", "reference")}
_NEEDS = {"cpu": "numba"}  # the CUDA modules load CuPy when they meet its arrays, and support no others
_LOCAL_SHADOW = ("fastnet.kernels is missing: this copy of fastnet is incomplete. Inside a checkout, install it with "
                 "'pip install -e .' (a plain install is shadowed by the local fastnet/ folder)")

Gradients = Callable[..., tuple[Array, ...]]  # gradients(dy, needs=None, into=None)

Observer = Callable[[str, Any, tuple[Array | None, ...], dict[str, Any]], Any]  # (name, module, arrays, options)

_forced: ContextVar[str | None] = ContextVar("fastnet_backend", default=None)
_observer: ContextVar[Observer | None] = ContextVar("fastnet_observer", default=None)


@contextlib.contextmanager
def use(implementation: str) -> Iterator[None]:
    """Force one implementation (`reference`, `cpu` or `cuda`) for every op inside the block.

    Inside it a call which that implementation does not support raises ValueError instead of falling back.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"backend: {implementation!r} is not an implementation; choose from "
                         f"{', '.join(IMPLEMENTATIONS)}")
    token = _forced.set(implementation)
    try:
        yield
    finally:
        _forced.reset(token)


@contextlib.contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Inside the block every call runs what `observer(name, module, arrays, options)` returns in the module's place."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


@functools.cache
def module(implementation: str, name: str) -> ModuleType | None:
    """The module that implements op or function `name`, or None where that implementation has none.

    A kernel package that cannot be imported is a broken install and raises ImportError; Numba missing is not an
    error.
    """
    if implementation == "reference":
        for package in ("fastnet.ops", "fastnet.functions"):
            if importlib.util.find_spec(f"{package}.{name}"):
                return importlib.import_module(f"{package}.{name}")
        raise ValueError(f"backend: there is no op or function named {name!r}")
    if implementation in _NEEDS and importlib.util.find_spec(_NEEDS[implementation]) is None:
        return None
    if importlib.util.find_spec("fastnet.kernels") is None:
        raise ImportError(_LOCAL_SHADOW)
    qualified = f"fastnet.kernels.{implementation}.{name}"
    if importlib.util.find_spec(qualified) is None:
        return None
    return importlib.import_module(qualified)


def pair(name: str, *arrays: Array | None, **options: Any) -> Any:
    """The module that runs op or function `name` on these arrays and options.

    For NumPy arrays `cpu` then `reference`, for CuPy arrays `cuda` then `reference`: the first that exists and
    whose `supports` says yes. Raises ValueError where a forced implementation does not support the call, TypeError
    for what is no array, is missing, or comes from another library than the rest.
    """
    found, observer = _chosen(name, arrays, options), _observer.get()
    return found if observer is None else observer(name, found, arrays, options)


def _chosen(name: str, arrays: tuple[Array | None, ...], options: dict[str, Any]) -> Any:
    library = _library(name, arrays)
    forced = _forced.get()
    if forced is not None and forced != "reference":
        found = module(forced, name)
        if found is None or not found.supports(*arrays, **options):
            shapes = ", ".join("None" if a is None else f"{a.dtype}{tuple(a.shape)}" for a in arrays)
            raise ValueError(f"backend: {forced} does not support {name}({shapes})"
                             + (f" with {options}" if options else ""))
        return found
    if forced is None:
        for implementation in ORDER.get(library, ()):
            found = module(implementation, name)
            if found is not None and (implementation == "reference" or found.supports(*arrays, **options)):
                return found
    return module("reference", name)


def fusing(name: str, x: Array) -> list[Any]:
    """The kernels of op `name` for arrays like x that gain by running it rather than the ops it is made of.

    Which calls they gain by they say by `fuses(*arrays, **options)`, of those that they support. Inside `use` only that
    implementation counts.
    """
    forced = _forced.get()
    order = ORDER.get(array_module(x).__name__, ()) if forced is None else (forced,)
    return [found for found in (module(implementation, name) for implementation in order) if hasattr(found, "fuses")]


def fused(name: str, *arrays: Array | None, **options: Any) -> Any:
    """The first of `fusing` that gains by this call, or None."""
    found = next((found for found in fusing(name, arrays[0])
                  if found.supports(*arrays, **options) and found.fuses(*arrays, **options)), None)
    observer = _observer.get()
    return found if found is None or observer is None else observer(name, found, arrays, options)


def run(name: str, *arrays: Array | None, **options: Any) -> tuple[Array, Gradients]:
    """Run op `name` forward; return `y` and the callback that `callback` makes."""
    chosen = pair(name, *arrays, **options)
    y, cache = chosen.forward(*arrays, **options)
    return y, callback(name, chosen, y, cache)


def callback(name: str, chosen: Any, y: Array, cache: Any) -> Gradients:
    """From `dy` (and `needs`) to the gradients, one per array, after `y, cache = chosen.forward(...)` of op `name`.

    `gradients(dy, needs, into)` may be given memory for the gradients, an array or None for each. An implementation
    with a `backward_into(dy, cache, needs, into)` beside its `backward` writes them there, which saves a copy; what
    it returns is then that array itself. The others make new ones.

    It raises ValueError or TypeError for a dy that is not of y's shape and type (for a loss any number is fine): the
    kernels behind it trust their arguments.
    """
    shape, dtype = y.shape, y.dtype  # not y itself, which the closure would keep alive

    def gradients(dy: Array, needs: tuple[bool, ...] | None = None,
                  into: tuple[Array | None, ...] | None = None) -> tuple[Array | None, ...]:
        given = () if isinstance(dy, (int, float)) else getattr(dy, "shape", type(dy).__name__)
        if given != shape:
            raise ValueError(f"{name}: dy is {given}, but y is {shape}")
        if shape and dy.dtype != dtype:
            raise TypeError(f"{name}: dy is {dy.dtype}, but y is {dtype}")
        if into is not None and hasattr(chosen, "backward_into"):
            return chosen.backward_into(dy, cache, needs, into)
        return chosen.backward(dy, cache, needs)

    return gradients


def call(name: str, *arrays: Array | None, **options: Any) -> Any:
    """Run function `name` (an update, a transform, random numbers) by the implementation that takes it."""
    return pair(name, *arrays, **options).run(*arrays, **options)


def keep_books(name: str, *arrays: Array, **options: Any) -> Any:
    """`call` for a function of a few plain array operations: in main memory NumPy itself does them, whatever is forced.

    They have kernels for GPUs alone, where all of a step has to be kernels to be recorded (`fastnet.graphs`).
    """
    if array_module(arrays[0]) is np:
        return module("reference", name).run(*arrays, **options)  # type: ignore[union-attr]
    return call(name, *arrays, **options)


@contextlib.contextmanager
def on_compilation(callback: Callable[[str], None]) -> Iterator[None]:
    """Inside the block, call `callback(kernel name)` whenever a kernel has to be compiled (not read from the cache)."""
    if importlib.util.find_spec(_NEEDS["cpu"]) is None:
        yield
        return
    from numba.core import event

    class Listener(event.Listener):
        def on_start(self, event: Any) -> None:
            callback(event.data["dispatcher"].py_func.__name__)

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        yield


@functools.cache
def arguments(name: str) -> tuple[str, ...]:
    """The names of the arrays that op or function `name` takes."""
    return tuple(argument for argument, _ in _parameters(name))


@functools.cache
def _parameters(name: str) -> tuple[tuple[str, bool], ...]:
    """The array parameters of op or function `name`, and whether each has to be given."""
    reference: Any = module("reference", name)
    function = reference.forward if hasattr(reference, "forward") else reference.run
    return tuple((p.name, p.default is p.empty) for p in inspect.signature(function).parameters.values()
                 if p.kind is p.POSITIONAL_OR_KEYWORD)


def _library(name: str, arrays: tuple[Array | None, ...]) -> str:
    parameters = _parameters(name)
    if len(arrays) > len(parameters):
        raise TypeError(f"{name}: {len(arrays)} arrays are given, but it takes {len(parameters)} "
                        f"({', '.join(p for p, _ in parameters)})")
    if len(arrays) == len(parameters) and set(map(type, arrays)) == {np.ndarray}:
        return "numpy"  # nearly always, and found in a fraction of the time
    library, owner = "", ""
    for i, (argument, needed) in enumerate(parameters):
        x = arrays[i] if i < len(arrays) else None
        if x is None:
            if needed:
                raise TypeError(f"{name}: {argument} is missing")
            continue
        if isinstance(x, np.ndarray):
            found = "numpy"
        elif hasattr(x, "dtype"):
            found = array_module(x).__name__
        else:
            raise TypeError(f"{name}: {argument} is a {type(x).__name__}, but an array is needed")
        if library and found != library:
            raise TypeError(f"{name}: {argument} is a {found} array, but {owner} is a {library} array")
        library, owner = found, argument
    return library
