"""Every reader on hostile inputs: a few hundred new ones each, drawn by Hypothesis, and all that ever failed.

`python tests/fuzz/run.py --inputs 1000000` tries as many as wanted; what fails there is kept in tests/fuzz/corpus.
"""

import random
import re
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
from fuzz import run, targets, watch
from fuzz.targets import TARGETS, Target, most
from fuzz.watch import watched
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEPT = sorted(run.CORPUS.glob("*"))
FOREIGN = {"image": 2}  # of the good files some are to be refused: pictures in formats that are not read
EXAMPLES = {"image": 60, "cifar-archive": 40, "options": 80}
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers at the end of what a float can be


@pytest.fixture(scope="module", params=list(TARGETS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name, tmp_path_factory):
    """A folder of the target's own, and its reader made ready: what is compiled or imported once is not watched."""
    place = tmp_path_factory.mktemp(name)
    for content in TARGETS[name].seeds():
        run.attempt(name, content, place, traced=False)
    return place


def test_good_files_are_taken(name, folder):
    found = [run.attempt(name, content, folder, traced=False) for content in TARGETS[name].seeds()]
    assert [seen.fault for seen in found] == [None] * len(found)
    assert sum(seen.error is not None for seen in found) == FOREIGN.get(name, 0)


def test_hostile_files(name, folder):
    """`draw` is Hypothesis' own random.Random: what fails is made small before it is shown."""
    @settings(max_examples=EXAMPLES.get(name, 120), derandomize=True, database=None, deadline=None,
              suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(TARGETS[name].seeds()), st.randoms(use_true_random=False))
    def holds(content, draw):
        content = TARGETS[name].mutate(draw, content)
        assert run.attempt(name, content, folder, traced=True).fault is None

    holds()


def test_arbitrary_bytes(name, folder):
    @settings(max_examples=40, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=64) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
    def holds(content):
        assert run.attempt(name, content, folder, traced=False).fault is None

    holds()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """Memory is traced here, and lines where coverage is measured."""
    monkeypatch.setattr(watch, "SECONDS", 5.0)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_what_failed_once(path, tmp_path):
    assert run.attempt(path.name.rpartition("-")[0], path.read_bytes(), tmp_path, traced=True).fault is None


def test_the_corpus_is_of_the_targets():
    assert KEPT and {path.name.rpartition("-")[0] for path in KEPT} <= set(TARGETS)


def test_inputs_are_functions_of_the_seed():
    for name in TARGETS:
        assert run.mutant(name, 3, 5) == run.mutant(name, 3, 5)
    assert len({run.mutant("json", k, 5) for k in range(50)}) > 40


# --- the watch, and the mutators, can fail ---

@pytest.mark.parametrize(("call", "fault"), [
    (lambda: None, None), (lambda: int("x"), None), (lambda: {}["x"], "KeyError: 'x'"),
    (lambda: bytearray(64 << 20), "takes 6. MB, more than 2 MB"), (lambda: spin(0.3), "takes 0.1 s"),
    (lambda: swallowed(), "takes 0.1 s")], ids=["fine", "documented", "other error", "memory", "time", "time, caught"])
@pytest.mark.parametrize("traced", [True, False], ids=["asked for", "held"])
def test_the_watch_sees(call, fault, traced, monkeypatch):
    run.give_back_at_once()
    monkeypatch.setattr(watch, "SECONDS", 0.1)
    seen = watched(call, (ValueError,), 2 << 20, traced=traced)
    assert (seen.fault is None) if fault is None else re.fullmatch(fault, seen.fault)


def spin(seconds):
    import time

    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def swallowed():
    try:
        spin(0.3)
    except Exception as error:
        raise ValueError from error


def test_run_keeps_what_fails(monkeypatch, tmp_path, capsys):
    def read(content, folder):
        if b"7" in content:
            raise RuntimeError(f"seven\n{len(content)}")

    target = Target(lambda: [b"123"], lambda draw, content: b"%d" % draw.randrange(10), read)
    monkeypatch.setitem(TARGETS, "bad", target)
    monkeypatch.setattr(run, "CORPUS", tmp_path / "corpus")
    monkeypatch.setattr("sys.argv", ["run.py", "--inputs", "60", "--target", "bad"])
    assert run.main() == 1
    out, err = capsys.readouterr()
    (kept,) = (tmp_path / "corpus").iterdir()
    assert kept.read_bytes() == b"7" and f"{kept.name}: RuntimeError: seven" in err
    row = next(line.split() for line in out.splitlines() if line.startswith("bad"))
    assert row[1] == "60" and int(row[2]) + int(row[5]) == 60 and int(row[5]) > 0
    monkeypatch.setitem(TARGETS, "bad", target._replace(documented=(RuntimeError,)))
    assert run.main() == 0


def test_mutants_reach_what_lies_behind_the_first_check():
    """Of the hostile files some are taken, and those that are refused are refused for many reasons."""
    import tempfile

    for name, reasons in (("checkpoint", 15), ("run", 15), ("cifar-pickle", 12), ("journal", 20), ("options", 15)):
        with tempfile.TemporaryDirectory() as folder:
            found = [run.attempt(name, run.mutant(name, k, 1), targets.Path(folder), traced=False) for k in range(300)]
        said = {"".join(c for c in str(seen.error) if c.isalpha())[-40:] for seen in found if seen.error is not None}
        assert any(seen.error is None for seen in found) and len(said) >= reasons, (name, len(said))


# --- large files: twice their size, and little else ---

LARGE = 4 << 20  # bytes


def peak_of(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["ours", "float32", "float16", "bfloat16"])
def test_reading_weights_takes_twice_the_file(kind, tmp_path):
    import fastnet as fn
    from fastnet.train import checkpoint

    shape = (LARGE // 4 // 1024, 1024)
    model = fn.Sequential([fn.Linear(*shape, bias=False)])
    own = model.store.vector.nbytes  # once more in the model's type, before any is taken over
    path = tmp_path / "w.safetensors"
    if kind == "ours":
        checkpoint.save(path, {"model/linear1.w": np.zeros(shape, np.float32)}, {})
    elif kind == "bfloat16":
        path.write_bytes(targets.as_bfloat16({"linear1.weight": np.zeros(shape[::-1])}))
    else:
        safetensors.numpy.save_file({"linear1.weight": np.zeros(shape[::-1], kind)}, path)
    fn.load_weights(model, path, input_shape=shape[:1])
    peak = peak_of(lambda: fn.load_weights(model, path, input_shape=shape[:1]))
    assert peak <= 2 * path.stat().st_size + own + (1 << 20), peak / path.stat().st_size


def test_a_good_seed_of_pictures_is_turned(tmp_path):
    """The seeds have what they are said to have, so that their mutants go through the same code."""
    from PIL import Image

    forms = set()
    for k, content in enumerate(TARGETS["image"].seeds()):
        (tmp_path / str(k)).write_bytes(content)
        with Image.open(tmp_path / str(k)) as opened:
            forms.add((opened.format, opened.getexif().get(0x0112)))
    assert {("JPEG", 6), ("WEBP", 6), ("PNG", 6), ("GIF", None), ("EPS", None)} <= forms
    assert random.Random(1).random() == random.Random(1).random()
    assert most("json", b"1234") == 8 + targets.CONSTANT
