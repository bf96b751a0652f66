"""Ops in a file of one's own: what `fastnet check --module FILE` checks.

An op is the file itself, where it has `forward` and `backward`, and each class or object in it that has both. Its
inputs are what it, or the file, calls `cases`, `CASES`, `example` or `EXAMPLE`: an array list, such a list with a dict
of options behind it, or several of these, in a list or by label in a dict. A function of that name is called, with a
seeded `numpy.random.Generator` if it takes an argument. For several ops the file's inputs are by the op's name.

    CASES = {"small": [x, w], "strided": ([x, w], {"stride": 2})}
"""

import inspect
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.check import contract
from fastnet.check.cases import Case
from fastnet.check.mutants import CATALOGUE, Outcome, put_in
from fastnet.check.op import OpReport, check_op

INPUTS = ("cases", "CASES", "example", "EXAMPLE")


@dataclass(frozen=True)
class OwnOp:
    """An op of the file: its name, what has its passes, its inputs."""

    name: str
    module: Any
    cases: list[Case]


def check_file(path: Path, seed: int = 0) -> list[OpReport]:
    """Check the file's ops on their inputs; wrong gradients are in the reports. Raises as `load` does."""
    reports = []
    for op in load(path, seed):
        for case in op.cases:
            try:
                reports.append(check_op(op.module, case.arrays, case.options, name=op.name, case=case.label, seed=seed,
                                        raises=False))
            except Exception as error:
                raise ValueError(f"{path}: {op.name}{_of(case)}: {_said(error, path)}") from error
    return reports


def mutants_of_file(path: Path, seed: int = 0) -> list[Outcome]:
    """The mistakes that any op can have, put into those of the file, whose inputs have to bring them out."""
    outcomes = []
    for op in load(path, seed):
        precise = [Case(op.name, case.label, tuple(a.astype(np.float64) if contract.is_floating(a) else a
                                                   for a in case.arrays), case.options) for case in op.cases]
        outcomes += [put_in(mistake, op.name, "own", op.module, precise, seed=seed)
                     for mistake in CATALOGUE.values() if not mistake.ops]
    return [outcome for outcome in outcomes if outcome is not None]


def load(path: Path, seed: int = 0) -> list[OwnOp]:
    """Run the file and find its ops. Raises OSError where there is no file, ValueError for what is wrong in it."""
    module = _executed(path)
    found: dict[str, Any] = {}
    for name, value in [(path.stem, module), *vars(module).items()]:
        if value is module or not (name.startswith("_") or isinstance(value, types.ModuleType)):
            _add(found, path, name, value, module.__name__)
    if not found:
        raise ValueError(f"{path}: there is no op in it, which is a forward and a backward: functions of the file, or "
                         "of a class or an object in it")
    return [OwnOp(name, op, _cases(path, name, op, module, len(found), seed)) for name, op in found.items()]


def _executed(path):
    text = path.read_bytes()  # raises OSError
    module = types.ModuleType(f"own_{path.stem}")
    module.__file__ = str(path)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # as Python does for a script, so that it can import its neighbours
    sys.modules[module.__name__] = module  # dataclasses look there
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise ValueError(f"{path}: it cannot be run: {_said(error, path)}") from error
    finally:
        sys.path.remove(folder)
        del sys.modules[module.__name__]
    return module


def _add(found, path, name, value, module_name):
    has = [part for part in ("forward", "backward") if callable(getattr(value, part, None))]
    if not has or any(value is there for there in found.values()):
        return
    if isinstance(value, type):
        if value.__module__ != module_name:
            return  # imported
        if not isinstance(inspect.getattr_static(value, has[0]), (staticmethod, classmethod)):
            try:
                value = value()
            except Exception as error:
                raise ValueError(f"{path}: class {name} cannot be made without arguments ({_said(error, path)}); make "
                                 f"an object of it in the file") from error
    if len(has) == 1:
        other = {"forward": "backward", "backward": "forward"}[has[0]]
        raise ValueError(f"{path}: {name} has {has[0]}, but no {other}")
    found[name] = value


def _cases(path, name, op, module, count, seed):
    for owner in (op, module):
        for attribute in INPUTS:
            given = getattr(owner, attribute, None)
            if given is None:
                continue
            where = f"{path}: {attribute}" + (f" of {name}" if owner is not module else "")
            if callable(given):
                given = _called(given, where, path, seed)
            if owner is module and count > 1:
                if not isinstance(given, dict) or name not in given:
                    raise ValueError(f"{where} must be a dict from an op's name to its inputs, because the file has "
                                     f"{count} ops, but it has none for {name}")
                given = given[name]
            cases = _listed(name, given)
            if cases is None:
                raise ValueError(f"{where} must be a list of arrays, (list of arrays, dict of options), or several of "
                                 f"these in a list or dict, but is {_kind(given)}")
            return cases
    raise ValueError(f"{path}: {name} has no inputs to be checked on: add CASES = [[x, w, ...]], the arrays that its "
                     "forward takes, or a function cases(rng) that returns them")


def _called(function, where, path, seed):
    try:
        takes_rng = bool(inspect.signature(function).parameters)
        given = function(np.random.default_rng(seed)) if takes_rng else function()
        return list(given) if isinstance(given, types.GeneratorType) else given
    except Exception as error:
        raise ValueError(f"{where}: {_said(error, path)}") from error


def _listed(name, given):
    """The cases, or None where they are of no form that is known."""
    one = _case(given)
    if one is not None:
        given = {"": given}
    elif isinstance(given, (list, tuple)):
        given = {f"case {i}" if len(given) > 1 else "": case for i, case in enumerate(given)}
    if not isinstance(given, dict) or not given:
        return None
    cases = {label: _case(case) for label, case in given.items()}
    if any(case is None for case in cases.values()):
        return None
    return [Case(name, str(label), *case) for label, case in cases.items()]


def _case(given):
    """(arrays, options), or None."""
    options: dict[str, Any] = {}
    if isinstance(given, (list, tuple)) and len(given) == 2 and isinstance(given[1], dict):
        given, options = given
    if not isinstance(given, (list, tuple)) or all(a is None for a in given):
        return None
    return (tuple(given), options) if all(a is None or hasattr(a, "dtype") for a in given) else None


def _of(case):
    return f" ({case.label})" if case.label else ""


def _kind(given):
    inner = f" of {type(given[0]).__name__}" if isinstance(given, (list, tuple)) and given else ""
    return f"{type(given).__name__}{inner}"


def _said(error, path):
    """The error, and the last line of the file that it came through."""
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = f" (line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {' '.join(str(error).split())}{line}"
