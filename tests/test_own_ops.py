"""`fastnet check --module FILE`: the ops of a file, and one clear line for what is wrong with it."""

import numpy as np
import pytest

from fastnet.check.own import check_file, load, mutants_of_file

PAIR = """
import numpy as np

def forward(x, w):
    return np.tanh(x @ w), (x, w, np.tanh(x @ w))

def backward(dy, cache, needs=None):
    x, w, y = cache
    needs_x, needs_w = needs or (True, True)
    dz = dy * (1 - y * y)
    return dz @ w.T if needs_x else None, x.T @ dz if needs_w else None
"""
EXAMPLE = """
def example(rng):
    return [rng.normal(size=(6, 4)), rng.normal(size=(4, 3))]
"""
SEVERAL = """
import types
from fractions import Fraction
from fastnet.ops import relu
import numpy as np

class Cube:
    CASES = [[np.linspace(-2, 2, 12).reshape(6, 2)]]
    def forward(self, x):
        return x**3, x
    def backward(self, dy, x):
        return (3 * x * x * dy,)

class Scale:
    @staticmethod
    def forward(x, *, by=2.0):
        return by * x, by
    @staticmethod
    def backward(dy, by):
        return (by * dy,)

same_again = cube = Cube()
square = types.SimpleNamespace(forward=lambda x: (x * x, x), backward=lambda dy, x: (2 * x * dy,))

def cases():
    x = np.arange(1.0, 13).reshape(6, 2)
    return {"Scale": {"default": [x], "by 3": ([x], {"by": 3.0})}, "square": [[x], [-x]]}
"""


@pytest.fixture
def write(tmp_path):
    def file(text, name="my_ops.py"):
        path = tmp_path / name
        path.write_text(text)
        return path
    return file


def test_readme_s_op_from_a_file(run, write):
    path = write(PAIR + EXAMPLE)
    status, out, err = run("check", "--module", path)
    assert (status, err) == (0, "")
    assert out.splitlines()[2].split()[:2] == ["my_ops", "own"] and out.splitlines()[2].endswith("passed")
    assert out.endswith("1 of 1 checks passed, 36 entries compared\n")
    status, out, _ = run("check", "--module", path, "--mutants")
    assert status == 0
    assert out.endswith("24 of 24 mutants killed\n")


def test_a_mistake_in_a_file(run, write):
    path = write(PAIR.replace("return dz @ w.T if", "return -dz @ w.T if") + EXAMPLE)
    status, out, err = run("check", "--module", path)
    assert (status, err) == (1, "")
    assert "my_ops: dx is wrong at [" in out
    assert "likely cause: dx is -1 times what it should be, in every entry: a sign\n" in out
    assert "dw is wrong" not in out
    assert run("check", "--module", path, "--mutants") == (1, out, "")  # and no mutants of what is wrong already


def test_what_a_file_s_inputs_do_not_bring_out_is_not_put_in(write):
    """With one sample there is no row to be shifted to."""
    one = "def example(rng):\n    return [rng.normal(size=(1, 4)), rng.normal(size=(4, 3))]\n"
    outcomes = mutants_of_file(write(PAIR + one))
    assert "rows shifted" not in {o.mistake for o in outcomes}
    assert "rows shifted" in {o.mistake for o in mutants_of_file(write(PAIR + EXAMPLE))}
    assert all(o.killed for o in outcomes)


def test_several_ops_need_inputs_by_name(write):
    with pytest.raises(ValueError, match="because the file has 4 ops, but it has none for square"):
        load(write(SEVERAL.replace('"square"', '"squares"')))


def test_several_ops_with_inputs(write):
    path = write(SEVERAL.replace("same_again = cube = Cube()\n", ""))
    ops = {op.name: op for op in load(path)}
    assert list(ops) == ["Cube", "Scale", "square"]
    assert [(case.label, case.options) for case in ops["Scale"].cases] == [("default", {}), ("by 3", {"by": 3.0})]
    assert [case.label for case in ops["square"].cases] == ["case 0", "case 1"]
    reports = check_file(path)
    assert [report.op for report in reports] == ["Cube", "Scale", "Scale", "square", "square"]
    assert all(report.passed for report in reports)
    assert all(o.killed for o in mutants_of_file(path))


def test_seed_reaches_the_inputs(write):
    path = write(PAIR + EXAMPLE)
    first, again, other = (load(path, seed)[0].cases[0].arrays[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_neighbours_can_be_imported(write):
    write("HALF = 0.5\n", "neighbour_of_mine.py")
    assert check_file(write("import neighbour_of_mine\n" + PAIR + EXAMPLE))[0].passed


@pytest.mark.parametrize(("text", "message"), [
    ("x = 1\n", "my_ops.py: there is no op in it, which is a forward and a backward"),
    ("def f(:\n", "my_ops.py, line 1: invalid syntax"),
    ("import numpy as np\n1 / 0\n", "my_ops.py: it cannot be run: ZeroDivisionError: division by zero (line 2)"),
    ("def forward(x):\n    return x, x\n", "my_ops.py: my_ops has forward, but no backward"),
    (PAIR, "my_ops.py: my_ops has no inputs to be checked on: add CASES = [[x, w, ...]]"),
    (PAIR + "CASES = 7\n", "CASES must be a list of arrays, (list of arrays, dict of options), or several of these in "
                           "a list or dict, but is int"),
    (PAIR + "CASES = []\n", "CASES must be a list of arrays"),
    (PAIR + "CASES = [[[1.0, 2.0]]]\n", "but is list of list"),
    (PAIR + "def cases(rng):\n    return rng.normals(3)\n", "cases: AttributeError: "),
    (PAIR + "CASES = [[np.ones((2, 3)), np.ones((4, 5))]]\n", "my_ops: ValueError: matmul: "),
    (PAIR + "CASES = [[np.ones(3, int), np.ones(3, int)]]\n", "my_ops: there is nothing to check, because no array"),
    ("class A:\n    def __init__(self, n):\n        pass\n    def forward(self, x):\n        pass\n"
     "    def backward(self, dy, cache):\n        pass\n", "class A cannot be made without arguments (TypeError: "),
])
def test_what_is_wrong_with_a_file_is_one_line(run, write, text, message):
    path = write(text)
    status, out, err = run("check", "--module", path)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1 and str(path) in err and message in err


def test_no_file_and_options_that_do_not_fit(run, write, tmp_path):
    status, _, err = run("check", "--module", tmp_path / "absent.py")
    assert status == 2 and err == f"fastnet check: {tmp_path / 'absent.py'}: No such file or directory\n"
    status, _, err = run("check", "relu", "--module", write(PAIR + EXAMPLE))
    assert status == 2 and "relu: --module checks what is in the file; leave the names out" in err
