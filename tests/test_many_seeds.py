"""A few seeds of the experiment in tests/many_seeds.py, one op of it spoilt, which it must see."""

import json
import re

import many_seeds
import pytest

from fastnet.check.cases import cases
from fastnet.check.covering import covering_cases
from fastnet.ops import huber


def test_ops_that_are_right_raise_no_alarm(tmp_path, capsys):
    assert many_seeds.main(["linear", "huber", "max_pool2d"], 1000, 2, tmp_path / "record.json") == 0
    found = json.loads((tmp_path / "record.json").read_text())
    assert (found["first"], found["seeds"], found["alarms"]) == (1000, 2, {"linear": [], "huber": [], "max_pool2d": []})
    assert found["checks"] == {op: 2 * 2 * len(cases(op)) for op in found["alarms"]}  # both implementations take all
    assert capsys.readouterr().out.endswith("2 seeds, 48 checks of 68 gradients, 0 false alarms\n")


def test_an_alarm_is_seen(monkeypatch, capsys):
    """It names op, implementation, case and seed, and the others raise none."""
    real = huber.backward
    monkeypatch.setattr(huber, "backward", lambda dy, cache: (1.001 * real(dy, cache)[0], None))
    assert many_seeds.main(["huber", "relu"], 7, 1) == 1
    out = capsys.readouterr().out
    assert "huber, reference, 'labels, delta=1.0, mean', seed 7: huber: dx is wrong" in out
    assert re.findall(r"^(\w+) +(\d+) checks, (\d+) false alarms$", out, re.M) == [("huber", "8", "4"),
                                                                                 ("relu", "4", "0")]


@pytest.mark.parametrize("seed", range(0, 1000, 50))
def test_covering_sets_hold_convolutions_of_something(seed):
    """A map of no columns is no convolution; with some seeds there was one."""
    assert all(case.arrays[0].size for case in covering_cases("conv2d", seed))


def test_every_case_of_the_covering_set_that_is_small_has_its_turn():
    drawn = {case.label for seed in range(many_seeds.SHARE) for case in many_seeds.drawn("conv2d", seed)}
    first = {case.label for case in many_seeds.drawn("conv2d", 0)}
    assert len(drawn) > 4 * len(first)
