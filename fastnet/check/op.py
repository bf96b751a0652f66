"""`check_op`: proves the backward pass of one op, and that the proof could have failed.

With u = dy random, every gradient g of <u, f> is compared with centered differences of the implementation's own
forward pass and with the exact complex step of its oracle: the reference for an accelerated module, else the module
itself. Then the gradient is corrupted on purpose, and the same comparison has to notice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.arrays import Array, array_module, to_numpy
from fastnet.check import autopsy, contract
from fastnet.check.complex_step import takes_complex
from fastnet.check.errors import BOUNDS, GradientError, worst
from fastnet.check.evidence import Evidence, gather, signed
from fastnet.check.patterns import Clue
from fastnet.check.sharpness import PERTURBATION, check_is_sharp

ENTRIES = 400  # differentiated one by one in each array; the adjoint test covers the others
LEAST_BATCH = 5
LEAST_SEEN = 0.01  # of an argument's entries; see `compare`


@dataclass
class ArgumentRow:
    """The worst error of one gradient by each method (None: not run), and whether the check of it is sharp.

    `seen` of its `size` entries lie above the noise: a mistake there could not have hidden.
    """

    name: str
    differences: float | None = None
    complex_step: float | None = None
    adjoint: float | None = None
    entries: int = 0
    zero: bool = False
    seen: int = 0
    size: int = 0
    sharp: bool | None = None


@dataclass
class OpReport:
    """What `check_op` found. `value` is the error of y against the oracle, None without one.

    `batch` is how many values batch normalisation had a channel, None where there is none.
    """

    op: str
    implementation: str
    case: str = ""
    value: float | None = None
    batch: int | None = None
    rows: list[ArgumentRow] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    autopsy: list[str] = field(default_factory=list)  # likely causes of what failed

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def power(self) -> float:
        """The share of entries above the noise in the argument where it is least; those that are zero by algebra aside.

        0 where nothing was seen at all.
        """
        return min((row.seen / row.size for row in self.rows if row.size and not row.zero), default=0.0)

    @property
    def text(self) -> str:
        """All that is wrong, and the likely causes."""
        return "\n".join([*self.failures, *(f"likely cause: {line}" for line in self.autopsy)])


def check_op(module: Any, arrays: Sequence[Array], options: dict[str, Any] | None = None, *,
             oracle: Any = None, name: str | None = None, case: str = "", seed: int = 0, entries: int = ENTRIES,
             raises: bool = True, allow_small_batch: bool = False) -> OpReport:
    """Check every gradient of `module.forward(*arrays, **options)` and the rest of the contract of an op.

    `module` is anything with `forward` and `backward`. `oracle`, one more such thing, gives the right values in
    float64 and complex128; an accelerated module has the reference by default.
    Raises GradientError with all that is wrong, or puts it into the report with `raises=False`. Raises ValueError
    for a call that would prove nothing: no floating array, or a training batch norm of fewer than 5 samples, where
    the gradients are nearly zero (with 2 the normalised values are +-1 whatever x is), unless `allow_small_batch`.
    """
    options = options or {}
    full_name = getattr(module, "__name__", "op")
    op = name or full_name.rpartition(".")[2]
    implementation = _implementation(full_name)
    names = contract.argument_names(module, len(arrays))
    arrays = [*arrays, *[None] * (len(names) - len(arrays))]
    floating = [i for i, a in enumerate(arrays) if contract.is_floating(a)]
    if not any(arrays[i].size for i in floating):
        raise ValueError(f"{op}: there is nothing to check, because no array holds floating-point numbers")
    batch = _values_a_channel(op, arrays[floating[0]])
    _refuse_small_batch(op, arrays[floating[0]], batch, allow_small_batch)
    if oracle is None and implementation in ("cpu", "cuda"):
        oracle = backend.module("reference", op)

    rng = np.random.default_rng(seed)
    xp = array_module(arrays[floating[0]])
    report = OpReport(op, implementation, case, batch=batch)
    passes = contract.watched(op, module, arrays, options, names, lambda y: _random_dy(y, xp, rng))
    report.failures += passes.failures
    y, dy, gradients = passes.y, passes.dy, passes.gradients
    if len(gradients) != len(arrays):
        report.failures.append(f"{op}: backward returns {len(gradients)} gradients for {len(arrays)} arrays "
                               f"({', '.join(names)})")
        return _finished(report, raises)
    malformed = contract.returned(op, arrays, names, y, gradients)
    report.failures += malformed.values()
    report.failures += contract.repeats(op, module, arrays, options, names, passes)

    if not contract.takes_needs(module):
        report.notes.append("needs: backward does not take it")

    itemsize = min(arrays[i].dtype.itemsize for i in floating)
    if oracle is not None:
        report.value = _check_value(report, oracle, arrays, options, y, itemsize)
        _check_statistics(report, oracle, module, arrays, options, itemsize)
    exact = (oracle or module).forward
    if not takes_complex(exact, arrays, options):
        report.notes.append(f"complex step: {'the oracle' if oracle else 'forward'} takes no complex numbers")
        exact = None
    u = _host(dy)
    evidence = {}
    for i in floating:
        if i not in malformed:
            evidence[names[i]] = gather(module.forward, exact, arrays, options, u, i, entries=entries,
                                        itemsize=itemsize, rng=rng)
    found = {names[i]: _host(gradients[i]) for i in floating if i not in malformed}
    report.rows = [compare(report, argument, found[argument], e) for argument, e in evidence.items()]
    if report.rows and all(row.zero for row in report.rows):
        report.failures.append(f"{op}: every gradient is zero, so the check saw nothing")
    samples, without_sample = _samples(module, arrays, options, names, dy, found)
    if wrong := [argument for argument, e in evidence.items() if e.wrong(found[argument])]:
        report.autopsy += autopsy.of_op({names[i]: (i, evidence[names[i]]) for i in floating if names[i] in evidence},
                                        wrong, found, module, oracle, exact, arrays, options, u, samples)
    corrupt(report, found, evidence, samples, without_sample, float(np.linalg.norm(_host(dy))), seed)
    return _finished(report, raises)


def _implementation(full_name):
    if full_name.startswith("fastnet.ops."):
        return "reference"
    if full_name.startswith("fastnet.kernels."):
        return full_name.split(".")[2]
    return "own"


def _values_a_channel(op, x):
    """How many values the batch statistics of an op are taken of; None where it takes none."""
    if not op.startswith("batch_norm") or op.startswith("batch_norm_fixed"):
        return None
    return x.size // max(1, x.shape[-1]) if x.ndim else 1


def _refuse_small_batch(op, x, rows, allowed):
    if rows is not None and rows < LEAST_BATCH and not allowed:
        raise ValueError(f"{op}: a check needs at least {LEAST_BATCH} samples, but x {x.shape} has {rows} a channel: "
                         "with so few the gradient below is nearly zero whatever it should be "
                         "(allow_small_batch=True checks all the same)")


def _random_dy(y, xp, rng):
    return xp.asarray(np.asarray(signed(rng, tuple(y.shape)), dtype=np.dtype(y.dtype)))


def _host(x):
    return np.asarray(to_numpy(x)).astype(np.float64)


def _check_value(report, oracle, arrays, options, y, itemsize):
    precise = [_host(a) if contract.is_floating(a) else None if a is None else to_numpy(a) for a in arrays]
    expected, _ = oracle.forward(*precise, **options)
    if expected.shape != tuple(y.shape):
        report.failures.append(f"{report.op}: y is {tuple(y.shape)}, but the oracle's is {expected.shape}")
        return np.inf
    error, index, ours, theirs = worst(_host(y), _host(expected))
    if not error <= (bound := BOUNDS["value"][itemsize]):
        report.failures.append(f"{report.op}: y is wrong{_at(index)}: forward gives {ours:.6g}, the oracle "
                               f"{theirs:.6g} (error {error:.1e} of the largest, bound {bound:.0e})")
        clue = Clue(_host(y), _host(expected), samples=len(precise[0]) if precise[0] is not None else 0)
        report.autopsy.append(autopsy.likely_cause("y", clue, autopsy.equation(oracle, "y")))
    return error


def _check_statistics(report, oracle, module, arrays, options, itemsize):
    """What running averages are made of has no gradient, but a value."""
    if not hasattr(oracle, "statistics") or not hasattr(module, "statistics"):
        return
    precise = [_host(a) if contract.is_floating(a) else a for a in arrays]
    found, expected = ([_host(s) for s in _flat(which.statistics(which.forward(*given, **options)[1]))]
                       for which, given in ((module, arrays), (oracle, precise)))
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        error = worst(a, b)[0]
        if not error <= BOUNDS["value"][itemsize]:
            report.failures.append(f"{report.op}: the batch's {('mean', 'variance')[number % 2]} is wrong: not the "
                                   f"oracle's (error {error:.1e} of the largest)")


def _flat(statistics):
    return [a for s in statistics for a in (s if isinstance(s, (tuple, list)) else [s])]


def compare(report: OpReport, argument: str, gradient: np.ndarray, evidence: Evidence) -> ArgumentRow:
    """Compare one gradient with its evidence: the table's row, and the failures put into the report.

    A gradient of which all but one entry in a hundred lie below the noise fails, though no number contradicts it: most
    mistakes would leave it as it is. (Where fastnet's own checks see least one entry in eleven is not zero, in mlp9
    with its dead units; then come 3x3 kernels on maps of one pixel, one in nine, and max pools, one in seven.) Zero by
    algebra is another matter: there all entries are compared with what rounding leaves of zero, and `zero` says so.
    """
    row = ArgumentRow(argument, entries=len(evidence.coordinates), zero=evidence.is_zero(gradient),
                      seen=int(evidence.seen(gradient).sum()), size=gradient.size)
    if not row.zero and row.seen < LEAST_SEEN * row.size and np.isfinite(gradient).all():
        report.failures.append(f"{report.op}: the check of d{argument} saw {row.seen} of {row.size} entries above the "
                               f"noise, less than {LEAST_SEEN:.0%}: it would pass most mistakes; take other inputs "
                               "(dead ReLUs, saturated or vanishing gradients?)")
    for finding in evidence.compare(gradient):
        setattr(row, {"differences": "differences", "complex step": "complex_step",
                      "adjoint test": "adjoint"}[finding.method], finding.error)
        if not finding.wrong:
            continue
        tail = f"(error {finding.error:.1e} of the largest, bound {finding.bound:.0e})"
        if finding.method == "adjoint test":
            text = (f"for a random v <v, d{argument}> is {finding.analytic:.6g}, but <dy, J v> "
                    f"{finding.numeric:.6g} {tail}")
            report.failures.append(f"{report.op}: d{argument} is wrong: {text}")
        else:
            method = "centered differences" if finding.method == "differences" else "the complex step"
            report.failures.append(f"{report.op}: d{argument} is wrong{_at(finding.at)}: backward gives "
                                   f"{finding.analytic:.6g}, {method} {finding.numeric:.6g} {tail}")
    return row


def corrupt(report: OpReport, found: dict[str, np.ndarray], evidence: dict[str, Evidence], samples: int,
            without_sample: Callable, scale: float, seed: int) -> None:
    """Corrupt the gradients that are right; whether a wrong one could be wrong in one more way says nothing."""
    # A gradient that is zero but for rounding is corrupted as if it were exactly zero.
    right = {a: 0 * g if evidence[a].is_zero(g) else g for a, g in found.items()
             if g.size and not evidence[a].wrong(g)}
    # Where the adjoint test resolves one entry among all, any entry may be changed; else one that was looked at.
    seen = {a: e.coordinates for a, e in evidence.items() if e.direction is None or e.itemsize < 8}
    size = PERTURBATION
    for e in evidence.values():
        if e.itemsize == 8:
            continue  # in lower precision the bounds are too wide for so small a change
        bounds = [BOUNDS[m].get(e.itemsize, np.inf) for m, n in (("differences", e.differences),
                                                                 ("complex step", e.complex_step)) if n is not None]
        size = max(size, 10 * min(bounds, default=0.0))
    escaped = check_is_sharp(right, lambda a, g: evidence[a].wrong(g), without_sample=without_sample, samples=samples,
                             seen=seen, scale=scale, size=size, seed=seed)
    for row in report.rows:
        if row.name in right:
            lines = [line for line in escaped if line.startswith(f"{row.name}: ")]
            row.sharp = not lines
            report.failures += [f"{report.op}: the check of d{line.replace(': ', ' is not sharp: ', 1)}"
                                for line in lines]


def _samples(module, arrays, options, names, dy, found) -> tuple[int, Callable]:
    """The batch size, and the gradients as they are when one sample contributes nothing."""
    if dy.shape:
        def without_sample(n):
            _, cache = module.forward(*arrays, **options)
            host = np.array(to_numpy(dy))
            host[n] = 0
            gradients = module.backward(array_module(dy).asarray(host), cache)
            return {a: _host(g) for a, g in zip(names, gradients, strict=True) if a in found}
        return dy.shape[0], without_sample

    def without_rows(n):  # a loss: dy is one number, the samples are rows of x and so of dx
        wrong = {a: g.copy() for a, g in found.items()}
        for g in wrong.values():
            if g.ndim and n < len(g):
                g[n] = 0
        return wrong
    return max((len(g) for g in found.values() if g.ndim), default=0), without_rows


def _finished(report, raises):
    if raises and report.failures:
        raise GradientError(report.text)
    return report


def _at(index):
    return f" at {list(index)}" if index else ""
