"""Compilation by NVRTC, CUDA's compiler as a library: from a source and a storage type to a cubin, on disk once."""

import functools
import hashlib
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from fastnet.paths import cache_folder, writable

# No fast-math. Without a note a function is one of the device.
OPTIONS = ("-std=c++17", "-default-device", "--ptxas-options=-v")


class Compiled(NamedTuple):
    """Machine code, and what the compiler said: registers, spills, warnings."""

    cubin: bytes
    log: str


def architecture(capability: str) -> str:
    """The target for a compute capability as CuPy writes it ("90"): sm_90a has what only this very card can do."""
    return f"sm_{capability}a" if capability == "90" else f"sm_{capability}"


def headers() -> dict[str, str]:
    """The headers that sources may include: name -> text."""
    return {path.name: path.read_text() for path in sorted(Path(__file__).parent.glob("*.cuh"))}


def compiled(source: Path, storage: str, arch: str) -> Compiled:
    """Compile for a storage type (its C name) and a target. Raises RuntimeError with the compiler's words."""
    nvrtc = _nvrtc()
    given = headers()
    program = _checked(nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), len(given),
                                                [text.encode() for text in given.values()],
                                                [name.encode() for name in given]))
    options = [option.encode() for option in (*OPTIONS, f"-arch={arch}", f"-DFN_T={storage}")]
    failed, = nvrtc.nvrtcCompileProgram(program, len(options), options)
    log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).rstrip(b"\0 \n").decode()
    if failed:
        raise RuntimeError(f"{source.name} does not compile for {storage} and {arch}:\n{log}")
    return Compiled(_text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program), log)


@functools.cache
def folder() -> Path:
    """The folder of compiled kernels; a temporary one where the user's cache cannot be written."""
    return writable(cache_folder() / "cuda", "fastnet-cuda-")


def cached_cubin(source: Path, storage: str, arch: str) -> Path:
    """The file of the machine code in the cache, made where it is not there yet."""
    nvrtc = _nvrtc()
    digest = hashlib.sha256(repr((nvrtc.nvrtcVersion(), OPTIONS, storage, arch, source.name, source.read_text(),
                                  headers())).encode())
    path = folder() / f"{source.stem}-{storage}-{arch}-{digest.hexdigest()[:16]}.cubin"
    if not path.exists():
        # Another process may be writing the same one: each has its own file until it is whole.
        descriptor, temporary = tempfile.mkstemp(dir=folder())
        with open(descriptor, "wb") as file:
            file.write(compiled(source, storage, arch).cubin)
        os.replace(temporary, path)
    return path


def version() -> str:
    """Which compiler there is, or why there is none."""
    try:
        _, major, minor = _nvrtc().nvrtcVersion()
    except ImportError as error:
        return f"none: {error}"
    return f"NVRTC {major}.{minor}"


@functools.cache
def _nvrtc():
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()  # the library itself is looked for at the first call
    except (ImportError, RuntimeError) as error:
        raise ImportError(f"CUDA kernels are compiled by NVRTC, which is missing ({' '.join(str(error).split())}): "
                          "pip install 'fastnet[cuda12]' or 'fastnet[cuda13]'") from error
    return nvrtc


def _checked(result):
    status, value = result
    if status:
        raise RuntimeError(f"NVRTC: {status.name}")
    return value


def _text(size_of, read, program):
    text = b" " * _checked(size_of(program))
    read(program, text)
    return text
