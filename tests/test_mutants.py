"""Mistakes put into every implementation on purpose are found and named; a check that is blind lets them live."""

import ast
import functools
import inspect

import numpy as np
import pytest

from fastnet import backend
from fastnet.check import check_optimizer, check_penalty, check_schedule, check_statistics, mutants
from fastnet.check.cases import cases, ops
from fastnet.check.errors import BOUNDS, GradientError
from fastnet.check.mutants import CATALOGUE, Mistake, check_mutants, put_in, source
from fastnet.check.mutants.equivalent import EQUIVALENT
from fastnet.check.mutants.levels import LEVELS, network
from fastnet.check.mutants.mistake import of_each
from fastnet.functions import adam_update
from fastnet.ops import avg_pool2d, linear, relu
from fastnet.optim import optimizers, penalties, schedules

IMPLEMENTATIONS = ("reference", "cpu")


@functools.cache
def outcomes(op):
    return check_mutants([op], IMPLEMENTATIONS)


@pytest.mark.parametrize("op", ops())
def test_every_mistake_in_an_op_is_found_and_named(op):
    alive = [(o.mistake, o.implementation, o.failures) for o in outcomes(op) if not o.killed]
    assert not alive
    assert {o.implementation for o in outcomes(op)} <= set(IMPLEMENTATIONS)
    assert sum(o.implementation == "reference" for o in outcomes(op)) >= 20


def test_every_mistake_is_put_where_it_belongs():
    there = {(o.mistake, o.op, o.implementation) for op in ops() for o in outcomes(op)}
    for mistake in CATALOGUE.values():
        assert set(mistake.ops) <= set(ops())
        for op in mistake.ops:
            assert (mistake.name, op, "reference") in there, f"{mistake.name} changes nothing in any case of {op}"
        assert any(name == mistake.name for name, _, _ in there)
    assert len(CATALOGUE) >= 140 and not set(CATALOGUE) & set(LEVELS)
    assert not (set(CATALOGUE) | set(LEVELS)) & set(ops())  # the command line takes both


@pytest.mark.parametrize("op", ["linear", "relu", "batch_norm_relu", "max_pool2d", "softmax_cross_entropy"])
def test_mistakes_in_cuda_kernels(op, emulated_device):
    names = ["sign", "last sample dropped", "float32 inside", "not a number", "cache of the first call",
             "x changed in place", "needs ignored", "no variance term", "w read transposed", "mask of dy",
             "winner one column late", "no one-hot", "dbeta averaged"]
    found = check_mutants([op, *names], ("cuda",), device="emulated")
    assert len(found) >= 7 and {o.implementation for o in found} == {"cuda"}
    assert [(o.mistake, o.failures) for o in found if not o.killed] == []


@pytest.mark.parametrize("name", LEVELS)
def test_mistakes_above_the_ops(name):
    mistake = LEVELS[name]
    report = mistake.check(mistake.broken)
    assert any(mistake.names in line for line in report.failures), report.failures
    assert _right(mistake.part, repr(mistake.right)).passed


@functools.cache
def _right(part, right):
    mistake = next(m for m in LEVELS.values() if m.part == part and repr(m.right) == right)
    return mistake.check(mistake.right)


# --- a mutant that lives is seen ---

def test_a_blind_check_lets_mutants_live(run, monkeypatch):
    for method in BOUNDS:
        monkeypatch.setitem(BOUNDS, method, {8: 1e-2, 4: 1e-2})
    found = check_mutants(["relu"], ("reference",))
    assert {"thousandth", "one entry", "float32 inside"} <= {o.mistake for o in found if not o.killed}
    status, out, _ = run("check", "--mutants", "tanh", "one entry")
    assert status == 1
    assert "tanh (reference): 'one entry' lives: " in out
    assert out.endswith("0 of 2 mutants killed\n")


def test_who_accuses_another_has_not_found_it():
    """db is changed, but dw too, behind the mutant's back: the check names both."""
    def twofold(dy, cache, needs=None):
        dx, dw, db = linear.backward(dy, cache, needs)
        return dx, None if dw is None else 2 * dw, db

    module = mutants.mistake.pair(linear.forward, twofold)
    only_b = Mistake("b", "", backward=lambda call: {"b": 2 * call.gradients["b"]})
    case = cases("linear")[:1]
    assert not put_in(only_b, "linear", "own", module, case, linear).killed
    assert put_in(only_b, "linear", "own", linear, case, linear).killed
    unnamed = Mistake("b", "", backward=only_b.backward, names=("nobody says this",))
    assert not put_in(unnamed, "linear", "own", linear, case, linear).killed


def test_what_changes_nothing_is_no_mutant():
    same = Mistake("same", "", backward=of_each(lambda g, call: g + 0))
    assert put_in(same, "relu", "reference", relu, cases("relu"), relu) is None
    no_oracle = Mistake("y", "", forward=lambda call: 2 * call.y)
    assert put_in(no_oracle, "relu", "own", relu, cases("relu")) is None
    assert put_in(no_oracle, "relu", "own", relu, cases("relu"), relu).killed


def test_the_true_pair_is_left_as_it_is():
    signature = avg_pool2d.forward.__dict__.copy()
    put_in(CATALOGUE["dy changed in place"], "avg_pool2d", "reference", avg_pool2d, cases("avg_pool2d"), avg_pool2d)
    assert avg_pool2d.forward.__dict__ == signature == {}


def test_command(run):
    status, out, err = run("check", "--mutants", "tanh", "--seed", 2)
    assert (status, err) == (0, "")
    assert out.splitlines()[0].split() == ["mistake", "cpu", "reference", "ops"]
    killed, _, total = out.splitlines()[-1].split()[:3]
    assert killed == total and int(total) > 50
    status, out, _ = run("check", "--mutants", "lambda for 2 lambda")
    assert (status, out.splitlines()[-1]) == (0, "1 of 1 mutants killed")
    status, out, err = run("check", "--mutants", "tanhh")
    assert (status, out) == (2, "") and "'tanhh': no such op or mistake; ops are augment_conv2d" in err
    assert run("check", "--mutants", "--mutate")[0] == 2


# --- the source of the reference, mutated ---

def test_every_place_is_changed():
    text = ("def f(x):\n    if x < 1:\n        raise ValueError(x + 1)\n    check(x)\n    y = -x * 2\n    y += 3\n"
            "    return y\n")
    found = {change for change, _ in source.mutants(text)}
    assert found == {
        "f: y = -x * 2 -> y = -x / 2", "f: y = -x * 2 -> y = -x", "f: y = -x * 2 -> y = 2",
        "f: y = -x * 2 -> y = x * 2", "f: y = -x * 2 -> y = -x * 3", "f: y = -x * 2 -> y = -x * 0",
        "f: y = -x * 2 -> (left out)",
        "f: y += 3 -> y -= 3", "f: y += 3 -> y = 3", "f: y += 3 -> (left out)", "f: y += 3 -> y += 4",
        "f: y += 3 -> y += 0"}
    for change, tree in source.mutants(text):
        assert ast.unparse(tree) != ast.unparse(ast.parse(text)), change
    assert list(source.mutants("def check(x):\n    return x + 1\n")) == []


def test_a_sample_of_ops_is_mutated():
    reports = source.mutate(["linear", "relu", "sigmoid"]) + source.mutate(["batch_norm", "conv2d"], every=6)
    assert source.alive(reports) == []
    assert [r.mutants for r in reports] == [28, 13, 16, 14, 20]
    assert [(s.op, s.reason) for r in reports[:3] for s in r.survivors] == [("relu", EQUIVALENT["relu", "x.real < 0"])]
    assert source.total(reports[:3]) == "56 of 57 mutants killed, 1 more equivalent, 0 alive"


def test_a_new_survivor_fails(run, monkeypatch):
    monkeypatch.delitem(EQUIVALENT, ("relu", "x.real < 0"))
    status, out, _ = run("check", "--mutate", "relu")
    assert status == 1
    assert "relu: forward: y = xp.where(x.real <= 0, xp.zeros_like(x), x) -> y = xp.where(x.real < 0, " in out
    assert out.endswith("12 of 13 mutants killed, 0 more equivalent, 1 alive\n")
    assert run("check", "--mutate", "relux")[0] == 2
    assert run("check", "--mutate", "--module", "x.py")[0] == 2


def test_what_is_known_as_equivalent_is_there():
    """Each entry names a change that is made to that op: none is left over from code that is gone."""
    for op in sorted({op for op, _ in EQUIVALENT}):
        changes = [change for change, _ in source.mutants(inspect.getsource(backend.module("reference", op)))]
        lines = [f"{change.partition(' -> ')[0 if change.endswith('(left out)') else 2]}$" for change in changes]
        for where, piece in EQUIVALENT:
            if where == op:
                assert sum(piece in line for line in lines) in (1, 2), piece


# --- the checks of what follows the gradients ---

@pytest.mark.parametrize("optimizer", [
    optimizers.SGD(), optimizers.SGD(momentum=0.9), optimizers.SGD(momentum=0.8, nesterov=True),
    *(optimizers.Adam(eps_mode=mode, eps=1e-3) for mode in adam_update.EPS_MODES), optimizers.AdamW(weight_decay=0.1),
    optimizers.Adagrad(initial=0.1), optimizers.Adadelta(), optimizers.Adamax(), optimizers.RMSprop(),
    optimizers.RMSprop(eps_mode="inside")], ids=lambda o: f"{o.name} {o.settings()}")
def test_optimizers_follow_their_recurrences(optimizer):
    assert check_optimizer(optimizer).rows[0].differences < 1e-14


@pytest.mark.parametrize("penalty", [
    penalties.L2(0.1), penalties.WeightDecay(0.1), penalties.DecoupledDecay(0.1), penalties.L1(0.1),
    penalties.L1(0.1, proximal=True), penalties.Sum([penalties.L2(0.1), penalties.L1(0.2)])], ids=lambda p: str(
        p.settings()))
def test_penalties_are_their_costs_derivatives(penalty):
    assert check_penalty(penalty).passed


@pytest.mark.parametrize("schedule", [
    schedules.constant(0.1), schedules.triangular(half_cycle_steps=17), schedules.exponential(0.1, 0.97, unit="step"),
    schedules.exponential(0.1, 0.9, unit="epoch", steps_per_epoch=13),
    schedules.step_decay(0.2, 0.1, [2, 5], unit="epoch", steps_per_epoch=11),
    schedules.step_decay(0.2, 0.5, 30, unit="step"), schedules.cosine(0.1, steps=150, floor=0.01),
    schedules.one_cycle(0.3, steps=120), schedules.warmup_linear(0.1, warmup_steps=20, steps=180)], ids=repr)
def test_schedules_follow_their_formulas(schedule):
    assert check_schedule(schedule).rows[0].differences < 1e-13


def test_what_has_no_formula_needs_one():
    own = optimizers.SGD()
    own.name = "own"
    with pytest.raises(ValueError, match="own has no textbook recurrence here; give one"):
        check_optimizer(own)
    assert check_optimizer(own, lambda w, lr, g, s: (w := w - lr * x for x in g)).passed
    with pytest.raises(GradientError, match="own: w is wrong at update 0, entry 0: "):
        check_optimizer(own, lambda w, lr, g, s: (w := w - 2 * lr * x for x in g))
    flat = schedules.Schedule("flat", {}, lambda step: 0.1)
    with pytest.raises(ValueError, match="flat has no formula here; give one"):
        check_schedule(flat)
    assert check_schedule(flat, lambda t, s: 0.1).passed


def test_running_statistics_of_a_model():
    x = np.random.default_rng(0).normal(size=(6, 3, 3, 2))
    model = network()
    before = {name: value.copy() for name, value in model.state().items()}
    assert check_statistics(model, x).passed
    assert all(np.array_equal(value, before[name]) for name, value in model.state().items())
    plain = network(norm=lambda features: mutants.levels.Tanh())
    with pytest.raises(ValueError, match="the model has no batch normalisation"):
        check_statistics(plain, x)
