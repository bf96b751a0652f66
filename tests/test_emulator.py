"""The emulator of CUDA: its words mean what CUDA's manual says, and it notices every mistake that a kernel can make.

The tests of words run on a card too, where there is one: there they test the emulator.
"""

import ctypes
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from emulator import build, engine
from emulator.arrays import NAMESPACE, EmulatedArray, emulated, watched
from emulator.engine import COPIES, EmulationError, schedule
from strict_arrays import strict

from fastnet import backend
from fastnet.arrays import array_module, to_numpy
from fastnet.kernels.cuda import _launch
from fastnet.kernels.cuda._launch import Kernel

engine.install()
HERE = Path(__file__).parent / "emulator"
ml_dtypes = pytest.importorskip("ml_dtypes")
TYPES = {"float": np.float32, "double": np.float64, "half": np.float16, "bf16": ml_dtypes.bfloat16}


def kernel(name, source="faults"):
    return Kernel(str(HERE / source), name)


def on(library, x):
    if library == "emulated":
        return emulated(x)
    cupy = pytest.importorskip("cupy", reason="no GPU")
    return cupy.asarray(x)


on_every_library = pytest.mark.parametrize("library", [
    "emulated", pytest.param("cupy", marks=pytest.mark.skipif(not importlib.util.find_spec("cupy"), reason="no GPU"))])
on_every_type = pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
in_16_bits = pytest.mark.parametrize("dtype", [TYPES["half"], TYPES["bf16"]], ids=["half", "bf16"])


# What the words mean.


@on_every_library
@on_every_type
def test_exchanges(library, dtype):
    x = np.random.default_rng(0).integers(-9, 9, 32).astype(dtype)
    out = on(library, np.full((7, 32), np.nan, _launch.accumulator(dtype)))
    kernel("exchanges", "words")(1, on(library, x), out)
    lanes, v = np.arange(32), x.astype(np.float64)
    ballot = sum(1 << i for i in range(32) if v[i] > 0) >> 8
    expected = [v[lanes ^ 5], np.where(lanes < 29, v[np.minimum(lanes + 3, 31)], v), np.full(32, v[7]),
                np.full(32, ballot), np.full(32, v.sum()), np.full(32, v.max()), np.ones(32)]
    np.testing.assert_array_equal(to_numpy(out), np.asarray(expected, out.dtype))


@on_every_library
def test_a_maximum_keeps_nan(library):
    x = np.zeros(32, np.float32)
    x[9] = np.nan
    out = on(library, np.zeros((7, 32), np.float32))
    kernel("exchanges", "words")(1, on(library, x), out)
    assert np.isnan(to_numpy(out)[5]).all()


@on_every_library
@in_16_bits
def test_every_number_of_16_bits(library, dtype):
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    wide, narrow = on(library, np.zeros(1 << 16, np.float32)), on(library, np.zeros(1 << 16, dtype))
    kernel("converted", "words")(3, on(library, x), wide, narrow, x.size)
    np.testing.assert_array_equal(to_numpy(wide), x.astype(np.float32))
    np.testing.assert_array_equal(to_numpy(narrow).astype(np.float32), x.astype(np.float32))


@on_every_library
@in_16_bits
def test_rounding_to_16_bits(library, dtype):
    """To the nearest, ties to even, as NumPy does it: halfway points, their neighbours, overflow, tiny numbers."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, 20000, dtype=np.uint32)
    bits[::2] &= np.uint32(0xffff8000 if dtype == TYPES["bf16"] else 0xfffff000)
    edges = [0.0, -0.0, 65504, 65519.996, 65520, 1e30, np.inf, -np.inf, np.nan, 2**-24, 2**-25, 2**-25 * 1.01, 3e38]
    x = np.concatenate([bits.view(np.float32), np.float32(edges), np.exp2(np.arange(-30, 20, dtype=np.float32))])
    y = on(library, np.zeros(x.size, dtype))
    kernel("rounded", "words")(2, on(library, x), y, x.size)
    with np.errstate(all="ignore"):
        expected = x.astype(dtype)
    same = to_numpy(y).view(np.uint16) == expected.view(np.uint16)
    assert (same | np.isnan(x)).all()
    assert np.isnan(to_numpy(y)[np.isnan(x)].astype(np.float32)).all()


@on_every_library
@on_every_type
def test_asynchronous_copies(library, dtype):
    per_piece = 16 // np.dtype(dtype).itemsize
    x = np.arange(1, 128 * per_piece + 1).astype(dtype)
    for copies in COPIES:
        y = on(library, np.full(x.size, np.nan, dtype))
        with schedule(1, copies):
            kernel("copied", "words")(1, on(library, x), y, shared=128 * 16)
        expected = x.reshape(128, -1).copy()
        expected[1::2] = 0
        np.testing.assert_array_equal(to_numpy(y).reshape(128, -1), expected)


@on_every_library
@in_16_bits
def test_matrices(library, dtype):
    x = np.arange(256, dtype=np.uint16).view(dtype).reshape(32, 8)
    plain, transposed = (on(library, np.zeros((4, 32), np.uint32)) for _ in range(2))
    kernel("matrices", "tensor_words")(1, on(library, x), plain, transposed)
    four = x.view(np.uint16).reshape(4, 8, 8)
    for got, expected in ((plain, four), (transposed, four.transpose(0, 2, 1))):
        np.testing.assert_array_equal(to_numpy(got).view(np.uint16).reshape(4, 8, 8), expected)


@on_every_library
@in_16_bits
def test_products(library, dtype):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-4, 5, shape).astype(dtype) for shape in ((16, 16), (16, 8)))
    c = rng.integers(-9, 9, (16, 8)).astype(np.float32)
    result = on(library, c)
    kernel("multiplied", "tensor_words")(1, on(library, a), on(library, b), result)
    np.testing.assert_array_equal(to_numpy(result), a.astype(np.float64) @ b.astype(np.float64) + c)


# What must not be done.

SEEDS = range(12)


def line_of(text):
    return 1 + next(i for i, line in enumerate((HERE / "faults.cu").read_text().splitlines()) if text in line)


def outcomes(name, x, right, copies=tuple(COPIES)):
    """What a kernel does under many schedules: "right", "wrong" numbers, or the error."""
    found = []
    for seed in SEEDS:
        for how in copies:
            y = NAMESPACE.empty(x.shape, x.dtype)
            with schedule(seed, how):
                try:
                    kernel(name)(1, emulated(x), y, right)
                except EmulationError as error:
                    found.append(str(error))
                    continue
            expected = {"missing_barrier": x[::-1], "barrier_missed_late": x[::-1],
                        "missing_wait": x, "unfinished_copy": 0 * x,
                        "overwritten_too_early": x.reshape(2, 64, -1)[:, ::-1].reshape(-1) if x.size % 128 == 0 else x,
                        }.get(name)
            found.append("right" if expected is None or np.array_equal(y.get(), expected) else "wrong")
    return found


X128, X256 = np.arange(128, dtype=np.float32), np.arange(512, dtype=np.float32)


@pytest.mark.parametrize(("name", "x", "copies", "seen"), [
    ("missing_barrier", X128, ["late"], "wrong"),
    ("barrier_missed_late", X128, ["late"], "wrong"),
    ("missing_wait", X128, ["late"], "wrong"),
    ("unfinished_copy", X128[:32], ["late"], "ends while asynchronous copies are under way"),
    ("overwritten_too_early", X256, ["early"], "wrong"),
    ("divergent_shuffle", X128[:64], ["late"], "its threads do not meet: thread 0 has ended"),
    ("two_shuffles", X128[:32], ["late"], "the lanes of a warp diverge: this one is in shfl_xor at line"),
    ("divergent_barrier", X128[:64], ["late"],
     rf"do not meet: .*thread 0 waits in sync_threads at line {line_of('threadIdx.x < 40')} \(and 39 more"),
    ("two_barriers", X128[:64], ["late"], "thread 32 waits in sync_threads at line"),
])
def test_mistakes_are_seen(name, x, copies, seen):
    """Most schedules show it, and none objects to the right form."""
    found = outcomes(name, x, 0, copies)
    assert sum(bool(re.search(seen, outcome)) for outcome in found) > len(found) / 2
    assert all(outcome == "right" or re.search(seen, outcome) for outcome in found)
    assert set(outcomes(name, x, 1)) == {"right"}


@pytest.mark.parametrize(("size", "read", "written", "message"), [
    (8, 8, 0, r"touched at common.cuh:\d+ called at faults.cu:\d+.*: byte 32 of x, which has 32 \(seed"),
    (8, 0, 8, r"at faults.cu:\d+: byte 32 of y, which has 32"),
    (8, 0, 2000, r"at faults.cu:\d+: byte 8000 of y"),
    (7, 0, 7, "a store behind y"),
    (7, 0, -1, "a store before y"),
    (8, -100000, 0, r"at faults.cu:\d+: byte -400000 of x"),
])
def test_memory_outside_arrays(size, read, written, message):
    x, y = emulated(np.ones(size, np.float32)), emulated(np.ones(size, np.float32))
    with pytest.raises(EmulationError, match=message):
        kernel("touches")(1, x, y, read, written)
    kernel("touches")(1, x, y, size - 1, 0)  # and the next kernel is not blamed


def test_what_lies_behind_a_short_array_is_nan():
    y = emulated(np.ones(7, np.float32))
    kernel("touches")(1, emulated(np.ones(7, np.float32)), y, 7, 0)
    assert np.isnan(y.get()[0])


@pytest.mark.parametrize(("name", "arguments", "message"), [
    ("part_of_a_warp", ("x", "y"), "do not meet: .*thread 32 waits in shfl_xor at line"),
    ("shared_overrun", ("y", 32), r"a store outside the shared array 'tile' \(128 bytes\)"),
    ("shared_overrun", ("y", -1), "outside the shared array 'tile'"),
    ("dynamic_overrun", ("y", -1), r"outside the shared array 'tile' \(64 bytes\)"),
    ("dynamic_overrun", ("y", 0), r"outside the shared array 'tile' \(64 bytes\)"),
    ("misaligned", ("x", "y", 1), r"block \(0, 0, 0\), thread \d+: ld128 at line \d+ needs an address divisible by 16"),
    ("divided", ("y", 0), "an integer is divided by zero"),
    ("endless", ("y", 1000), "memory outside every array"),
    ("too_many_threads", ("y",), "a block has at most 1024 threads"),
])
def test_other_mistakes(name, arguments, message):
    arrays = {"x": emulated(np.ones(64, np.float32)), "y": emulated(np.ones(64, np.float32))}
    with pytest.raises(EmulationError, match=f"^{name}: .*{message}"):
        kernel(name)(1, *(arrays.get(a, a) for a in arguments), shared=64)
    kernel("divided")(1, arrays["y"], 7)  # and the next kernel runs
    assert arrays["y"].get()[0] == 1


def test_shared_memory_and_results_start_as_nan():
    y = emulated(np.ones(32, np.float32))
    kernel("shared_overrun")(1, y, 3)
    assert np.isnan(y.get()[4:]).all()
    for result in (NAMESPACE.empty((3, 5), np.float16), NAMESPACE.empty_like(y)):
        assert np.isnan(result.get()).all()


@pytest.mark.parametrize("at", [-1, 32, 40])
def test_what_lies_beside_shared_arrays_is_nan(at):
    y = emulated(np.ones(32, np.float32))
    kernel("reads_beside")(1, y, at)
    assert np.isnan(y.get()).all()
    kernel("reads_beside")(1, y, 31)
    assert not y.get().any()


def test_the_same_seed_repeats():
    runs = [outcomes("missing_barrier", X128, 0, ["random"]) for _ in range(2)]
    assert runs[0] == runs[1]


def test_two_shared_arrays_of_one_template():
    """One declaration, two instances: each has memory of its own."""
    out = emulated(np.zeros(32, np.float32))
    kernel("two_instances", "words")(1, out)
    np.testing.assert_array_equal(out.get(), np.arange(32) + 100 * np.arange(31, -1, -1))


# Emulated arrays.


def test_emulated_arrays_keep_to_themselves():
    x = emulated(np.arange(6.0).reshape(2, 3))
    assert array_module(x).__name__ == "emulated"
    for y in (x + 1, 1 - x, x.T, x[0], x @ x.T, x > 2, NAMESPACE.exp(x), NAMESPACE.zeros((2, 2)), x.astype("f"), -x,
              NAMESPACE.zeros_like(x), x.sum(), x.reshape(-1), NAMESPACE.where(x > 1, x, x), NAMESPACE.stack([x, x])):
        assert type(y) is EmulatedArray
    for other in (np.ones((2, 3)), strict(np.ones((2, 3)))):
        for mixed in (lambda other=other: x + other, lambda other=other: NAMESPACE.add(x, other)):
            with pytest.raises(TypeError):
                mixed()
    with pytest.raises(TypeError, match="but x is a emulated array"):
        backend.run("linear", x, strict(np.ones((3, 2))), None)
    assert "Emulated" in repr(x)


def test_results_are_watched():
    x = emulated(np.ones(5, np.float32)) + 1
    out = emulated(np.zeros(8, np.float32))
    with pytest.raises(EmulationError, match="behind y"):
        kernel("touches")(1, out, x, 0, 5)
    assert watched((0, 3), np.float32).shape == (0, 3)


def test_memory_is_given_back():
    count = Path("/proc/self/maps").read_text().count("\n")
    for _ in range(500):
        NAMESPACE.empty(10, np.float32)
    assert Path("/proc/self/maps").read_text().count("\n") < count + 100


def test_what_does_not_compile_says_so(tmp_path):
    (tmp_path / "broken.cu").write_text('#include "common.cuh"\nFN_KERNEL(32) broken(T* x) { x[0] = y; }\n')
    with pytest.raises(RuntimeError, match=r"(?s)broken-float does not compile .*broken.cu:2:37: error"):
        Kernel(str(tmp_path / "broken"), "broken")(1, emulated(np.ones(1, np.float32)))


def test_the_launch_structure_is_the_one_in_c():
    assert ctypes.sizeof(build.Launch) == 4 * 8 + 8 + 2 * 8


# The launcher.


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (lambda x, y: (x, y), TypeError, r"touches: 2 arguments are given, but it takes 4 \(x, y, read, written\)"),
    (lambda x, y: (x, y.astype(np.float64), 0, 0), TypeError, "touches: y is float64, but float32 is needed"),
    (lambda x, y: (x, y[::2], 0, 0), ValueError, r"touches: y \(16,\) is not contiguous \(strides \(8,\)\)"),
    (lambda x, y: (x, y.get(), 0, 0), TypeError, "touches: y is a ndarray, but an array beside others of type Emul"),
    (lambda x, y: (x, y, 0.5, 0), TypeError, "touches: read is 0.5, but a number of type int64 is needed"),
    (lambda x, y: (x, y, 2**63, 0), TypeError, "touches: read is 9223372036854775808, but a number of type int64"),
    (lambda x, y: (x, y, None, 0), TypeError, "touches: read is None"),
    (lambda x, y: (x, y, x, 0), TypeError, "touches: read is Emulated"),
    (lambda x, y: (None, None, 0, 0), TypeError, "touches: no array says which type T is"),
    (lambda x, y: (x.astype(int), y, 0, 0), TypeError, "touches: there are no kernels for int64"),
    (lambda x, y: (x.get(), y, 0, 0), TypeError, "touches: numpy arrays do not live on a GPU"),
    (lambda x, y: (1.0, y, 0, 0), TypeError, "an array is needed, got float"),
])
def test_arguments_are_held_against_the_declaration(arguments, error, message):
    x, y = (emulated(np.ones(32, np.float32)) for _ in range(2))
    with pytest.raises(error, match=message):
        kernel("touches")(1, *arguments(x, y))


def test_declarations(tmp_path):
    path = tmp_path / "some.cu"
    path.write_text("FN_KERNEL(64) f(const T* x, Acc eps,\n    uint8 *bytes) {}\nvoid g(wild x) {}\n"
                    "FN_KERNEL(32) h(const wild* y) {}\n")
    with pytest.raises(ValueError, match=r"some.cu: h has a parameter 'const wild\* y', but only pointers to and"):
        _launch.declarations(path)
    path = tmp_path / "other.cu"
    path.write_text("FN_KERNEL(64) f(const T* __restrict__ x, Acc eps,\n    uint8 *bytes) {}\n")
    assert _launch.declarations(path) == {"f": (64, (("x", "T", True), ("eps", "Acc", False),
                                                     ("bytes", "uint8", True)))}


def test_a_source_for_some_types_only():
    assert _launch.types(HERE / "words.cu") == tuple(TYPES)
    assert _launch.types(HERE / "tensor_words.cu") == ("half", "bf16")
    with pytest.raises(TypeError, match="multiplied: there are no kernels for float32"):
        kernel("multiplied", "tensor_words")(1, *(emulated(np.ones(256, np.float32)) for _ in range(3)))


def test_grids_are_bounded():
    forward = Kernel("relu", "relu_forward")
    assert [forward.grid_for(n) for n in (0, 1, 256, 257, 2**40)] == [1, 1, 1, 2, _launch.MOST_BLOCKS]
    assert forward.grid_for(2048, each=4) == 2
