"""A second opinion on the checks: the source of the reference's ops with one place changed, whatever that place is.

Operators are exchanged, terms and statements left out, constants, comparisons and signs changed. Each mutant is
compiled in memory under another name and goes through `check_op` with the original as its oracle; its gradients are
compared with the original's too. What lives is listed: known as equivalent, with the reason, or not.

    fastnet check --mutate [OP ...]

Source of the method: DeMillo, Lipton & Sayward, "Hints on test data selection", 1978.
"""

import ast
import inspect
import types
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.check.cases import Case, cases, ops
from fastnet.check.evidence import signed
from fastnet.check.mutants.equivalent import EQUIVALENT
from fastnet.check.op import check_op

BINARY: dict[type, tuple[type, ...]] = {ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,),
                                        ast.Div: (ast.Mult,), ast.BitOr: (ast.BitAnd,), ast.BitAnd: (ast.BitOr,)}
COMPARISON: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,)}
CHECKS = ("check", "_check")  # what refuses bad arguments: no matter of gradients, and tested elsewhere
ENTRIES = 4  # differentiated one by one; the adjoint test and the comparison with the original see the others


@dataclass(frozen=True)
class Survivor:
    """A mutant that no check found; `reason` says why it is equivalent, "" where nobody has said so."""

    op: str
    change: str
    reason: str


@dataclass(frozen=True)
class Report:
    """What became of the mutants of one op."""

    op: str
    mutants: int
    survivors: list[Survivor]


def mutate(names: Iterable[str] | None = None, every: int = 1) -> list[Report]:
    """Mutate the named ops (all); of their mutants each `every`-th. Raises ValueError for an op that is not there."""
    names = ops() if names is None else list(names)
    if wrong := [name for name in names if name not in ops()]:
        raise ValueError(f"{', '.join(map(repr, wrong))}: no such op; ops are {', '.join(ops())}")
    return [_mutated(op, every) for op in names]


def _mutated(op, every):
    original: Any = backend.module("reference", op)
    inputs = [(case, *_passes(original, case)) for case in cases(op)]
    count, survivors = 0, []
    for number, (change, tree) in enumerate(mutants(inspect.getsource(original))):
        if number % every:
            continue
        count += 1
        if not _killed(op, original, tree, inputs):
            survivors.append(Survivor(op, change, _reason(op, change)))
    return Report(op, count, survivors)


def _reason(op, change):
    line, _, new = change.partition(" -> ")
    line = line + "$" if new == "(left out)" else new + "$"  # $: the end of the line
    return next((why for (where, piece), why in EQUIVALENT.items() if where == op and piece in line), "")


def mutants(source: str) -> Iterator[tuple[str, ast.Module]]:
    """(what is changed, as "function: old -> new", the changed tree) for every place and change of an op's source.

    It is one tree, which is changed back when the next one is asked for.
    """
    tree = ast.parse(source)
    for function in (f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name not in CHECKS):
        line = _lines(function)
        for node, parent, key, at in list(_places(function)):
            old = _header(line[node])
            for new in _changes(node):
                _put(parent, key, at, ast.Pass() if new is None else new)
                ast.fix_missing_locations(tree)
                text = "(left out)" if new is None else _header(new if line[node] is node else line[node])
                yield f"{function.name}: {old} -> {text}", tree
                _put(parent, key, at, node)


def _put(parent, key, at, node):
    if at is None:
        setattr(parent, key, node)
    else:
        getattr(parent, key)[at] = node


def _places(function) -> Iterator[tuple[ast.AST, ast.AST, str, int | None]]:
    """(node, its parent, where it stands in the parent) of all that computes in a function.

    Bare calls and conditions for an error refuse arguments, and are left alone like `CHECKS`.
    """
    refusing = {id(inner) for node in ast.walk(function)
                if isinstance(node, ast.Expr) or (isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise))
                for inner in ast.walk(node)}
    for parent in ast.walk(function):
        for key, value in ast.iter_fields(parent):
            if key in ("args", "decorator_list", "returns") and isinstance(parent, ast.FunctionDef):
                continue
            for at, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(node, ast.AST) and id(node) not in refusing:
                    yield node, parent, key, at


def _changes(node) -> Iterator[ast.AST | None]:
    """The replacements of a node; None leaves a statement out."""
    if isinstance(node, ast.BinOp):
        for kind in BINARY.get(type(node.op), ()):
            yield ast.BinOp(node.left, kind(), node.right)
        yield node.left
        if not isinstance(node.op, ast.Sub | ast.Div):
            yield node.right
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        yield node.operand
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for kind in COMPARISON.get(type(node.ops[0]), ()):
            yield ast.Compare(node.left, [kind()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        yield ast.Constant(node.value + 1)
        if node.value:
            yield ast.Constant(0)
    elif isinstance(node, ast.AugAssign) and type(node.op) in BINARY:
        yield ast.AugAssign(node.target, BINARY[type(node.op)][0](), node.value)
        yield ast.Assign([node.target], node.value)
        yield None
    elif isinstance(node, ast.Assign | ast.For | ast.If):
        yield None


def _lines(function):
    """The statement that each node stands in."""
    line: dict[ast.AST, ast.AST] = {}
    for parent in ast.walk(function):
        for child in ast.iter_child_nodes(parent):
            line[child] = child if isinstance(child, ast.stmt) else line.get(parent, child)
    return line


def _header(statement):
    """The first line of a statement; of a compound one the line that ends with a colon."""
    return ast.unparse(statement).partition("\n")[0]


def _passes(module, case):
    """(y, dy, gradients) of one call."""
    y, cache = module.forward(*_copies(case), **case.options)
    dy = np.asarray(signed(np.random.default_rng(0), y.shape))
    return y, dy, module.backward(dy, cache)


def _copies(case: Case) -> list[Any]:
    return [None if a is None else a.copy() for a in case.arrays]


def _killed(op, original, tree, inputs):
    """Whether a check fails, a value differs from the original's by more than rounding, or the mutant cannot run."""
    mutant = types.ModuleType(f"mutant_of_{op}")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            exec(compile(tree, f"<mutant of {op}>", "exec"), mutant.__dict__)
            for case, y, dy, gradients in inputs:
                ours, cache = mutant.forward(*_copies(case), **case.options)
                if not _close(ours, y) or not all(map(_close, mutant.backward(dy, cache), gradients)):
                    return True
                if not check_op(mutant, _copies(case), case.options, oracle=original, name=op, entries=ENTRIES,
                                raises=False).passed:
                    return True
        except Exception:  # whatever a change of any place leads to
            return True
    return False


def _close(a, b):
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and bool(np.max(np.abs(a - b), initial=0)
                                                              <= 1e-13 * np.max(np.abs(b), initial=0))


def rows(reports: Iterable[Report]) -> Iterator[tuple[str, ...]]:
    """A line an op: mutants, killed, equivalent, alive."""
    yield "op", "mutants", "killed", "equivalent", "alive"
    for r in reports:
        known = sum(bool(s.reason) for s in r.survivors)
        yield (r.op, str(r.mutants), str(r.mutants - len(r.survivors)), str(known), str(len(r.survivors) - known))


def alive(reports: Iterable[Report]) -> list[str]:
    """A line for each survivor that is not known as equivalent."""
    return [f"{s.op}: {s.change} lives" for r in reports for s in r.survivors if not s.reason]


def total(reports: list[Report]) -> str:
    mutants, survivors = sum(r.mutants for r in reports), [s for r in reports for s in r.survivors]
    known = sum(bool(s.reason) for s in survivors)
    return (f"{mutants - len(survivors)} of {mutants} mutants killed, {known} more equivalent, "
            f"{len(survivors) - known} alive")
