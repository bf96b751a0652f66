"""Checks of what follows the gradients: optimizers, penalties and schedules against their textbook formulas.

The formulas stand here once more, entry by entry on plain numbers, as their sources write them, and share no line with
the code that is checked.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastnet.check.errors import GradientError
from fastnet.check.op import ArgumentRow, OpReport
from fastnet.functions._update import Regularization
from fastnet.optim.optimizers import SGD, Optimizer
from fastnet.optim.penalties import Penalty
from fastnet.optim.schedule import Schedule

BOUND = 1e-12  # of the largest entry
Recurrence = Callable[..., Iterator[float]]  # (w, lr, gradients of the entry, settings) -> w after each update


def _sgd(w: float, lr: float, g: list[float], s: dict[str, Any]) -> Iterator[float]:
    v = 0.0
    for gt in g:
        v = s["momentum"] * v + gt
        w -= lr * (gt + s["momentum"] * v if s["nesterov"] else v)
        yield w


def _adam(w: float, lr: float, g: list[float], s: dict[str, Any]) -> Iterator[float]:
    """Kingma & Ba, algorithm 1, the averages as sums; section 2's form is eps_mode "hat"."""
    b1, b2, eps = s["beta1"], s["beta2"], s["eps"]
    for t in range(1, len(g) + 1):
        m = sum((1 - b1) * b1 ** (t - i) * g[i - 1] for i in range(1, t + 1)) / (1 - b1**t)
        v = sum((1 - b2) * b2 ** (t - i) * g[i - 1] ** 2 for i in range(1, t + 1))
        corrected = v / (1 - b2**t)
        root = {"outside": math.sqrt(corrected) + eps, "inside": math.sqrt(corrected + eps),
                "hat": (math.sqrt(v) + eps) / math.sqrt(1 - b2**t)}[s["eps_mode"]]
        w -= lr * s.get("weight_decay", 0.0) * w + lr * m / root
        yield w


def _adagrad(w: float, lr: float, g: list[float], s: dict[str, Any]) -> Iterator[float]:
    for t in range(1, len(g) + 1):
        w -= lr * g[t - 1] / (math.sqrt(s["initial"] + sum(x * x for x in g[:t])) + s["eps"])
        yield w


def _adadelta(w: float, lr: float, g: list[float], s: dict[str, Any]) -> Iterator[float]:
    v = u = 0.0
    for gt in g:
        v = s["rho"] * v + (1 - s["rho"]) * gt * gt
        delta = math.sqrt(u + s["eps"]) / math.sqrt(v + s["eps"]) * gt
        u = s["rho"] * u + (1 - s["rho"]) * delta * delta
        w -= lr * delta
        yield w


def _adamax(w: float, lr: float, g: list[float], s: dict[str, Any]) -> Iterator[float]:
    m = u = 0.0
    for t, gt in enumerate(g, start=1):
        m = s["beta1"] * m + (1 - s["beta1"]) * gt
        u = max(s["beta2"] * u, abs(gt) + s["eps"])  # as in PyTorch
        w -= lr / (1 - s["beta1"] ** t) * m / u
        yield w


def _rmsprop(w: float, lr: float, g: list[float], s: dict[str, Any]) -> Iterator[float]:
    v = 0.0
    for gt in g:
        v = s["alpha"] * v + (1 - s["alpha"]) * gt * gt
        w -= lr * gt / (math.sqrt(v) + s["eps"] if s["eps_mode"] == "outside" else math.sqrt(v + s["eps"]))
        yield w


RECURRENCES: dict[str, Recurrence] = {"sgd": _sgd, "adam": _adam, "adamw": _adam, "adagrad": _adagrad,
                                      "adadelta": _adadelta, "adamax": _adamax, "rmsprop": _rmsprop}


def check_optimizer(optimizer: Optimizer, recurrence: Recurrence | None = None, *, lr: float = 0.05, steps: int = 5,
                    seed: int = 0, raises: bool = True) -> OpReport:
    """Compare the first updates of a vector in float64 with the optimizer's textbook recurrence, or the one given.

    Without penalties; AdamW's decay, which is its own, goes to all entries. Raises GradientError, or puts it into the
    report; ValueError for an optimizer that has no recurrence here.
    """
    recurrence = recurrence or RECURRENCES.get(optimizer.name)
    if recurrence is None:
        raise ValueError(f"check_optimizer: {optimizer.name} has no textbook recurrence here; give one")
    rng = np.random.default_rng(seed)
    w = rng.normal(size=12)
    start, gradients = w.copy(), rng.normal(size=(steps, 12)) * 10.0 ** rng.integers(-4, 2, 12)
    expected = np.array([list(recurrence(float(start[j]), lr, gradients[:, j].tolist(), optimizer.settings()))
                         for j in range(12)]).T
    report, state, found = OpReport(optimizer.name, "default", f"{steps} updates"), optimizer.start(w), []
    for t, g in enumerate(gradients):
        given = g.copy()
        optimizer.update(w, given, state, step=t, lr=lr, regularization=Regularization(penalised=len(w)))
        found.append(w.copy())
        if not np.array_equal(given, g):
            report.failures.append(f"{report.op}: update {t} changes its gradient")
    _compare(report, "w", np.array(found), expected, "update")
    return _finished(report, raises)


def check_penalty(penalty: Penalty, optimizer: SGD | None = None, *, lr: float = 0.05, seed: int = 0,
                  raises: bool = True) -> OpReport:
    """Compare what a penalty adds to an update of plain SGD with the derivative of its cost, by centered differences.

    The first 8 of 12 entries are penalised; the others stand for biases, which a penalty leaves alone. Decoupled decay
    is no cost: the weights have to shrink by lr wd w. The proximal step of L1, which follows the update, is not here.
    """
    rng = np.random.default_rng(seed)
    w, g, count = rng.choice([-1.0, 1.0], 12) * rng.uniform(0.5, 2, 12), rng.normal(size=12), 8
    before = w.copy()
    strengths = Regularization(penalty.decay, penalty.l1, penalty.shrink, penalised=count)
    (optimizer or SGD(lr)).update(w, g, {}, step=0, lr=lr, regularization=strengths)
    slope, h = np.zeros(12), 1e-3
    for j in range(count):
        above, below = before[:count].copy(), before[:count].copy()
        above[j] += h
        below[j] -= h
        slope[j] = (penalty.value(above) - penalty.value(below)) / (2 * h)  # exact: a cost is at most quadratic
        slope[j] += penalty.shrink * before[j] - np.sign(before[j]) * penalty.proximal
    report = OpReport(type(penalty).__name__, "default", f"{count} of 12 penalised")
    _compare(report, "w", (before - w) / lr - g, slope, "the penalty's part", bound=1e-9)
    return _finished(report, raises)


def _triangular(t: int, s: dict[str, Any]) -> float:
    """Smith's own lines: cycle = floor(1 + t / (2 stepsize)), x = |t / stepsize - 2 cycle + 1|."""
    cycle = math.floor(1 + t / (2 * s["half_cycle_steps"]))
    x = abs(t / s["half_cycle_steps"] - 2 * cycle + 1)
    return s["lr_min"] + (s["lr_max"] - s["lr_min"]) * max(0.0, 1 - x)


def _step_decay(t: int, s: dict[str, Any]) -> float:
    done = t // (s["steps_per_epoch"] if s["unit"] == "epoch" else 1)
    passed = (sum(done >= m for m in s["every"]) if isinstance(s["every"], list)
              else sum(k % s["every"] == 0 for k in range(1, done + 1)))
    return s["lr"] * s["factor"] ** passed


def _exponential(t: int, s: dict[str, Any]) -> float:
    return s["lr"] * math.prod([s["decay"]] * (t // (s["steps_per_epoch"] if s["unit"] == "epoch" else 1)))


def _cosine(t: int, s: dict[str, Any]) -> float:
    return s["floor"] + (s["lr"] - s["floor"]) * math.cos(math.pi / 2 * min(t, s["steps"]) / s["steps"]) ** 2


def _one_cycle(t: int, s: dict[str, Any]) -> float:
    top = s["rise"] * s["steps"]
    return s["lr"] * float(np.interp(t, [0, top, 2 * top, s["steps"]], [s["start"], 1, s["start"], s["end"]]))


def _warmup(t: int, s: dict[str, Any]) -> float:
    rising = t / s["warmup_steps"] if s["warmup_steps"] else 1.0
    return s["lr"] * max(0.0, min(rising, (s["steps"] - t) / (s["steps"] - s["warmup_steps"])))


FORMULAS: dict[str, Callable[[int, dict[str, Any]], float]] = {
    "constant": lambda t, s: s["lr"], "triangular": _triangular, "exponential": _exponential,
    "step_decay": _step_decay, "cosine": _cosine, "one_cycle": _one_cycle, "warmup_linear": _warmup}


def check_schedule(schedule: Schedule, formula: Callable[[int, dict[str, Any]], float] | None = None, *,
                   steps: int = 200, raises: bool = True) -> OpReport:
    """Compare the rates of the first updates with the schedule's published formula, or the one given.

    Raises GradientError, or puts it into the report; ValueError for a schedule that has no formula here.
    """
    formula = formula or FORMULAS.get(schedule.name)
    if formula is None:
        raise ValueError(f"check_schedule: {schedule.name} has no formula here; give one")
    report = OpReport(schedule.name, "default", f"{steps} updates")
    _compare(report, "rate", np.array([schedule(t) for t in range(steps)]),
             np.array([formula(t, schedule.settings) for t in range(steps)]), "update")
    return _finished(report, raises)


def _compare(report, name, found, expected, where, bound=BOUND):
    scale = np.max(np.abs(expected), initial=1e-3)  # of a penalty that adds nothing, rounding is left
    error = np.abs(found - expected) / scale
    report.rows.append(ArgumentRow(name, differences=float(np.max(error)), entries=found.size, size=found.size,
                                   seen=int((expected != 0).sum())))
    if not np.max(error) <= bound:
        at = tuple(int(i) for i in np.argwhere(~(error <= bound))[0])
        report.failures.append(f"{report.op}: {name} is wrong at {where} {', entry '.join(map(str, at))}: "
                               f"{found[at]:.6g}, the formula gives {expected[at]:.6g} (error {np.max(error):.1e} of "
                               f"the largest, bound {bound:.0e})")


def _finished(report, raises):
    if raises and report.failures:
        raise GradientError(report.text)
    return report
