"""Running jobs: each once, in a directory of its own, several at a time in fresh processes; nothing done is lost.

A directory is named by a hash of everything that decides about its content (`Training.key`), and a job is done when its
record is there, which is written last. So what a killed `reproduce` had finished stays finished, an interrupted
training goes on from its checkpoint, and experiments share runs without knowing of each other. Results do not depend on
the number of processes: no job sees another but through finished inputs, and kernels give the same bits on any number
of threads.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from fastnet.reports.experiment import Job, Results
from fastnet.reports.training import DONE, Place, Trained, Training

ATTEMPTS = 2  # of a job whose process died: another job's memory may have been what killed it


class Runner:
    """Runs what experiments need, into directories below `out`.

    workers  processes at a time, of one thread each; 0 runs one job after another in this process, on all its threads
    tell     is given a line for everything that is done
    """

    def __init__(self, results: Results, out: Path, workers: int, tell: Callable[[str], None]) -> None:
        self.results, self.out, self.workers, self.tell = results, out, workers, tell
        self.done = self.total = 0

    def run(self, needed: Callable[[], Iterable[Job]]) -> None:
        """Run all that `needed` yields, and ask again until it yields nothing new. Results say what came of each.

        Raises KeyboardInterrupt after Ctrl-C, when every process has saved its state.
        """
        place, results = self.results.place, self.results
        while True:
            jobs = {job.key(place): job for job in needed()}
            for key in jobs:
                if key not in results.folders and (self.out / key / DONE).exists():
                    results.folders[key] = self.out / key
            open_jobs = {key: job for key, job in jobs.items()
                         if key not in results.folders and key not in results.failures}
            ready = {}
            for key, job in open_jobs.items():
                inputs = [needed_first.key(place) for needed_first in job.inputs()]
                if missing := [k for k in inputs if k in results.failures]:
                    results.failures[key] = f"a run that it needs failed: {results.failures[missing[0]]}"
                elif all(k in results.folders for k in inputs):
                    ready[key] = job
            if not ready:
                return
            # Those of the same images one after the other: a process keeps the last it has read.
            ready = dict(sorted(ready.items(), key=lambda item: _images(item[1])))
            self.total = self.done + len(open_jobs)
            if self.workers:
                self._in_processes(ready)
            else:
                for key, job in ready.items():
                    self._note(key, job, perform(job, self.out / key, place, self._inputs(job)))

    def _in_processes(self, jobs: dict[str, Job]) -> None:
        left, attempt = dict(jobs), 0
        while left and attempt < ATTEMPTS:
            attempt += 1
            left = self._pool(left)
        for key in left:
            self.results.failures[key] = f"its process died {ATTEMPTS} times (out of memory?); try fewer --workers"

    def _pool(self, jobs: dict[str, Job]) -> dict[str, Job]:
        """Run the jobs in new processes; return those that were lost because a process died."""
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        pool = ProcessPoolExecutor(min(self.workers, len(jobs)), context, _start, (stop,))
        lost = dict(jobs)
        try:
            futures: dict[Future[str], str] = {
                pool.submit(_work, job, self.out / key, self.results.place, self._inputs(job)): key
                for key, job in jobs.items()}
            for future in as_completed(futures):
                key = futures[future]
                try:
                    problem = future.result()
                except BrokenProcessPool:
                    continue
                del lost[key]
                self._note(key, jobs[key], problem)
        except BaseException:
            stop.set()  # running trainings then save their state and end
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return lost

    def _inputs(self, job: Job) -> tuple[Trained, ...]:
        return tuple(Trained(self.results.folders[first.key(self.results.place)]) for first in job.inputs())

    def _note(self, key: str, job: Job, problem: str) -> None:
        if problem:
            self.results.failures[key] = problem
        else:
            self.results.folders[key] = self.out / key
        self.done += 1
        self.tell(f"[{self.done}/{self.total}] {job.title()}: {problem or _outcome(job, self.out / key)}")


def perform(job: Job, folder: Path, place: Place, inputs: Sequence[Trained]) -> str:
    """Do a job; '' or what was wrong in one line. A claim that cannot be run is no reason not to run the others."""
    try:
        job.perform(folder, place, tuple(inputs))
    except Exception as error:
        if os.environ.get("FASTNET_TRACEBACK"):
            raise
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def _images(job: Job) -> tuple[str, str, str, int]:
    return (job.data, job.split, job.order, job.seed) if isinstance(job, Training) else ("", "", "", 0)


def _outcome(job: Job, folder: Path) -> str:
    if not isinstance(job, Training):
        return "done"
    run = Trained(folder)
    if run.diverged:
        return f"diverged at step {run.diverged['step']}"
    return f"test accuracy {100 * run.value('test_accuracy'):.2f} %"


_busy = False
_stop: Any = None


def _start(stop: Any) -> None:
    """In a worker, before its first job: one thread, and Ctrl-C by way of the parent alone."""
    global _stop
    _stop = stop
    if hasattr(os, "setpgid"):  # a terminal sends Ctrl-C to every process of the group: the parent hands it on, once
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, _interrupt)
    threading.Thread(target=_watch, args=(stop,), daemon=True).start()
    try:
        import numba
    except ImportError:  # the reference runs without it
        return
    numba.set_num_threads(1)


def _interrupt(*_: Any) -> None:
    if _busy:
        raise KeyboardInterrupt


def _watch(stop: Any) -> None:
    """End with the parent, however it ends; hand on its Ctrl-C. `fit` then saves its state before it stops."""
    parent = multiprocessing.parent_process()
    while not stop.wait(0.2):
        if parent is not None and not parent.is_alive():
            os._exit(1)
    os.kill(os.getpid(), signal.SIGINT)


def _work(job: Job, folder: Path, place: Place, inputs: tuple[Trained, ...]) -> str:
    global _busy
    if _stop.is_set():
        return "interrupted"
    _busy = True
    try:
        return perform(job, folder, place, inputs)
    except KeyboardInterrupt:
        return "interrupted"
    finally:
        _busy = False
