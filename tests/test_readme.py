"""What README.md shows can be done: its Python runs, its command lines are understood, its links lead somewhere."""

import json
import re
import shlex
from pathlib import Path

import pytest

import fastnet as fn
from fastnet import cli
from fastnet.bench import readme
from fastnet.bench.result import Result
from fastnet.timer import Timing

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)


def shown_commands():
    """Every `fastnet ...` in a code line (behind && too) or between backticks."""
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S)
    lines = [part for line in re.findall(r"^ {4}(\S.*)$", prose, re.M) for part in line.split("&&")]
    for fence in re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```$", TEXT, re.M | re.S):
        lines += [part.removeprefix("$ ") for line in fence.splitlines() for part in line.split("&&")]
    lines += re.findall(r"`([^`\n]+)`", prose)
    return list(dict.fromkeys(line.strip() for line in lines if line.strip().startswith("fastnet ")))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Another directory, fewer images, one epoch of `fit`: the same code in less time."""
    load, fit = fn.data.load, fn.fit
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fn.data, "load", lambda *names, **options: load(*names, **(options | {"split": "300/100"})))
    monkeypatch.setattr(fn, "fit", lambda *things, **options: fit(*things, **(options | {"epochs": 1})))
    return tmp_path


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_in_the_readme_runs(number, small):
    line = TEXT[: TEXT.index(BLOCKS[number])].count("\n")
    exec(compile("\n" * line + BLOCKS[number], str(README), "exec"), {"__name__": "__main__"})  # errors name its lines


def test_the_plain_loop_ends_with_the_bits_of_fit(small):
    plain = next(block for block in BLOCKS if "for x, labels, samples in batches.epoch(epoch)" in block)
    assert len(plain.splitlines()) <= 40
    here: dict = {}
    exec(plain, here)
    run = fn.train.loop.fit(fn.build("mlp3-bn", seed=0), fn.data.load("shapes10"), fn.SGD(momentum=0.9),
                            here["step"].schedule, epochs=6, penalty=fn.L2(0.005), normalization="pixel", seed=0,
                            verbose=False)
    ours, theirs = here["model"].state(), run.model.state()
    assert here["step"].count == 18
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_there_is_something_to_run():
    assert len(BLOCKS) >= 2 and len(shown_commands()) >= 6


@pytest.mark.parametrize("command", shown_commands())
def test_command_lines_in_the_readme_are_understood(command, capsys):
    try:
        options = cli._parser().parse_args(shlex.split(command, comments=True)[1:])
    except SystemExit as end:  # --help, --version
        assert end.code == 0, capsys.readouterr().err
    else:
        assert callable(options.run)


def test_a_command_line_that_is_not_understood_would_be_seen():
    with pytest.raises(SystemExit) as caught:
        cli._parser().parse_args(["train", "mlp2", "--no-such-option"])
    assert caught.value.code == 2


def test_files_that_the_readme_names_are_there():
    names = re.findall(r"\]\(([^)#]+?)\)", TEXT) + re.findall(r"python (tests/\S+\.py)", TEXT)
    names += re.findall(r"`((?:fastnet|kernels|bench|tests)/[\w/.]*)`", TEXT)
    missing = [name for name in names if "://" not in name and not (README.parent / name).exists()]
    if not (README.parent / "bench" / "results").exists():  # a figure of a run has its place there
        missing = [name for name in missing if not name.startswith("bench/results")]
    assert names and not missing


def test_the_benchmark_section_is_the_record():
    assert readme.replaced(TEXT, readme.section(json.loads(readme.RECORD.read_text()))) == TEXT


def test_the_benchmark_section_shows_what_is_in_a_record():
    def row(seconds, **more):
        timings = {rival: Timing(s, s, s, 3) for rival, s in seconds.items()}
        return Result("lenet5", 128, timings, 4 * 10**9, **more).record()

    found = readme.section({
        "machine": "a machine", "threads": 2, "rates": {"2": {"gemm": 2e12, "copy": 3e10}},
        "versions": {"numpy": "2", "numba": "0.6", "torch": "2.13"},
        "results": {"steps": [row({"fastnet": 0.004, "eager": 0.012, "channels_last": 0.01, "bf16": 0.006},
                                  memory={"fastnet": (2**20, 3 * 2**20)})],
                    "epochs": [row({"fastnet": 2.0, "batches": 0.03})], "one thread": [row({"fastnet": 0.5})]}})
    assert "| lenet5 | 128 | 4 | 2.50 | 1.50 | 1000 | 50% | 3 (2) |" in found
    assert "| lenet5 | 128 | 2000 | - | - | 2 | 0% | - |" in found
    assert "| one thread | lenet5 | 128 | 500 |\n" in found  # columns that hold nothing are left out
    found = found.replace("\n", " ")
    assert "a machine, 2 threads: matrix product 2000 GFLOP/s, copy 30.0 GB/s" in found
    assert "takes 1.5% of an epoch" in found
    with pytest.raises(ValueError, match=r"README\.md must hold '<!-- from here on"):
        readme.replaced("nothing", found)
