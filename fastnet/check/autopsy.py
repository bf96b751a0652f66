"""What a wrong gradient looks like, beside the right one: the likely cause in a line, with the op's equation.

The right gradient is that of the oracle where its backward pass agrees with the evidence, else it is known from the
complex step (from differences, where a forward pass takes no complex numbers) for arrays that are not too large. Either
gives the gradient for any other dy too, with which it can be told what a sum left out.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastnet.arrays import Array, to_numpy
from fastnet.check import contract
from fastnet.check.complex_step import H, as_complex
from fastnet.check.differences import differences
from fastnet.check.evidence import Evidence
from fastnet.check.patterns import PATTERNS, Clue

MOST_ENTRIES = 4000  # of an array whose gradient is worked out in full
MOST_PRODUCTS = 4_000_000  # of its entries with those of y


def likely_cause(what: str, clue: Clue, equation: str = "") -> str:
    """One line about `what` ("dx"): the first pattern that fits, and the equation it should have followed."""
    for pattern in PATTERNS:
        if said := pattern(clue):
            break
    else:
        said = "fits no pattern that is known here"
    return f"{what} {said}" + (f"  [{equation}]" if equation else "")


def of_op(arguments: Mapping[str, tuple[int, Evidence]], wrong: Sequence[str], found: Mapping[str, np.ndarray],
          module: Any, oracle: Any, exact: Callable | None, arrays: Sequence[Array], options: dict[str, Any],
          u: np.ndarray, samples: int) -> list[str]:
    """A line for each wrong gradient of an op.

    `arguments`: name -> (place among the arrays, evidence); `exact`, the forward pass that takes complex numbers.
    """
    known = {name: (_of_oracle(place, e, oracle, arrays, options, u) if oracle is not None else None)
             or _worked_out(place, e, module.forward, exact, arrays, options, u)
             for name, (place, e) in arguments.items()
             if len(wrong) < 2 or name in wrong or found[name].shape in [found[w].shape for w in wrong]}
    lines = []
    for name in wrong:
        right, of_dy = known[name]
        tolerance = 1e-9 if exact is not None else 1e-6
        clue = Clue(found[name], right, tolerance, samples, of_dy, u, to_numpy(arrays[arguments[name][0]]),
                    {other: r for other, (r, _) in known.items() if other != name},
                    functools.partial(_calls_instead, arguments[name][0], oracle, arrays, options, u))
        lines.append(likely_cause(f"d{name}", clue, equation(oracle or module, f"d{name}")))
    return lines


def of_evidence(name: str, gradient: np.ndarray, evidence: Evidence, samples: int) -> str:
    """The line for a gradient of which some entries are known, from `evidence` alone."""
    numeric = evidence.differences if evidence.complex_step is None else evidence.complex_step
    return likely_cause(f"d{name}", Clue(gradient, _spread(gradient.shape, evidence.coordinates, numeric),
                                         1e-9 if evidence.complex_step is not None else 1e-6, samples))


def equation(module: Any, what: str) -> str:
    """The equation `what = ...` of the module's docstring, "" where there is none."""
    for line in (inspect.getdoc(module) or "").splitlines():
        for part in re.split(r"\s{2,}(?=\S+ +=)", line.strip()):
            if re.match(rf"{re.escape(what)}(_\w+)? *=", part):
                return re.sub(r"\s{2,}", " ", re.split(r"\s{3,}(?!=)", re.sub(r"\s+=", " =", part))[0])
    return ""


def _of_oracle(place, evidence, oracle, arrays, options, u):
    """(the right gradient, its function of dy) by the oracle's backward pass; None where that is missing or wrong."""
    if not callable(getattr(oracle, "backward", None)):
        return None
    host = [None if a is None else np.array(to_numpy(a)) for a in arrays]
    _, cache = oracle.forward(*(a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in host),
                              **options)

    def of_dy(dy):
        return np.asarray(oracle.backward(dy, cache)[place])

    right = of_dy(u)
    return None if evidence.wrong(right) else (right, of_dy)


def _calls_instead(place, oracle, arrays, options, u):
    """What the oracle's gradient is for calls that a mistake may take this one for: (what is other, the gradient)."""
    if not callable(getattr(oracle, "backward", None)):
        return
    host = [None if a is None else np.array(to_numpy(a)) for a in arrays]
    host = [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in host]
    y = oracle.forward(*host, **options)[0]
    calls = [(f"{name} had its default", host, {k: v for k, v in options.items() if k != name}) for name in options]
    for i, name in enumerate(contract.argument_names(oracle, len(host))):
        for text, a in _read_otherwise(host[i], host[0], y):
            calls.append((f"{name} were {text}", [*host[:i], a, *host[i + 1 :]], options))
    for what, given, other in calls:
        try:
            with np.errstate(all="ignore"):
                there, cache = oracle.forward(*given, **other)
                gradient = oracle.backward(_fitted(u, there.shape), cache)[place]
        except (ValueError, TypeError, IndexError):
            continue  # there is no such call
        yield what, np.asarray(gradient)


def _fitted(u, shape):
    """dy as a pass sees it whose y has another shape: cut, or with zeros behind it."""
    if u.shape == shape:
        return u
    dy = np.zeros(shape)
    both = tuple(slice(min(a, b)) for a, b in zip(shape, u.shape, strict=True))
    dy[both] = u[both]
    return dy


def _read_otherwise(a, x, y):
    """Ways in which a mistake may see an array: (words, array)."""
    if a is None or not a.size:
        return
    if a.dtype.kind in "iu":
        yield "one more (counted from 1)", (a + 1) % x.shape[-1]
        return
    yield "its size |...|", np.abs(a)
    yield "of the other sign", -a
    if a is x and a.shape == y.shape:
        yield "y", y
    if a.ndim > 1:
        yield "in the order of its transpose", np.ascontiguousarray(a.swapaxes(-1, -2)).reshape(a.shape)
    if a.ndim == 4:
        yield "turned around along its first two axes", np.ascontiguousarray(a[::-1, ::-1])
        if a.shape[0] == a.shape[1]:
            yield "transposed in its first two axes", np.ascontiguousarray(a.swapaxes(0, 1))
        for axis in (1, 2):
            late = np.roll(a, 1, axis)
            late[(slice(None),) * axis + (0,)] = 0
            yield f"shifted by 1 along axis {axis}", late


def _worked_out(place, evidence, forward, oracle, arrays, options, u):
    """(the right gradient, NaN where it is not known; its function of dy, or None) by numerical derivatives."""
    shape = tuple(arrays[place].shape)
    size = int(np.prod(shape))
    if size > MOST_ENTRIES or size * u.size > MOST_PRODUCTS:
        numeric = evidence.differences if evidence.complex_step is None else evidence.complex_step
        return _spread(shape, evidence.coordinates, numeric), None
    if oracle is None:
        return differences(forward, arrays, options, u, place, np.arange(size)).reshape(shape), None
    jacobian = np.empty((size, u.size))
    values = as_complex(arrays)
    flat = values[place].flat
    for j in range(size):
        flat[j] = flat[j] + 1j * H
        jacobian[j] = np.asarray(oracle(*values, **options)[0]).imag.reshape(-1) / H
        flat[j] = flat[j].real

    def of_dy(dy):
        return (jacobian @ dy.reshape(-1)).reshape(shape)

    return of_dy(u), of_dy


def _spread(shape, coordinates, numeric):
    right = np.full(shape, np.nan)
    if numeric is not None:
        right.reshape(-1)[coordinates] = numeric
    return right
