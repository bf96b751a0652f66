"""Executors for trials: fresh processes, each with its share of the threads, or this process itself.

`concurrent.futures.ProcessPoolExecutor` ends all its processes when one dies, and leaves them behind, for ever waiting,
when its own process is killed. Here the death of one costs the task that it had, and none outlives its parent.
"""

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import Any


class Processes(Executor):
    """So many processes at a time, spawned and never forked; `threads` is what Numba's kernels may use in each (None:
    an equal share of all cores)."""

    def __init__(self, workers: int, threads: int | None = None) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future, bytes] | None] = queue.SimpleQueue()
        threads = threads or max(1, _cores() // workers)
        self._seats = [_Seat(self._tasks, threads) for _ in range(workers)]

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """As any executor's; the future raises BrokenExecutor where the process died. Raises TypeError for a function
        or arguments that cannot be sent to a process."""
        try:
            task = pickle.dumps((function, args, kwargs))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(f"{error}: to run in other processes it must be a function at the top of a module, with "
                            "arguments that can be pickled; one worker runs anything") from None
        future: Future = Future()
        self._tasks.put((future, task))
        return future

    def interrupt(self) -> None:
        """Ctrl-C for what runs in the processes, which hear no other; what has not begun is cancelled."""
        for seat in self._seats:
            seat.stopped = True
            seat.signal(signal.SIGINT)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: when all is done, or with `cancel_futures` at once."""
        while cancel_futures:  # those that wait
            with contextlib.suppress(queue.Empty):
                if (task := self._tasks.get_nowait()) is not None:
                    task[0].cancel()
                continue
            break
        for _ in self._seats:
            self._tasks.put(None)
        for seat in self._seats:
            if cancel_futures:
                seat.signal(signal.SIGKILL)
            if wait:
                seat.thread.join()


class _Seat:
    """A thread that hands tasks to a process of its own, and gets another one when it dies."""

    def __init__(self, tasks: "queue.SimpleQueue[tuple[Future, bytes] | None]", threads: int) -> None:
        self.tasks, self.threads = tasks, threads
        self.process: Any = None
        self.stopped = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def _run(self) -> None:
        connection = None
        # Its processes are born with Ctrl-C blocked, so that none dies of it while it loads what it needs.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while (task := self.tasks.get()) is not None:
            future, content = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if connection is None:
                    connection = self._start()
                if self.stopped:
                    future.set_exception(CancelledError())
                    continue
                connection.send_bytes(content)
                good, result = pickle.loads(connection.recv_bytes())
            except (EOFError, OSError):
                connection = None
                self.process.join()
                future.set_exception(BrokenExecutor(f"its process died ({_death(self.process.exitcode)})"))
                continue
            (future.set_result if good else future.set_exception)(result)
        if connection is not None:
            connection.close()
            self.process.join()

    def _start(self) -> Any:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.threads))
        self.process.start()
        theirs.close()
        return ours


class Here(Executor):
    """Runs each task in this thread, before `submit` returns. Ctrl-C reaches the task."""

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        with _interruptible():
            future.set_result(function(*args, **kwargs))
        return future


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C inside the block is a KeyboardInterrupt, whatever it is outside."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _serve(connection: Any, threads: int) -> None:
    """What a process does: one task after another, until its parent closes the connection or dies."""
    os.setpgid(0, 0)  # a terminal's Ctrl-C is its parent's, who passes it on once
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if "numba" in sys.modules:
        sys.modules["numba"].set_num_threads(min(threads, sys.modules["numba"].config.NUMBA_NUM_THREADS))
    else:
        os.environ["NUMBA_NUM_THREADS"] = str(threads)
    while True:
        try:
            content = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            # One that came since the task was sent is waiting, and is heard now.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            function, args, kwargs = pickle.loads(content)
            answer = pickle.dumps((True, function(*args, **kwargs)))
        except BaseException as error:
            answer = _exception(error)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the threads of the kernels do not block it
        connection.send_bytes(answer)


def _exception(error: BaseException) -> bytes:
    try:
        pickle.loads(answer := pickle.dumps((False, error)))
        return answer
    except Exception:  # some can be sent, but not put together again at the other end
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _death(status: int | None) -> str:
    if status is not None and status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
