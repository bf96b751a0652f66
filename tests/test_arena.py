"""The arena: large arrays find memory that was used before, and no two of them the same."""

import gc
import itertools
import mmap
import resource
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from tiny import fit

import fastnet as fn
from fastnet import arena, arrays
from fastnet.arena import Arena

PAGE = mmap.PAGESIZE
MIB = 2**20


def take(memory, nbytes):
    return memory.empty(nbytes, np.dtype(np.uint8), nbytes)


@pytest.fixture
def own(monkeypatch):
    """An arena for one test, which the library uses."""
    memory = Arena(1024 * MIB)
    monkeypatch.setattr(arrays, "arena", lambda: memory)
    return memory


def start(array):
    return array.ctypes.data


def test_an_array_is_one_like_any_other():
    memory = Arena(MIB)
    x = memory.empty((3, 5, 7), np.dtype(np.float64), 840)
    x[...] = np.arange(105).reshape(3, 5, 7)
    assert start(x) % PAGE == 0 and x.flags.c_contiguous and x.flags.writeable
    assert x.shape == (3, 5, 7) and x.dtype == np.float64 and x.sum() == 105 * 52
    assert memory.in_use == memory.extent == PAGE


@pytest.mark.parametrize("view", [
    lambda x: x[1:], lambda x: x.reshape(2, -1)[1].T, lambda x: x.view(np.float32)[3:], memoryview, np.from_dlpack,
    lambda x: np.lib.stride_tricks.as_strided(x, (2,), (8,)), lambda x: x.ctypes, lambda x: [x]])
def test_memory_is_free_with_the_last_view(view):
    memory = Arena(MIB)
    x = take(memory, 2 * PAGE)
    first, held = start(x), view(x)
    del x
    other = take(memory, 2 * PAGE)
    assert start(other) == first + 2 * PAGE and memory.in_use == 4 * PAGE
    del held, other
    assert memory.in_use == 0 and start(take(memory, 2 * PAGE)) == first


def test_free_neighbours_are_joined_and_the_smallest_range_that_fits_is_taken():
    memory = Arena(64 * PAGE)
    parts = [take(memory, size * PAGE) for size in (3, 1, 2, 1, 5, 1)]
    base = start(parts[0])
    places = [(start(x) - base) // PAGE for x in parts]
    assert places == [0, 3, 4, 6, 7, 12]
    for i in (0, 2, 4):
        parts[i] = None
    assert (start(take(memory, 2 * PAGE)) - base) // PAGE == 4  # not 0, where there is more room
    parts[3] = None  # between two free ranges
    assert (start(take(memory, 7 * PAGE)) - base) // PAGE == 4
    parts.clear()
    assert start(take(memory, 64 * PAGE)) == base


def test_what_does_not_fit_is_refused_and_numpy_makes_it(own):
    first, second = arrays.empty(1000 * MIB, np.uint8), arrays.empty(25 * MIB, np.uint8)
    assert own.in_use == 1000 * MIB and take(own, 25 * MIB) is None
    assert len(second) == 25 * MIB and start(second) % arrays.LINE == 0 and not np.shares_memory(first, second)


def test_nobody_waits_for_an_arena_at_work():
    memory = Arena(MIB)
    with memory._busy:
        assert take(memory, PAGE) is None
        memory.release()
    assert take(memory, PAGE) is not None


def test_tracemalloc_sees_the_arrays():
    memory = Arena(8 * MIB)
    before = take(memory, MIB)
    tracemalloc.start()
    try:
        x = take(memory, 3 * MIB)
        assert 3 * MIB <= tracemalloc.get_traced_memory()[0] < 3.1 * MIB
        trace = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
        assert trace.statistics("lineno")[0].size == 3 * MIB
        del x, before
        assert tracemalloc.get_traced_memory()[0] < 0.1 * MIB
    finally:
        tracemalloc.stop()


def is_fresh(array):
    """Whether the system cleared its pages: they have been handed back, which was filled with ones."""
    return not array.any()


def test_released_memory_is_the_systems():
    memory = Arena(MIB)
    kept, x = take(memory, 4 * PAGE), take(memory, 8 * PAGE)
    kept[...] = x[...] = 1
    del x
    assert not is_fresh(take(memory, 8 * PAGE)) and memory.extent == 12 * PAGE
    memory.release()
    assert memory.extent == 4 * PAGE and is_fresh(take(memory, 8 * PAGE)) and kept.all()


def test_memory_that_lies_idle_is_handed_back(monkeypatch):
    monkeypatch.setattr(arena, "PERIOD", 10)
    memory = Arena(MIB)
    large = take(memory, 100 * PAGE)
    large[...] = 1
    del large
    for _ in range(19):
        assert memory.extent == 100 * PAGE
        x = take(memory, 2 * PAGE)
        x[...] = 1
        del x
    assert memory.extent == 2 * PAGE  # by the end of the second period
    assert not is_fresh(take(memory, 2 * PAGE)) and is_fresh(take(memory, 100 * PAGE)[2 * PAGE :])


@pytest.mark.parametrize("threads", [1, 4])
def test_no_two_arrays_meet(threads):
    memory = Arena(256 * PAGE)
    wrong = []

    def work(seed):
        generator = np.random.default_rng(seed)
        held = {}
        for mark in range(1, 3000):
            x = take(memory, int(generator.integers(1, 20 * PAGE)))
            if x is not None:
                x[:: PAGE // 2] = mark % 251
                held[mark] = x[:]
            if held and (x is None or generator.random() < 0.5):
                mark = list(held)[generator.integers(len(held))]
                if not (held.pop(mark)[:: PAGE // 2] == mark % 251).all():
                    wrong.append(mark)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong and memory.in_use == 0
    assert len(take(memory, 256 * PAGE)) == 256 * PAGE  # all of it is one range again


FORK = """
import os
from fastnet import arrays
x = arrays.empty(2**20, "float32")
x[:] = 1
child = os.fork()
y = arrays.empty(2**20, "float32")
y[:] = 2
if child == 0:
    x[:] = 3
    os._exit(0 if x.sum() + y.sum() == 5 * 2**20 else 1)
assert os.waitpid(child, 0)[1] == 0 and x.sum() + y.sum() == 3 * 2**20
"""


def test_a_fork_has_a_copy_of_its_own():
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60)


def test_a_limited_address_space_is_left_alone(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**40, 2**40))
    assert arena.arena.__wrapped__() is None


def test_where_nothing_is_reserved_numpy_does_it(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert arena.arena.__wrapped__() is None
    monkeypatch.setattr(arrays, "arena", lambda: None)
    x = arrays.empty((300, 400), np.float32)
    assert x.shape == (300, 400) and start(x) % arrays.LINE == 0
    arrays.release()


@pytest.mark.parametrize("make", [arrays.empty, arrays.zeros])
def test_large_arrays_come_from_the_arena(own, make):
    large, small = make((128, 256), np.float32), make((10, 10), np.float32)
    assert own.in_use == 128 * 256 * 4
    large[...] = 1
    del large
    assert make is arrays.empty or not make((128, 256), np.float32).any()
    assert small.flags.owndata


def test_a_large_copy_comes_from_the_arena(own):
    x = np.arange(2**16, dtype=np.float32).reshape(256, 256)
    y = arrays.contiguous(x.T)
    assert own.in_use == x.nbytes and y.flags.c_contiguous and np.array_equal(y, x.T)
    assert arrays.contiguous(x) is x


@pytest.mark.parametrize(("name", "options"), [("lenet5", {}), ("vgg-a-bn", {"filter_multiplier": 0.25}),
                                               ("mobilenet", {"filter_multiplier": 0.25})])
def test_after_its_second_step_training_takes_no_more_memory(own, name, options):
    generator = np.random.default_rng(0)
    x, labels = generator.standard_normal((64, 32, 32, 3), np.float32), generator.integers(0, 10, 64)
    step = fn.TrainStep(fn.build(name, **options), fn.SGD(lr=0.01, momentum=0.9))
    for _ in range(2):
        step(x, labels)
    extent, faults = own.extent, [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
    for _ in range(4):
        step(x, labels)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    assert own.extent == extent > x.nbytes
    # A step uses thousands of pages. The system may take one or the other back for a while, but not in each step.
    assert min(after - before for before, after in itertools.pairwise(faults)) < 25


def test_a_finished_run_hands_its_memory_back(own):
    large = arrays.empty(16 * MIB, np.uint8)
    del large
    assert own.extent == 16 * MIB
    fit()
    gc.collect()  # a run's parts hold on to each other
    assert own.extent < MIB
