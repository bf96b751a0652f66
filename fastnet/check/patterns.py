"""Patterns that an error can have: each function looks at a wrong array and the right one, and says what it sees.

They are given `Clue`s and return a sentence without its subject, or None. `PATTERNS` has the telling ones first.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Clue:
    """A wrong array, the right one (NaN where it is not known), and what else helps to tell.

    `u` is the op's dy, and `of_dy` gives the right gradient for another one; `x` is the argument itself and `others`
    the right gradients of other arguments. `tolerance` is what counts as equal, in units of the largest entry.
    """

    wrong: np.ndarray
    right: np.ndarray
    tolerance: float = 1e-9
    samples: int = 0
    of_dy: Callable[[np.ndarray], np.ndarray] | None = None
    u: np.ndarray | None = None
    x: np.ndarray | None = None
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    instead: Callable[[], Iterable[tuple[str, np.ndarray]]] = tuple  # (what else had been given, the gradient then)

    def same(self, a: np.ndarray, b: np.ndarray) -> bool:
        """Whether a and b agree wherever both are known, and that is not for want of entries or for zeros alone."""
        known = np.isfinite(a) & np.isfinite(b)
        largest = max(np.max(np.abs(a[known]), initial=0.0), np.max(np.abs(b[known]), initial=0.0))
        return bool(largest > 0 and np.max(np.abs(a[known] - b[known])) <= self.tolerance * largest)

    @property
    def off(self) -> np.ndarray:
        """Which known entries are wrong."""
        distance = np.abs(self.wrong - self.right)
        return np.isfinite(self.right) & ~(distance <= self.tolerance * np.nanmax(np.abs(self.right), initial=0.0))


def not_a_number(clue: Clue) -> str | None:
    bad = ~np.isfinite(clue.wrong)
    if not bad.any():
        return None
    return (f"is not a number from {index(bad)} on ({bad.sum()} of {bad.size} entries): 0/0, the logarithm or power of "
            "a negative number, an overflow, or memory that was never written")


def right(clue: Clue) -> str | None:
    if clue.off.any() or not clue.same(clue.wrong, clue.right):
        return None
    return "is the oracle's derivative: backward is right, but the forward pass is not the oracle's"


def zero(clue: Clue) -> str | None:
    if clue.wrong.any():
        return None
    return "is zero everywhere: it is never computed, or it is added to a copy"


def single_precision(clue: Clue) -> str | None:
    known = np.isfinite(clue.right)
    rounded = clue.wrong.astype(np.float32).astype(np.float64)
    if not known.any() or not np.array_equal(rounded, clue.wrong):
        return None
    if np.max(np.abs(clue.wrong - clue.right)[known]) <= 1e-6 * np.max(np.abs(clue.right[known])):
        return "has the digits of float32: it is computed or kept in single precision"
    return None


def one_entry(clue: Clue) -> str | None:
    off = clue.off
    if off.sum() != 1 or np.isfinite(clue.right).sum() < 3:
        return None
    at = tuple(np.argwhere(off)[0])
    return (f"is wrong in only entry {index(off)}, {clue.wrong[at]:.6g} for {clue.right[at]:.6g}: the first or "
            "last of a loop?")


def dy_left_out(clue: Clue) -> str | None:
    """dy is taken for ones, or its sign is lost."""
    if clue.u is None:
        return None
    if clue.u.size == 1:  # of a loss: a number
        said = clue.same(clue.wrong * clue.u, clue.right) and abs(float(clue.u.reshape(-1)[0]) - 1) > 1e-3
        return "is what it should be for a dy of 1: dy is left out" if said else None
    if clue.of_dy is None:
        return None
    if clue.same(clue.wrong, clue.of_dy(np.ones_like(clue.u))):
        return "is what it should be for a dy of ones: dy is left out"
    if clue.same(clue.wrong, clue.of_dy(np.abs(clue.u))):
        return "is what it should be for |dy|: the sign of dy is lost"
    return None


def ratio(clue: Clue) -> str | None:
    known = np.isfinite(clue.right)
    g, n = clue.wrong[known], clue.right[known]
    factor = float(np.vdot(n, g) / np.vdot(n, n)) if n.any() else 0.0
    if factor == 0 or not clue.same(g, factor * n):
        return None
    why = {-1.0: ": a sign", 2.0: ": a factor of 2 too many, or a sum taken twice",
           0.5: ": a factor of 1/2 too many, or of 2 missing"}.get(round(factor, 9), "")
    text = f"{factor:.6g} times"
    for count, name in ((clue.samples, "N"), (0, "")):
        inverse = 1 / factor
        if count > 2 and abs(factor - count) < 1e-6 * count:
            text, why = f"{name} = {count} times", f": the mean over the {count} samples is a sum"
        elif count > 2 and abs(inverse - count) < 1e-6 * count:
            text, why = f"1/{name} = 1/{count} times", ": a sum over the samples is a mean, or the mean is taken twice"
        elif not count and abs(inverse) > 2.5 and abs(inverse - round(inverse)) < 1e-6 and text[0] not in "N1":
            text = f"{'-' if inverse < 0 else ''}1/{abs(round(inverse))} times"
    return f"is {text} what it should be, in every entry{why}"


def channel_ratio(clue: Clue) -> str | None:
    """A factor for each entry of the last axis."""
    if clue.wrong.ndim < 2 or np.isnan(clue.right).any():
        return None
    g, n = (a.reshape(-1, a.shape[-1]) for a in (clue.wrong, clue.right))
    squares = (n * n).sum(axis=0)
    if len(n) < 3 or not squares.all():
        return None
    if not clue.same(g, n * ((g * n).sum(axis=0) / squares)):
        return None
    return "has a wrong factor for each channel: a scale such as gamma or 1/sqrt(var + eps) is missing or applied twice"


def transposed(clue: Clue) -> str | None:
    n, shape = clue.right, clue.right.shape
    for a, b in itertools.combinations(range(n.ndim), 2):
        if min(shape[a], shape[b]) < 2:
            continue
        if shape[a] == shape[b] and clue.same(clue.wrong, n.swapaxes(a, b)):
            return f"is transposed: axes {a} and {b} are exchanged"
        if clue.same(clue.wrong, n.swapaxes(a, b).reshape(shape)):
            return f"lies in memory as if transposed: axes {a} and {b} are read in the other order"
    return None


def flipped(clue: Clue) -> str | None:
    long = [a for a in range(clue.right.ndim) if clue.right.shape[a] > 1]
    for count in range(1, len(long) + 1):
        for axes in itertools.combinations(long, count):
            if clue.same(clue.wrong, np.flip(clue.right, axes)):
                return (f"is flipped along {'axes' if count > 1 else 'axis'} {', '.join(map(str, axes))}: convolution "
                        "for correlation, or a loop that runs the other way")
    return None


def shifted(clue: Clue) -> str | None:
    for axis, length in enumerate(clue.right.shape):
        for by in sorted(range(1 - length, length), key=lambda k: (abs(k), k < 0)):
            if not by:
                continue
            around = np.roll(clue.right, by, axis)
            inside = around.copy()
            edge = slice(None, by) if by > 0 else slice(by, None)
            inside[(slice(None),) * axis + (edge,)] = 0
            if clue.same(clue.wrong, around) or clue.same(clue.wrong, inside):
                return f"is shifted by {by} along axis {axis}: an offset, padding or index is off by that"
    return None


def lost_or_extra(clue: Clue) -> str | None:
    """Zeros in the wrong places; everything else is right."""
    g, n = clue.wrong, clue.right
    off, known = clue.off, np.isfinite(n)
    lost, extra = off & (g == 0), off & (n == 0)
    if off.any() and np.array_equal(off, lost):
        for axis in range(g.ndim):
            rows = np.asarray(off.any(axis=tuple(a for a in range(g.ndim) if a != axis)))
            whole = np.asarray((g == 0).all(axis=tuple(a for a in range(g.ndim) if a != axis)))
            if rows.any() and not (rows & ~whole).any() and not rows.all():
                what = "sample" if axis == 0 and clue.samples == len(rows) else f"axis {axis}, entry"
                return (f"is zero for {what} {spelled(np.flatnonzero(rows))} and right elsewhere: a loop or chunk that "
                        "ends too early")
        return (f"is zero in {off.sum()} entries that must not be, from {index(off)} on, and right elsewhere: "
                "contributions are lost")
    if off.any() and np.array_equal(off, extra):
        return (f"is not zero in {off.sum()} entries that must be, from {index(off)} on, and right elsewhere: a mask "
                "is missing")
    supports = (g != 0) & known, (n != 0) & known
    if supports[0].any() and supports[1].any() and not (supports[0] & supports[1]).any():
        return "is zero exactly where it must not be: a mask is inverted"
    return None


def rows_scaled(clue: Clue) -> str | None:
    """Some samples have a factor; the others are right."""
    off = clue.off
    rows = np.asarray(off.reshape(len(off), -1).any(axis=1)) if off.ndim else np.zeros(0, bool)
    if clue.samples != len(rows) or not rows.any() or rows.all():
        return None
    part = Clue(clue.wrong[rows], clue.right[rows], clue.tolerance)
    said = ratio(part)
    return said and f"is right but for sample {spelled(np.flatnonzero(rows))}, and there {said}"


def part_of_sum(clue: Clue) -> str | None:
    """The right derivative, but for a dy of which a part is lost or counted twice."""
    if clue.of_dy is None or clue.u is None or clue.u.size < 2:
        return None
    of_dy, u = clue.of_dy, clue.u

    def gives(u: np.ndarray) -> bool:
        return clue.same(clue.wrong, of_dy(u))

    for count in range(1, len(u)):
        for kept, text in ((slice(None, count), f"the first {count}"), (slice(-count, None), f"the last {count}")):
            part = np.zeros_like(u)
            part[kept] = u[kept]
            if gives(part):
                return (f"has the contributions of {text} of {len(u)} sample(s) only: a sum over samples that ends too "
                        "early or is not made")
    for n in range(len(u)):
        for weight, text in ((0, "lacks the contribution of"), (2, "has twice the contribution of")):
            part = u.copy()
            part[n] *= weight
            if gives(part):
                return f"{text} sample {n}"
    for axis in range(1, u.ndim - 1):
        part = np.zeros_like(u)
        first = (slice(None),) + (0,) * axis
        part[first] = u[first]
        if gives(part):
            return "has the contributions of the first place(s) only: the sum over places is not made"
    return None


def channel_terms(clue: Clue) -> str | None:
    """What is missing is constant, or linear in x, in each channel: terms of batch normalisation."""
    if clue.wrong.ndim < 2 or clue.x is None or clue.x.shape != clue.wrong.shape or np.isnan(clue.right).any():
        return None
    d, x = ((a.reshape(-1, a.shape[-1])) for a in (clue.wrong - clue.right, clue.x))
    if len(d) < 5:
        return None
    small = 1e-9 * np.max(np.abs(clue.right))
    level = d - d.mean(axis=0)
    if np.max(np.abs(level)) <= small:
        return ("differs by the same number in all of a channel: the term with the channel's mean is missing or wrong "
                "(the mean depends on x too)")
    centred = x - x.mean(axis=0)
    squares = (centred * centred).sum(axis=0)
    if not squares.all() or np.max(np.abs(level - centred * ((centred * level).sum(axis=0) / squares))) > small:
        return None
    both = "mean and variance are" if np.max(np.abs(d.mean(axis=0))) > small else "variance is"
    return (f"differs by a multiple of x - mean in each channel: the term with the channel's {both} missing or wrong "
            "(they depend on x too)")


def another_argument(clue: Clue) -> str | None:
    for name, right in clue.others.items():
        if right.shape == clue.wrong.shape and clue.same(clue.wrong, right):
            return f"is what d{name} should be: the two are exchanged"
    return None


def of_another_call(clue: Clue) -> str | None:
    for what, gradient in clue.instead():
        if clue.same(clue.wrong, gradient):
            return f"is what it should be if {what}"
    return None


def rearranged(clue: Clue) -> str | None:
    if np.isnan(clue.right).any() or clue.right.size < 3:
        return None
    if clue.same(np.sort(clue.wrong, axis=None), np.sort(clue.right, axis=None)):
        return "has the right numbers in the wrong places: an index, or another winner"
    return None


def nearly(clue: Clue) -> str | None:
    known = np.isfinite(clue.right)
    distance = np.max(np.abs(clue.wrong - clue.right)[known], initial=0.0)
    if not known.any() or distance > 1e-3 * np.max(np.abs(clue.right[known]), initial=0.0):
        return None
    return "is nearly right everywhere: a small constant such as eps is in the wrong place, missing or there twice"


PATTERNS: tuple[Callable[[Clue], str | None], ...] = (
    not_a_number, right, zero, single_precision, one_entry, dy_left_out, ratio, lost_or_extra, rows_scaled, transposed,
    flipped, shifted, another_argument, part_of_sum, channel_ratio, channel_terms, of_another_call, rearranged, nearly)


def index(mask: np.ndarray) -> list[int]:
    """The first True entry."""
    return [int(i) for i in np.argwhere(mask)[0]] if mask.ndim else []


def spelled(numbers: np.ndarray) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
