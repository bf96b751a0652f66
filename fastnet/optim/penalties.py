"""Penalties on the weights, and the conversions between the forms in use.

| form | cost added to the loss | what the update does | where |
|---|---|---|---|
| L2(lambda) | lambda sum w^2 | g + 2 lambda w | reports R1-R3 |
| WeightDecay(wd) | wd/2 sum w^2 | g + wd w | PyTorch's weight_decay, reports R4 and R5 |
| scikit-learn's alpha | alpha/(2n) sum w^2, n samples a batch | g + alpha/n w | MLPClassifier |
| DecoupledDecay(wd) | none | w - lr wd w, past the optimizer | AdamW |
| L1(lambda) | lambda sum abs(w) | g + lambda sign(w) | report R4 |
| L1(lambda, proximal=True) | the same | then a soft threshold by lr lambda / (1 - momentum) | R4, for exact zeros |

They apply to weights only; biases, gamma and beta are left out unless a parameter says otherwise. Several add up
(elastic net: [L2(a), L1(b)]).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnet.arrays import Array
from fastnet.optim._checks import at_least_zero


class Penalty:
    """decay/2 sum w^2 + (l1 + proximal) sum |w|, and `shrink`, which is no cost. The attributes are the settings."""

    decay = 0.0
    l1 = 0.0
    proximal = 0.0
    shrink = 0.0

    def value(self, penalised: Array) -> float:
        """The cost of the vector of penalised weights, summed in float64."""
        wide = penalised.astype(np.float64, copy=False)
        cost = 0.5 * self.decay * float(wide @ wide) if self.decay else 0.0
        return cost + ((self.l1 + self.proximal) * float(abs(wide).sum()) if self.l1 + self.proximal else 0.0)

    def settings(self) -> dict[str, Any]:
        """How the run's record names it."""
        return {"name": type(self).__name__, **vars(self)}

    def _strength(self, value: float) -> float:
        at_least_zero(type(self).__name__, **{"the strength": value})
        return value


class Quadratic(Penalty):
    """decay/2 sum w^2, whose gradient decay w is added to that of the loss."""

    def __init__(self, decay: float) -> None:
        self.decay = self._strength(decay)


class L2(Quadratic):
    """strength sum w^2, with no factor 1/2. Raises ValueError for a negative strength."""

    def __init__(self, strength: float) -> None:
        super().__init__(weight_decay_from_l2(strength))


class WeightDecay(Quadratic):
    """wd/2 sum w^2. Raises ValueError for a negative wd."""


class DecoupledDecay(Penalty):
    """w shrinks by lr wd w each step, whatever the optimizer makes of the gradient. Raises ValueError for wd < 0."""

    def __init__(self, wd: float) -> None:
        self.shrink = self._strength(wd)


class L1(Penalty):
    """strength sum |w|, by its subgradient (0 at 0) or, with `proximal`, by a soft threshold after the update.

    Only the second gives exact zeros. mlp3 on shapes10 (10 epochs, SGD(momentum=0.9), cosine from 0.03, seed 0):

    | strength | zeros, subgradient | zeros, proximal | abs(w) <= 0.001, either | test accuracy, either |
    |---|---|---|---|---|
    | 0.0003 | 0 | 5.8 % | 44 %, 46 % | 0.782, 0.772 |
    | 0.001 | 0 | 29.4 % | 79 %, 81 % | 0.761, 0.765 |
    | 0.003 | 0 | 79.3 % | 94 %, 94 % | 0.494, 0.530 |

    The threshold is the way that w goes along a constant gradient of that size, lr / (1 - momentum) times it: with
    plain lr the minimum would be that of (1 - momentum) strength. Adaptive optimizers take every gradient in their own
    measure and the threshold in plain lr, so their minimum is another. Raises ValueError for a negative strength.
    """

    def __init__(self, strength: float, *, proximal: bool = False) -> None:
        if proximal:
            self.proximal = self._strength(strength)
        else:
            self.l1 = self._strength(strength)


class Sum(Penalty):
    """Several penalties at once."""

    def __init__(self, terms: Sequence[Penalty]) -> None:
        self.terms = tuple(terms)
        for name in ("decay", "l1", "proximal", "shrink"):
            setattr(self, name, sum(getattr(term, name) for term in terms))

    def settings(self) -> dict[str, Any]:
        return {"name": "Sum", "terms": [term.settings() for term in self.terms]}


def combined(penalty: Penalty | Sequence[Penalty] | None) -> Penalty | None:
    """One penalty for one or several; None for none. Raises TypeError for anything else."""
    terms = [] if penalty is None else [penalty] if isinstance(penalty, Penalty) else list(penalty)
    for term in terms:
        if not isinstance(term, Penalty):
            raise TypeError(f"penalty: a penalty such as L2(0.005) or a list of them is needed, got {term!r}")
    return Sum(terms) if len(terms) > 1 else terms[0] if terms else None


def weight_decay_from_l2(strength: float) -> float:
    """The wd whose gradient is that of lambda sum w^2."""
    return 2 * strength


def l2_from_weight_decay(wd: float) -> float:
    """The lambda of lambda sum w^2 whose gradient is wd w."""
    return wd / 2


def weight_decay_from_sklearn(alpha: float, batch_size: int) -> float:
    """The wd of scikit-learn's MLPClassifier(alpha=alpha), which divides by the samples of the batch."""
    return alpha / batch_size


def sparsity(model: Any, tolerance: float = 0.0) -> dict[str, float]:
    """{name: fraction of entries with |w| <= tolerance} for every penalised array of the model, and "all" of them.

    Raises ValueError for a negative tolerance.
    """
    at_least_zero("sparsity", tolerance=tolerance)
    weights = {name: parameter.value for name, parameter in model.store if parameter.penalised}
    small = {name: int((abs(value) <= tolerance).sum()) for name, value in weights.items()}
    fractions = {name: small[name] / value.size for name, value in weights.items()}
    return {**fractions, "all": sum(small.values()) / max(1, sum(value.size for value in weights.values()))}
