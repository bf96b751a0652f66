"""The journal of a sweep: many writers, torn lines, full disks, and files that are no journals."""

import fcntl
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
import time

import pytest
from searched import SPACE, bowl, search

from fastnet.lab import Tuner
from fastnet.lab.search.journal import Journal, header
from fastnet.lab.search.space import check_space

HEADER = header(check_space(SPACE), seed=0, minimize=False, lease=30.0, settings={})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, *events):
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


PLAN = {"event": "plan", "plan": [["coarse", {"trials": 2}]]}
ROUND = {"event": "round", "first": 0, "trials": 2 * [{"l2": 0.1, "kind": "a"}]}
CLAIM = {"event": "claim", "trial": 0, "owner": "me", "time": 1.0}
DONE = {"event": "done", "trial": 0, "owner": "me", "seconds": 1.0, "value": 0.5}


# --- what is in it ---

def test_a_sweep_goes_on_where_it_was(path):
    calls = []

    def counted(trial):
        calls.append(trial.number)
        return bowl(trial)

    whole = search(counted, path).table()
    before = path.read_bytes()
    assert calls == list(range(20)) and search(counted, path).table() == whole  # with the same seconds
    assert calls == list(range(20)) and path.read_bytes() == before
    longer = search(counted, path).fine_factor(3)
    assert calls[20:] == [20, 21, 22] and longer.table().startswith(whole[: whole.index("value")])


def test_another_sweep_is_refused(path):
    search(bowl, path)
    for changed, message in (({"seed": 1}, "seed was 0, now 1"), ({"minimize": True}, "minimize was False"),
                             ({"settings": {"epochs": 3}}, "settings.epochs was None, now 3")):
        with pytest.raises(ValueError, match=f"journal of another sweep: {message}"):
            Tuner(bowl, SPACE, journal=path, **changed)
    with pytest.raises(ValueError, match=r"space.l2 was \['log', 1e-05, 0.1\], now \['log', 1e-05, 0.5\]"):
        Tuner(bowl, {**SPACE, "l2": Tuner(bowl, SPACE).space["l2"].__class__(1e-5, 0.5)}, journal=path)
    with pytest.raises(ValueError, match=r"is of the searches .*coarse.* but .*grid.* is asked for"):
        Tuner(bowl, SPACE, journal=path).grid()


def test_trials_that_the_seed_does_not_give_are_refused(path):
    write(path, HEADER, PLAN, ROUND)
    with pytest.raises(ValueError, match="trials from 0 on are not those of its seed and space"):
        Tuner(bowl, SPACE, journal=path).coarse(2)


def test_a_worker_that_gives_no_sign_of_life_loses_its_trial(path):
    """While it gives them, it keeps it, whatever its clock says."""
    Tuner(bowl, SPACE, journal=path, lease=0.4).coarse(1)
    journal = Journal(path)
    plan = [("coarse", {"trials": 1}), ("grid", {"points": 2})]
    journal.update(lambda sweep: [{"event": "plan", "plan": plan}])
    grid = [{"l2": l2, "kind": kind} for l2 in (1e-5, 0.1) for kind in "ab"]
    journal.update(lambda sweep: [{"event": "round", "first": 1, "trials": grid}])
    journal.update(lambda sweep: [{**CLAIM, "trial": 2, "owner": "other", "time": 9e9}])

    def alive():
        for _ in range(8):
            time.sleep(0.1)
            journal.update(lambda sweep: [{"event": "beat", "owner": "other", "trials": [2]}])

    began = time.monotonic()
    thread = threading.Thread(target=alive)
    thread.start()
    tuner = Tuner(bowl, SPACE, journal=path, lease=0.4).run(plan)
    assert time.monotonic() - began > 1.1
    thread.join()
    claims = [line["owner"] for line in lines(path) if line.get("event") == "claim" and line["trial"] == 2]
    assert len(claims) == 2 and claims[0] == "other" and len(tuner.results) == 5
    # The first one was only slow: what it found out is no news.
    with pytest.raises(ValueError, match="trial 2 has ended before"):
        journal.update(lambda sweep: [{**DONE, "trial": 2, "owner": "other"}])


def test_four_processes_share_a_sweep(path):
    """Each trial is tried once, and each line stands for itself."""
    code = ("import sys, pathlib, searched, time; sys.stdin.readline(); "
            "print(searched.search(searched.unlucky, pathlib.Path(sys.argv[1])).table(False))")
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=os.path.dirname(__file__), text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
    for writer in writers:  # all are there before the first begins
        writer.stdin.write("go\n")
        writer.stdin.flush()
    tables = {writer.communicate(timeout=60)[0] for writer in writers}
    from searched import unlucky

    assert tables == {search(unlucky).table(False) + "\n"}
    events = lines(path)[1:]
    for kind in ("claim", "done", "failed"):
        numbers = [event["trial"] for event in events if event["event"] == kind]
        assert len(numbers) == len(set(numbers)) == {"claim": 20, "done": 19, "failed": 1}[kind]


def test_who_works_gives_signs_of_life(path):
    Tuner(lambda trial: time.sleep(0.5) or 1.0, {"a": [1]}, journal=path, lease=0.3).grid()
    beats = [line["trials"] for line in lines(path) if line.get("event") == "beat"]
    assert len(beats) >= 2 and all(trials == [0] for trials in beats)


def test_who_writes_waits_for_the_lock(path):
    journal = Journal(path, HEADER)
    with open(path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer = threading.Thread(target=journal.update, args=(lambda sweep: [PLAN],))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive() and len(lines(path)) == 1
    writer.join(10)
    assert len(lines(path)) == 2


def test_a_worker_of_this_machine_that_is_gone_loses_its_trial_at_once(path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    write(path, HEADER, PLAN, {**ROUND, "trials": [r.parameters for r in Tuner(bowl, SPACE).coarse(2).results]},
          {**CLAIM, "owner": f"{socket.gethostname()}:{gone.pid}:1"})
    began = time.monotonic()
    assert len(Tuner(bowl, SPACE, journal=path).coarse(2).results) == 2
    assert time.monotonic() - began < 10  # and not the 30 s of the lease


# --- what can be wrong with it ---

def test_a_torn_last_line_is_removed(path):
    whole = search(bowl, path, lease=0.1).table(False)
    content = path.read_bytes()
    for cut in (1, 20, len(content) // 2, len(content) - 400):
        path.write_bytes(content[:-cut])
        Journal(path)
        assert content.startswith(path.read_bytes()) and path.read_bytes().endswith(b"\n")
        assert len(content) - cut - path.stat().st_size < 200 or cut == len(content) - 400  # where a round is opened
        assert search(bowl, path, lease=0.1).table(False) == whole


def test_a_torn_header_is_written_again(path):
    line = json.dumps(HEADER).encode() + b"\n"
    for content in (b"", line[:1], line[:-1]):
        path.write_bytes(content)
        assert Journal(path, HEADER).sweep.header == HEADER
        assert path.read_bytes() == line
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"line 1: it is not a sweep's journal|is empty; begin the sweep"):
            Journal(path)
        assert path.read_bytes() == content


@pytest.mark.parametrize(("content", "message"), [
    (b"some notes of mine", "line 1: it is not a sweep's journal"),
    (b"some notes of mine\n", r"line 1: it is not JSON"),
    (b"\xff\xfe\x00\n", "line 1: it is not text"),
    (b"[" * 100_000 + b"\n", "line 1: it is nested too deeply"),
    (b"{}\n", "line 1: it is not a sweep's journal"),
    (b'{"fastnet": "sweep", "format": 9}\n', "line 1: it has format 9, but this fastnet reads up to 1"),
    (b'{"fastnet": "sweep", "format": 1}\n', "line 1: a line of kind header has fastnet, format, space"),
])
def test_foreign_files_are_said_and_left(path, content, message):
    path.write_bytes(content)
    for begin in (HEADER, None):
        with pytest.raises(ValueError, match=rf"x\.jsonl, {message}"):
            Journal(path, begin)
        assert path.read_bytes() == content


@pytest.mark.parametrize(("changed", "message"), [
    ({"seed": True}, "its seed is 'True', but int is needed"), ({"seed": -1}, "a lease, a seed or a space that cannot"),
    ({"lease": -1.0}, "a lease, a seed or a space that cannot"), ({"space": {}}, "a seed or a space that cannot be"),
    ({"space": {"l2": ["log", 0, 1]}}, "must be positive"), ({"space": {"l2": ["normal", 0]}}, "is no distribution"),
    ({"space": {"l2": ["choice", [1]]}}, r"Choice: values must be .* but \[1\] is not"),
    ({"extra": 1}, "a line of kind header has"),
])
def test_headers_that_cannot_be(path, changed, message):
    write(path, {**HEADER, **changed})
    with pytest.raises(ValueError, match=rf"x\.jsonl, line 1: .*{message}"):
        Journal(path)


@pytest.mark.parametrize(("events", "message"), [
    ([[]], "line 2: it is no event"), ([{"event": "rm"}], "line 2: it is no event"), ([{}], "line 2: it is no event"),
    ([{"event": "plan", "plan": [["coarse", {"trials": 1e9}]]}], "line 2: coarse: trials must be a positive int"),
    ([{"event": "plan", "plan": [["coarse", {"trials": 10**9}]]}], "line 2: coarse: trials must be a positive int"),
    ([{"event": "plan", "plan": ["coarse"]}], "line 2: .*is no pair"),
    ([PLAN, {"event": "plan", "plan": []}], "line 3: it is another plan, not a longer one"),
    ([ROUND], "line 2: it opens a round that the plan does not have"),
    ([PLAN, {**ROUND, "first": 1}], "line 3: its round has 2 trials from 1 on"),
    ([PLAN, {**ROUND, "trials": [{"l2": 1}, {"l2": [], "kind": 1}]}], "line 3: trial 0 does not have the parameters"),
    ([PLAN, {**ROUND, "trials": 2 * [{"l2": [], "kind": 1}]}], "line 3: trial 0 does not have the parameters"),
    ([PLAN, ROUND, ROUND], "line 4: it opens a round that the plan does not have"),
    ([{**PLAN, "plan": 2 * PLAN["plan"]}, ROUND, {**ROUND, "first": 2}], "line 4: it opens a round before the one"),
    ([CLAIM], "line 2: there is no trial 0"), ([PLAN, ROUND, {**CLAIM, "trial": -1}], "line 4: there is no trial -1"),
    ([PLAN, ROUND, {**CLAIM, "trial": True}], "line 4: its trial is 'True'"),
    ([PLAN, ROUND, {**CLAIM, "owner": 3}], "line 4: its owner is '3', but str is needed"),
    ([PLAN, ROUND, DONE], "line 4: trial 0 ends by somebody who never claimed it"),
    ([PLAN, ROUND, CLAIM, DONE, DONE], "line 6: trial 0 has ended before"),
    ([PLAN, ROUND, CLAIM, {**DONE, "value": float("nan")}], "line 5: it is not JSON|line 5: .*NaN"),
    ([PLAN, ROUND, CLAIM, {**DONE, "value": "1"}], "line 5: its value is '1', but float is needed"),
    ([PLAN, ROUND, CLAIM, {"event": "beat", "owner": "you", "trials": [0]}], "line 5: trial 0 is not its owner's"),
    ([PLAN, ROUND, CLAIM, {"event": "beat", "owner": "me", "trials": [{}]}], "line 5: there is no trial {}"),
    ([PLAN, ROUND, CLAIM, {"event": "lost", "trial": 1, "owner": "me"}], "line 5: trial 1 is not its owner's"),
])
def test_lines_that_cannot_be(path, events, message):
    write(path, HEADER, *events)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"x\.jsonl, {message}"):
        Journal(path)
    assert path.read_bytes() == before


def test_damage_is_a_value_error_that_names_the_line(path):
    search(bowl, path)
    whole, rng, wrong = path.read_bytes(), random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.choice(b'\x00{}[]",:\n9e-\xff')
        path.write_bytes(damaged)
        try:
            Tuner(bowl, SPACE, journal=path)
        except ValueError as error:
            wrong += 1
            assert str(error).startswith(f"{path}") and "\n" not in str(error)
    assert wrong > 150


@pytest.mark.parametrize("make", ["mkdir", "fifo"])
def test_what_is_no_file(path, make):
    path.mkdir() if make == "mkdir" else os.mkfifo(path)
    with pytest.raises(ValueError, match="is not a file, so it is not a sweep's journal"):
        Journal(path, HEADER)


def test_one_that_is_not_there(path):
    with pytest.raises(FileNotFoundError, match=r"there is no journal .*x\.jsonl"):
        Journal(path)
    assert not path.exists()


def test_one_that_has_become_shorter(path):
    write(path, HEADER, PLAN, ROUND)
    journal = Journal(path)
    write(path, HEADER, PLAN)
    with pytest.raises(ValueError, match="has become shorter"):
        journal.update()


# --- a disk that is full ---

def test_a_full_disk_loses_nothing(path):
    """The system takes some bytes of a line and no more, as a full disk does."""
    calls = []

    def filling(trial):
        if trial.number == 7 and not calls:
            calls.append(path.stat().st_size)
            resource.setrlimit(resource.RLIMIT_FSIZE, (calls[0] + 20, hard))
        return bowl(trial)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match=r"x\.jsonl cannot be written .*it stays as it was, and the same"):
            search(filling, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == calls[0] and len(lines(path)) == 3 + 2 * 7 + 1
    again = Tuner(filling, SPACE, journal=path, lease=30.0)
    assert [r.trial for r in again.results] == list(range(7))


def test_a_file_system_without_locks(path, monkeypatch):
    from fastnet.train import lock

    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.raises(OSError, match=r"x\.jsonl cannot be locked \(Operation not supported\)"):
        Journal(path, HEADER)
