"""A few steps of the experiment in tests/determinism.py, and a run that differs, which it must see."""

import json

import determinism


def test_runs_end_with_the_same_bits(tmp_path, capsys):
    assert determinism.main(["mlp3-bn"], 5, 1, [1, 2], tmp_path / "record.json") == 0
    assert capsys.readouterr().out == "mlp3-bn: 5 steps, 2 runs with 1 and 2 threads end with the same bits\n"
    ends = json.loads((tmp_path / "record.json").read_text())["ends"]["mlp3-bn"]
    assert [(end["threads"], end["runs"]) for end in ends] == [(1, 1), (2, 1)]


def test_other_bits_are_seen(monkeypatch, capsys):
    """All of a run counts: one more step gives another fingerprint. Where one of six differs, the status is 1."""
    real = {steps: determinism.train("mlp3-bn", steps, 1) for steps in (4, 5)}
    assert real[4] != real[5]
    given = iter([real[5]] * 5 + [real[4]])
    monkeypatch.setattr(determinism, "fingerprint", lambda name, steps, threads: next(given))
    assert determinism.main(["mlp3-bn"], 5, 3, [1, 2]) == 1
    assert "6 runs with 1 and 2 threads end with 2 different results" in capsys.readouterr().out
