"""The loop that claims trials in a journal, has an executor try them, and writes down what came of it."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from typing import Any

from fastnet.lab.search.journal import Journal
from fastnet.lab.search.plan import Result
from fastnet.lab.search.processes import Processes
from fastnet.lab.search.sweep import Standing, Sweep
from fastnet.lab.search.trial import Outcome, Trial, attempt
from fastnet.train.interrupt import DeferredInterrupt

POLL_SECONDS = 0.2
MOST_LOSSES = 5  # of processes, by the same trial: it may be what they die of


class Runner:
    """Tries what is open in `journal`, `workers` trials at a time, and calls `report` with every result, other
    processes' too, but those of the trials `told`, which grows."""

    def __init__(self, journal: Journal, objective: Callable[[Trial], float], executor: Executor, workers: int,
                 report: Callable[[Result], None], told: set[int]) -> None:
        self.journal, self.objective, self.executor, self.workers = journal, objective, executor, workers
        self.report, self._told = report, told
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        self._running: dict[Future, Trial] = {}
        self._mine: set[int] = set()
        self._seen: dict[int, tuple[int, float]] = {}

    def run(self, rounds: int) -> None:
        """Until all trials of the first `rounds` rounds have ended, whoever tries them. Raises KeyboardInterrupt after
        Ctrl-C, when the executor's tasks have ended or can no longer be waited for; a second one ends it at once."""
        stopping = interrupted = False
        with DeferredInterrupt() as interrupt, self._beating(), self._giving_back():
            while True:
                if not stopping and (interrupt.requested or interrupted):
                    stopping = True
                    self._interrupt()
                if not stopping and len(self._running) < self.workers:
                    self._claim()
                for future in self._ended():
                    interrupted |= self._take(self._running.pop(future), future)
                self._tell()
                if stopping and not self._running:
                    raise KeyboardInterrupt
                if not self._running and self.journal.sweep.ended(rounds):
                    return

    def _claim(self) -> None:
        """Claim as many trials as there are hands free, and set them going."""
        def decide(sweep: Sweep) -> list[dict[str, Any]]:
            events: list[dict[str, Any]] = []
            free = self.workers - len(self._running)
            for trial in sweep.trials:
                if len(events) == free:
                    break
                if self._is_free(trial, sweep.lease):
                    events.append({"event": "claim", "trial": trial.number, "owner": self.owner, "time": time.time()})
            return events

        claimed = [event["trial"] for event in self.journal.update(decide)]
        self._mine.update(claimed)  # all of them first: an executor that refuses one leaves none claimed
        for number in claimed:
            standing = self.journal.sweep.trials[number]
            if standing.losses >= MOST_LOSSES:
                self._end(standing.number, Outcome("failed", 0.0, error=f"the process that tried it died "
                                                                        f"{standing.losses} times"))
                continue
            path = self.journal.path
            folder = None if path is None else path.with_suffix("") / f"trial-{standing.number:04}"
            trial = Trial(standing.number, standing.parameters, folder)
            self._running[self.executor.submit(attempt, self.objective, trial)] = trial

    def _is_free(self, trial: Standing, lease: float) -> bool:
        """Whether nobody is at it, its owner was a process of this machine that is gone, or its owner has given no sign
        of life in a lease that we have seen pass: the clocks of other machines are not asked."""
        if trial.result is not None or trial.owner == self.owner:
            return False
        if trial.owner is None or _is_gone(trial.owner):
            return True
        signs, since = self._seen.get(trial.number, (-1, 0.0))
        if trial.signs != signs:
            self._seen[trial.number] = trial.signs, time.monotonic()
            return False
        return time.monotonic() - since > lease

    def _ended(self) -> set[Future]:
        """The futures that are done, after a short wait for one."""
        if not self._running:
            if not self._mine_is_all():
                time.sleep(POLL_SECONDS)  # for what other processes are at
            return set()
        return wait(self._running, POLL_SECONDS, FIRST_COMPLETED).done

    def _mine_is_all(self) -> bool:
        return all(trial.result is not None for trial in self.journal.sweep.trials)

    def _take(self, trial: Trial, future: Future) -> bool:
        """Write down how a trial ended; True where it was Ctrl-C that ended it. Raises what is the executor's fault."""
        try:
            outcome = future.result()
        except (KeyboardInterrupt, CancelledError):
            outcome = Outcome("interrupted", 0.0)
        except Exception as error:
            # By its name: distributed is loaded only by those who use it.
            if not isinstance(error, BrokenExecutor) and type(error).__name__ != "KilledWorker":
                raise
            outcome = Outcome("lost", 0.0)
        self._end(trial.number, outcome)
        return outcome.state == "interrupted"

    def _end(self, number: int, outcome: Outcome) -> None:
        def decide(sweep: Sweep) -> list[dict[str, Any]]:
            standing = sweep.trials[number]
            event = {"trial": number, "owner": self.owner}
            if standing.result is not None:  # somebody took it over and was faster
                return []
            if outcome.state == "done":
                return [{"event": "done", **event, "seconds": outcome.seconds, "value": outcome.value}]
            if outcome.state == "failed":
                return [{"event": "failed", **event, "seconds": outcome.seconds, "error": outcome.error}]
            kind = "lost" if outcome.state == "lost" else "released"
            return [{"event": kind, **event}] if standing.owner == self.owner else []

        self.journal.update(decide)
        self._mine.discard(number)

    def _tell(self) -> None:
        for standing in self.journal.sweep.trials:
            if standing.result is not None and standing.number not in self._told:
                self._told.add(standing.number)
                self.report(standing.result)

    def _interrupt(self) -> None:
        if isinstance(self.executor, Processes):
            self.executor.interrupt()
            return
        for future in list(self._running):
            if not future.cancel() and not future.done():  # nobody can stop it, so nobody waits
                self._end(self._running.pop(future).number, Outcome("interrupted", 0.0))

    @contextlib.contextmanager
    def _giving_back(self) -> Iterator[None]:
        """Whatever ends the block, what is still ours then is anybody's."""
        try:
            yield
        finally:
            for number in sorted(self._mine):
                with contextlib.suppress(OSError):  # its lease will do
                    self._end(number, Outcome("interrupted", 0.0))
            self._running.clear()

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        """A sign of life three times a lease, from a thread: trials may run in this one."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self.journal.sweep.lease / 3):
                with contextlib.suppress(OSError):  # a full disk is said by who has something to write
                    self.journal.update(self._signs)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _signs(self, sweep: Sweep) -> list[dict[str, Any]]:
        trials = [number for number in sorted(self._mine)
                  if sweep.trials[number].owner == self.owner and sweep.trials[number].result is None]
        return [{"event": "beat", "owner": self.owner, "trials": trials}] if trials else []


def _is_gone(owner: str) -> bool:
    host, _, pid = owner.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not (pid.isascii() and pid.isdecimal()) or len(pid) > 9:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
