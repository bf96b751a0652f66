"""A few steps of the experiment in tests/determinism.py, and a run that differs, which it must see; what it costs."""

import json

import determinism
import numba
import numpy as np
import pytest

from fastnet.bench import determinism as cost
from fastnet.bench.workload import Workload
from fastnet.kernels.cpu import _batch_norm, _rows


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


def test_the_order_free_form_is_another(monkeypatch):
    """It agrees within rounding, with other bits, and leaves the library as it was; what does not agree is refused."""
    before = _rows.MOST_BLOCKS, _batch_norm.MOST_BLOCKS, _batch_norm._plan
    threads = min(2, numba.config.NUMBA_NUM_THREADS)
    timings, same = cost.measure(Workload("lenet5-bn", 8), threads, 0)
    assert timings.keys() == {"fixed", "free"}
    assert not same
    assert "other bits" in cost.row("lenet5-bn", timings, same)
    assert "bits" not in cost.row("sums", *cost.measure_sums(5000, 64, threads, 0))
    assert before == (_rows.MOST_BLOCKS, _batch_norm.MOST_BLOCKS, _batch_norm._plan)
    monkeypatch.setattr(cost, "_order_free_sums", lambda x, threads, sums: np.copyto(sums, x[1:].sum(axis=0)))
    with pytest.raises(AssertionError, match="sums of 50 rows: the two forms differ by"):
        cost.measure_sums(50, 4, threads, 0)
