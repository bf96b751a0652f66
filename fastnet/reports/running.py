"""Running jobs: each once, in a directory of its own, several at a time in fresh processes; nothing done is lost.

A directory is named by a hash of everything that decides about its content (`Training.key`), and a job is done when its
record is there, which is written last. So what a killed `reproduce` had finished stays finished, an interrupted
training goes on from its checkpoint, and experiments share runs without knowing of each other. Results do not depend on
the number of processes: no job sees another but through finished inputs, and kernels give the same bits on any number
of threads.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from pathlib import Path

from fastnet.lab.search.processes import Processes
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
            known = len(results.folders) + len(results.failures)
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
                if len(results.folders) + len(results.failures) == known:
                    return
                continue  # what was found done, or impossible, may call for more
            # Those of the same images one after the other: a process keeps the last it has read.
            ready = dict(sorted(ready.items(), key=lambda item: _images(item[1])))
            self.total = self.done + len(open_jobs)
            if self.workers:
                self._in_processes(ready)
            else:
                for key, job in ready.items():
                    self._note(key, job, perform(job, self.out / key, place, self._inputs(job)))

    def _in_processes(self, jobs: dict[str, Job]) -> None:
        pool = Processes(min(self.workers, len(jobs)), threads=1)
        waiting: dict[Future[str], tuple[str, int]] = {}

        def submit(key: str, attempt: int) -> None:
            job = jobs[key]
            waiting[pool.submit(perform, job, self.out / key, self.results.place, self._inputs(job))] = key, attempt

        try:
            for key in jobs:
                submit(key, 1)
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    key, attempt = waiting.pop(future)
                    try:
                        problem = future.result()
                    except BrokenExecutor as error:
                        if attempt < ATTEMPTS:
                            submit(key, attempt + 1)
                            continue
                        problem = f"{error}, {ATTEMPTS} times (out of memory?); try fewer --workers"
                    self._note(key, jobs[key], problem)
        except BaseException:
            pool.interrupt()  # running trainings then save their state and end
            raise
        finally:
            pool.shutdown()

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
