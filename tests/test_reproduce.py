"""The whole of `fastnet reproduce`: arguments, table, page, exit status. On shapes10."""

import json
import re
from dataclasses import replace

import pytest

from fastnet import cli
from fastnet.reports import r2, reproduce
from fastnet.reports.experiment import Cell, Drawn, Experiment
from fastnet.reports.scale import SCALES, Scale
from fastnet.reports.training import Training

ALL = [e for module in reproduce.reports().values() for e in module.EXPERIMENTS]
TINY = Scale("tiny", images=100, epochs=5, test=20, data="shapes10")
SMALL = Training("mlp2", options={"hidden": (8,)}, data="shapes10", split="6000/2000", epochs=5, batch_size=20,
                 penalty={"L2": 0.01}, optimizer={"name": "sgd", "lr": 0.05})
BAD = Experiment("X7", "", cells=(Cell("bad", replace(SMALL, batch_size=0), 0.5),))


def patched(monkeypatch, *experiments):
    """As if the report R2 had these experiments only."""
    monkeypatch.setattr(r2, "EXPERIMENTS", experiments)


def page_of(experiments, out, monkeypatch, **options):
    patched(monkeypatch, *experiments)
    return reproduce.reproduce("R2", seeds=2, scale=TINY, out=out, workers=0,
                               tell=lambda line: None, **options)


def test_a_page_holds_what_was_found(tmp_path, monkeypatch):
    def drawn(experiment, results, folder):
        (folder / "a.png").write_bytes(b"")
        return [Drawn("a.png", "what it shows")]

    experiment = Experiment(
        "X1", "one beats the other", decisions=("A15",), figures=(drawn,), text="Some words.",
        cells=(Cell("one", SMALL, 0.3), Cell("other", replace(SMALL, penalty={}), 0.1)))
    found = page_of([experiment], tmp_path, monkeypatch, pages=tmp_path / "here", note="from a | friend")
    text = found.page.read_text()
    assert found.page == tmp_path / "here" / "R2.md" and found.complete
    for part in ("# R2: k-layer network", "- scale tiny: 1/100 of", "- seeds 0, 1; device cpu", "sha256 ",
                 "- from a | friend", "## X1: one beats the other", "Some words.", "![what it shows](a.png)",
                 "- A15: lambda", "penalty: L2 0.01", "| one | test % | 30.00 |", "numpy "):
        assert part in text
    columns = {line.count(" | ") for line in text.splitlines() if line.startswith("| ")}
    assert len(columns) == 1
    kept = json.loads((tmp_path / "here" / "R2.json").read_text())
    assert kept["experiments"][0]["rows"][0]["verdict"] == "reduced"
    assert found.sections[0].rows[0].ours in text


def test_a_reproduction_with_something_not_run_is_not_complete(tmp_path, monkeypatch):
    found = page_of([BAD], tmp_path, monkeypatch)
    assert not found.complete and "1 not run" in found.page.read_text()


def test_status_tells_what_could_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SCALES, "quick", TINY)
    patched(monkeypatch, Experiment("X8", "a claim", cells=(Cell("a", SMALL, 0.5),)))
    command = ["reproduce", "r2", "x8", "--scale", "quick", "--seeds", "1", "--workers", "0", "--out"]
    assert cli.main([*command, str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "reduced" in said and "one seed: its spread is not known" in said
    assert (tmp_path / "a/pages/R2-X8.md").exists()
    patched(monkeypatch, replace(BAD, id="X8"))
    assert cli.main([*command, str(tmp_path / "b")]) == 1
    assert "not run" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (["R7"], r"there is no report 'R7'; choose from R1, R2, R3"),
    (["R1", "E20"], r"R1 has no experiment 'E20'; choose from G01, E01"),
    ([], r"name a report, such as R1; --list shows them all"),
    (["R1", "--seeds", "0"], r"seeds must be at least 1 but is 0"),
    (["R1", "--workers", "-1"], r"workers must be at least 0 but is -1"),
    (["R1", "--data-dir", "/nowhere/at/all"], r"/nowhere/at/all \(named by --data-dir\) does not exist"),
])
def test_bad_arguments_are_said_in_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce", *arguments]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"fastnet reproduce: .*{message}.*\n", said)
    assert not list(tmp_path.iterdir())


def test_the_list_shows_every_experiment(capsys):
    assert cli.main(["reproduce", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(re.search(rf"^R\d +{e.id} ", said, re.M) for e in ALL)
    assert cli.main(["reproduce", "R1", "--list"]) == 0
    assert "R2 " not in capsys.readouterr().out


def test_two_reproductions_do_not_share_a_folder(tmp_path, monkeypatch):
    with reproduce.exclusive(tmp_path), pytest.raises(BlockingIOError, match="another process"):
        page_of([BAD], tmp_path, monkeypatch)
