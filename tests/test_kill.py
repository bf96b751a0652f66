"""A few runs of the experiment in tests/kill_and_resume.py, one of them spoilt, which it must see."""

import re

import kill_and_resume
import numpy as np

from fastnet.train import checkpoint

SUMMARY = re.compile(r"^(\d+) runs, (\d+) kills, (\d+) inside a save, (\d+) ended with other bits \((\d+) arrays", re.M)


def test_killed_runs_end_with_the_bits_of_an_undisturbed_one(monkeypatch, capsys):
    """Of three runs the last is resumed from a weight that is off by one bit: it and no other ends with other bits."""
    real, tampered = kill_and_resume.start, []

    def start(out, threads, resume, die_at=""):
        if out.name.startswith("run") and not resume:
            die_at = "write:3"  # at least one kill a run, inside a save with half of the bytes written
        if out.name == "run2" and resume:
            arrays, meta = checkpoint.load(out / "checkpoint.safetensors")
            weight = arrays["model/linear3.w"]
            weight[4, 2] = np.nextafter(weight[4, 2], np.float32(1))
            checkpoint.save(out / "checkpoint.safetensors", arrays, meta)
            tampered.append(meta["step"])
        return real(out, threads, resume, die_at)

    monkeypatch.setattr(kill_and_resume, "start", start)
    monkeypatch.setattr(kill_and_resume, "MOST_KILLS", 2)
    monkeypatch.setenv("FASTNET_EPOCHS", "3")
    status = kill_and_resume.main(3, seed=0)
    out = capsys.readouterr().out
    runs, kills, inside, wrong, compared = map(int, SUMMARY.search(out).groups())
    assert tampered and (status, runs, wrong) == (1, 3, 1), out
    assert re.findall(r"^run (\d+): differs in \[(.*)\]$", out, re.M)[0][0] == "2", out
    assert "model.safetensors/model/linear3.w" in out
    assert kills >= 3 and inside >= 1 and compared > 40, out
