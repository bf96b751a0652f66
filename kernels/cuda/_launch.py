"""The launcher: a kernel is named once, and called like a function with its grid and its arguments.

    forward_kernel = Kernel("relu", "relu_forward")            # in relu.cu, beside this file
    forward_kernel(forward_kernel.grid_for(x.size), x, y, x.size)

The declaration in the source says how many threads a block has and which types the parameters have, and each argument
is held against it: CUDA itself would read any bits as anything. Nothing is allocated here. Who compiles and runs the
kernel is the *engine* of the arrays' library.
"""

import functools
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastnet.arrays import Array, accumulator, array_module

FOLDER = Path(__file__).parent
STORAGE = {"float32": "float", "float64": "double", "float16": "half", "bfloat16": "bf16"}  # NumPy's name -> C's
NUMBERS = {"float": np.float32, "double": np.float64, "int": np.int32, "int8": np.int8, "uint8": np.uint8,
           "uint32": np.uint32, "int64": np.int64, "uint64": np.uint64}
MOST_BLOCKS = 2048  # about twice what fits on the largest card; the loops of the kernels do the rest
WARP = 32

# engine(source, name, storage) -> function(grid, threads, arguments, shared): `arguments` are arrays, None or NumPy
# scalars, `storage` the C name of T.
ENGINES: dict[str, Callable[[Path, str, str], Callable]] = {}


class Parameter(NamedTuple):
    """One parameter of a kernel: the C name of its type without `const`, and whether it is a pointer to such."""

    name: str
    type: str
    pointer: bool


class Declaration(NamedTuple):
    """What the source says about a kernel."""

    threads: int
    parameters: tuple[Parameter, ...]


@functools.cache
def declarations(source: Path) -> dict[str, Declaration]:
    """The kernels of a source, in its order. Raises ValueError for a parameter of a type that is not known here."""
    found = {}
    for threads, name, listed in re.findall(r"^FN_KERNEL\((\d+)\)\s+(\w+)\(([^)]*)\)", source.read_text(), re.M):
        parameters = []
        for text in listed.split(","):
            match = re.fullmatch(r"\s*(?:const\s+)?(\w+)\s*(\*?)\s*(?:__restrict__\s+)?(\w+)\s*", text)
            if not match or match[1] not in {"T", "Acc", *NUMBERS}:
                raise ValueError(f"{source.name}: {name} has a parameter '{text.strip()}', but only pointers to and "
                                 f"values of T, Acc, {', '.join(NUMBERS)} can be passed")
            parameters.append(Parameter(match[3], match[1], bool(match[2])))
        found[name] = Declaration(int(threads), tuple(parameters))
    return found


@functools.cache
def types(source: Path) -> tuple[str, ...]:
    """The C names of the storage types that a source is written for: all, or those of its FN_TYPES."""
    named = re.search(r"^FN_TYPES\(([^)]*)\)", source.read_text(), re.M)
    return tuple(re.findall(r"\w+", named[1])) if named else tuple(STORAGE.values())


@functools.cache
def storage(dtype: Any) -> str | None:
    """The C name of the storage type T that holds numbers of `dtype`, None for others."""
    return STORAGE.get(np.dtype(dtype).name)


def blocks(items: int, each: int = 1) -> int:
    """How many blocks for `items`, of which one handles `each` at a time: never more than are useful."""
    return max(1, min(MOST_BLOCKS, -(-items // each)))


class Kernel:
    """A kernel of the source `stem`.cu in this folder; one that mentions neither T nor Acc is compiled for float."""

    def __init__(self, stem: str, name: str) -> None:
        self._source, self._name = FOLDER / f"{stem}.cu", name
        self._ready: dict[tuple[str, np.dtype], tuple[Callable, list]] = {}

    @functools.cached_property
    def declaration(self) -> Declaration:
        return declarations(self._source)[self._name]

    @functools.cached_property
    def _typed(self) -> bool:
        return any(p.type in ("T", "Acc") for p in self.declaration.parameters)

    def grid_for(self, size: int, each: int = 1) -> int:
        """How many blocks for `size` items, of which a thread handles `each` at a time."""
        return blocks(size, each * self.declaration.threads)

    def __call__(self, grid: int | tuple[int, ...], *arguments: Any, shared: int = 0) -> None:
        """Run on `grid` blocks (x, or up to three dimensions) with `shared` bytes of dynamic shared memory.

        Raises TypeError or ValueError for an argument that the declaration does not admit. None is a null pointer.
        """
        parameters = self.declaration.parameters
        if len(arguments) != len(parameters):
            raise TypeError(f"{self._name}: {len(arguments)} arguments are given, but it takes {len(parameters)} "
                            f"({', '.join(p.name for p in parameters)})")
        first = next((a for a, p in zip(arguments, parameters, strict=True)
                      if p.pointer and a is not None and (p.type == "T" or not self._typed)), None)
        if first is None:
            raise TypeError(f"{self._name}: no array says which type T is")
        key = array_module(first).__name__, first.dtype if self._typed else np.dtype(np.float32)
        if key not in self._ready:
            self._ready[key] = self._prepared(*key)
        function, dtypes = self._ready[key]
        passed = [self._pointer(a, p, t, type(first)) if p.pointer else self._number(a, p, t)
                  for a, p, t in zip(arguments, parameters, dtypes, strict=True)]
        dimensions = (grid,) if isinstance(grid, int) else grid
        function((*dimensions, 1, 1)[:3], self.declaration.threads, passed, shared)

    def _prepared(self, library, dtype):
        if library not in ENGINES:
            raise TypeError(f"{self._name}: {library} arrays do not live on a GPU")
        held = storage(dtype)
        if held not in types(self._source):
            raise TypeError(f"{self._name}: there are no kernels for {dtype}")
        numbers = {**NUMBERS, "T": dtype, "Acc": accumulator(dtype)}
        return (ENGINES[library](self._source, self._name, held),
                [np.dtype(numbers[p.type]) for p in self.declaration.parameters])

    def _pointer(self, x: Array | None, parameter: Parameter, dtype: np.dtype, kind: type) -> Array | None:
        if x is None:
            return None
        if type(x) is not kind:
            raise TypeError(f"{self._name}: {parameter.name} is a {type(x).__name__}, but an array beside others of "
                            f"type {kind.__name__} is needed")
        if x.dtype != dtype:
            raise TypeError(f"{self._name}: {parameter.name} is {x.dtype}, but {dtype} is needed")
        if not x.flags.c_contiguous:
            raise ValueError(f"{self._name}: {parameter.name} {tuple(x.shape)} is not contiguous (strides {x.strides})")
        return x

    def _number(self, x: Any, parameter: Parameter, dtype: np.dtype) -> Any:
        try:
            # index() refuses what is no whole number, and NumPy what does not fit.
            return dtype.type(operator.index(x) if dtype.kind in "iu" else float(x))
        except (TypeError, OverflowError) as error:
            raise TypeError(f"{self._name}: {parameter.name} is {x!r}, but a number of type {dtype} is needed "
                            f"({error})") from None


def cupy_engine(source: Path, name: str, storage: str) -> Callable:
    """Compiles with NVRTC for the card that is there, and launches on CuPy's current stream."""
    import cupy

    from fastnet.kernels.cuda._nvrtc import architecture, cached_cubin

    arch = architecture(cupy.cuda.Device().compute_capability)
    # By a file: CuPy's own compilation adds -arch=sm_90, which lacks the instructions of sm_90a.
    raw = cupy.RawModule(path=str(cached_cubin(source, storage, arch))).get_function(name)

    def function(grid: tuple[int, ...], threads: int, arguments: list, shared: int) -> None:
        if shared > raw.max_dynamic_shared_size_bytes:
            raw.max_dynamic_shared_size_bytes = shared
        raw(grid, (threads,), [np.uintp(0) if a is None else a for a in arguments], shared_mem=shared)

    return function


ENGINES["cupy"] = cupy_engine
