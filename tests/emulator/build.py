"""Compiles the emulator, and kernels for it, by g++ into shared libraries in the cache."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from fastnet.kernels.cuda import _launch, _nvrtc
from fastnet.paths import cache_folder

HERE = Path(__file__).parent
# -g1 for the lines of faults, which need no more; no contraction of products and sums, as nothing says where it occurs.
FLAGS = ("-O2", "-g1", "-std=c++17", "-fPIC", "-shared", "-fno-strict-aliasing", "-ffp-contract=off", "-Wall",
         "-Werror", "-DFN_EMU")


class Launch(ctypes.Structure):
    """How `fn_launch` of emulator.cpp runs a kernel, and what it reports of a fault."""

    _fields_ = [("grid", ctypes.c_uint * 3), ("threads", ctypes.c_uint * 3), ("seed", ctypes.c_uint),
                ("copies", ctypes.c_uint), ("shared", ctypes.c_ulong), ("fault_address", ctypes.c_void_p),
                ("fault_at", ctypes.c_void_p)]


@functools.cache
def emulator() -> ctypes.CDLL:
    """The scheduler and the memory."""
    text = (HERE / "emulator.cpp").read_text()
    # Global, because the kernels' libraries look for its functions.
    library = ctypes.CDLL(str(built("emulator", text, "float", _launch.FOLDER)), mode=ctypes.RTLD_GLOBAL)
    library.fn_launch.restype = ctypes.c_char_p
    library.fn_allocate.restype = library.fn_overrun.restype = ctypes.c_void_p
    library.fn_allocate.argtypes, library.fn_free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    return library


@functools.cache
def kernels(source: Path, storage: str) -> ctypes.CDLL:
    """The kernels of a source for a storage type; `call_NAME(void** arguments)` runs one thread of kernel NAME."""
    emulator()
    text = f'#include "{source.name}"\n'
    for name, declaration in _launch.declarations(source).items():
        arguments = ", ".join(f"*static_cast<{p.type}*{'*' * p.pointer}>(arguments[{i}])"
                              for i, p in enumerate(declaration.parameters))
        text += f'extern "C" void call_{name}(void** arguments) {{ {name}({arguments}); }}\n'
    return ctypes.CDLL(str(built(f"{source.stem}-{storage}", text, storage, source.parent)))


def built(name: str, text: str, storage: str, folder: Path) -> Path:
    """The library made of a C++ text that may include sources of `folder`, compiled where it is not in the cache."""
    options = [*FLAGS, f"-DFN_T={storage}", f"-I{folder}", f"-I{_launch.FOLDER}", f"-I{HERE}"]
    included = [p.read_text() for p in [*HERE.glob("*.h"), *folder.glob("*.cu")] if p.suffix == ".h" or p.name in text]
    digest = hashlib.sha256(repr((text, FLAGS, storage, _nvrtc.headers(), included)).encode())
    place = cache_folder() / "emulator"
    path = place / f"{name}-{digest.hexdigest()[:16]}.so"
    if not path.exists():
        if shutil.which("g++") is None:
            pytest.skip("no g++, which compiles the emulator")
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place) as work:
            made = Path(work) / "made.so"
            done = subprocess.run(["g++", *options, "-x", "c++", "-", "-o", made], input=text, capture_output=True,
                                  text=True)
            if done.returncode:
                raise RuntimeError(f"{name} does not compile for the emulator:\n{done.stderr}")
            os.replace(made, path)
    return path


def line_of(library: ctypes.CDLL, address: int) -> str:
    """`file.cu:12` for an instruction of a library, "" where it is none of a kernel."""
    base = next((int(row.split("-")[0], 16) for row in Path("/proc/self/maps").read_text().splitlines()
                 if row.endswith(library._name)), None)
    if base is None or not 0 <= address - base < Path(library._name).stat().st_size:
        return ""
    done = subprocess.run(["addr2line", "-i", "-e", library._name, hex(address - base)], capture_output=True, text=True)
    # The innermost inlined call first.
    return " called at ".join(row.rpartition("/")[2].partition(" ")[0] for row in done.stdout.splitlines()
                              if ".cu" in row)
