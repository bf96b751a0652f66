"""Optimizers: settings, the state they need, one update of the flat vector. They hold no state themselves.

Rates that work, found on the validation images of shapes10 among values a factor 2 to 3 apart; means of seeds 0, 1, 2:

    fn.fit(fn.build("mlp3-bn", seed=s), fn.data.load("shapes10"), OPTIMIZER, fn.schedules.cosine(LR, steps=900),
           epochs=10, batch_size=100, normalization="pixel", seed=s)

| optimizer | lr | validation accuracy | test accuracy |
|---|---|---|---|
| SGD() | 1.0 | 0.757 | 0.749 |
| SGD(momentum=0.9) | 0.2 | 0.723 | 0.712 |
| Adam() | 0.03 | 0.723 | 0.698 |
| AdamW() | 0.03 | 0.722 | 0.707 |
| Adagrad() | 0.1 | 0.686 | 0.678 |
| Adadelta() | 3.0 | 0.777 | 0.774 |
| Adamax() | 0.02 | 0.662 | 0.652 |
| Adamax(beta2=0.9) | 0.03 | 0.735 | 0.719 |
| RMSprop() | 0.01 | 0.724 | 0.713 |

With Adamax's own beta2 the large gradients of the first steps set the norm for the whole of so short a run.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from fastnet import backend
from fastnet.arrays import Array, array_module
from fastnet.functions._update import NONE, Regularization
from fastnet.functions.adam_update import EPS_MODES
from fastnet.functions.rmsprop_update import EPS_MODES as RMSPROP_EPS_MODES
from fastnet.optim._checks import at_least_zero, below_one, one_of, positive

State = dict[str, Array]  # vectors as long as the parameters


class Optimizer:
    """What the trainer asks of an optimizer. Its attributes are its settings; `lr` is for want of a schedule."""

    name: ClassVar[str]
    lr: float | None

    def __init__(self, lr: float | None) -> None:
        if lr is not None and not 0 < lr < float("inf"):
            raise ValueError(f"{type(self).__name__}: the learning rate must be a positive number but is {lr}")
        self.lr = lr

    @property
    def gain(self) -> float:
        """How far it goes along a gradient that stays the same, in units of lr times it; for a proximal step."""
        return 1.0

    def start(self, w: Array) -> State:
        """The state before the first update."""
        raise NotImplementedError  # pragma: no cover - says what each optimizer has to have; none falls back on it

    def update(self, w: Array, g: Array, state: State, *, step: int, lr: float,
               regularization: Regularization = NONE) -> None:
        """Update w and the state in place, with gradient g; `step` counts from 0."""
        raise NotImplementedError  # pragma: no cover - says what each optimizer has to have; none falls back on it

    def settings(self) -> dict[str, Any]:
        """The keyword arguments that make it again."""
        return dict(vars(self))


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, plain or Nesterov's (see `fastnet.functions.sgd_update`).

    Raises ValueError for values out of range, as all optimizers do.
    """

    name = "sgd"

    def __init__(self, lr: float | None = None, *, momentum: float = 0.0, nesterov: bool = False) -> None:
        super().__init__(lr)
        below_one("SGD", momentum=momentum)
        if nesterov and not momentum:
            raise ValueError("SGD: Nesterov's form needs a momentum above 0")
        self.momentum, self.nesterov = momentum, nesterov

    @property
    def gain(self) -> float:
        return 1 / (1 - self.momentum)

    def start(self, w: Array) -> State:
        return _zeros(w, "velocity") if self.momentum else {}

    def update(self, w: Array, g: Array, state: State, *, step: int, lr: float,
               regularization: Regularization = NONE) -> None:
        backend.call("sgd_update", w, g, state.get("velocity"), lr=lr, momentum=self.momentum, nesterov=self.nesterov,
                     regularization=regularization)


class Adam(Optimizer):
    """Adam (see `fastnet.functions.adam_update`, which explains `eps_mode`)."""

    name = "adam"

    def __init__(self, lr: float | None = 1e-3, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
                 eps_mode: str = "outside") -> None:
        super().__init__(lr)
        owner = type(self).__name__
        below_one(owner, beta1=beta1, beta2=beta2)
        positive(owner, eps=eps)
        one_of(owner, EPS_MODES, eps_mode=eps_mode)
        self.beta1, self.beta2, self.eps, self.eps_mode = beta1, beta2, eps, eps_mode

    def start(self, w: Array) -> State:
        return _zeros(w, "m", "v")

    def update(self, w: Array, g: Array, state: State, *, step: int, lr: float,
               regularization: Regularization = NONE) -> None:
        backend.call("adam_update", w, g, state["m"], state["v"], t=step + 1, lr=lr, beta1=self.beta1,
                     beta2=self.beta2, eps=self.eps, eps_mode=self.eps_mode, regularization=regularization)


class AdamW(Adam):
    """Adam with decoupled decay: weights shrink by lr weight_decay w each step; biases, gamma and beta do not."""

    name = "adamw"

    def __init__(self, lr: float | None = 1e-3, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
                 eps_mode: str = "outside", weight_decay: float = 0.01) -> None:
        super().__init__(lr, beta1=beta1, beta2=beta2, eps=eps, eps_mode=eps_mode)
        at_least_zero("AdamW", weight_decay=weight_decay)
        self.weight_decay = weight_decay

    def update(self, w: Array, g: Array, state: State, *, step: int, lr: float,
               regularization: Regularization = NONE) -> None:
        shrink = regularization.shrink + self.weight_decay
        super().update(w, g, state, step=step, lr=lr, regularization=regularization._replace(shrink=shrink))


class Adagrad(Optimizer):
    """Adagrad (see `fastnet.functions.adagrad_update`); the sums of squares start at `initial`."""

    name = "adagrad"

    def __init__(self, lr: float | None = 1e-2, *, initial: float = 0.0, eps: float = 1e-10) -> None:
        super().__init__(lr)
        at_least_zero("Adagrad", initial=initial)
        positive("Adagrad", eps=eps)
        self.initial, self.eps = initial, eps

    def start(self, w: Array) -> State:
        return {"squares": array_module(w).full_like(w, self.initial)}

    def update(self, w: Array, g: Array, state: State, *, step: int, lr: float,
               regularization: Regularization = NONE) -> None:
        backend.call("adagrad_update", w, g, state["squares"], lr=lr, eps=self.eps, regularization=regularization)


class Adadelta(Optimizer):
    """Adadelta (see `fastnet.functions.adadelta_update`)."""

    name = "adadelta"

    def __init__(self, lr: float | None = 1.0, *, rho: float = 0.95, eps: float = 1e-6) -> None:
        super().__init__(lr)
        below_one("Adadelta", rho=rho)
        positive("Adadelta", eps=eps)
        self.rho, self.eps = rho, eps

    def start(self, w: Array) -> State:
        return _zeros(w, "v", "u")

    def update(self, w: Array, g: Array, state: State, *, step: int, lr: float,
               regularization: Regularization = NONE) -> None:
        backend.call("adadelta_update", w, g, state["v"], state["u"], lr=lr, rho=self.rho, eps=self.eps,
                     regularization=regularization)


class Adamax(Optimizer):
    """Adamax (see `fastnet.functions.adamax_update`)."""

    name = "adamax"

    def __init__(self, lr: float | None = 2e-3, *, beta1: float = 0.9, beta2: float = 0.999,
                 eps: float = 1e-8) -> None:
        super().__init__(lr)
        below_one("Adamax", beta1=beta1, beta2=beta2)
        positive("Adamax", eps=eps)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def start(self, w: Array) -> State:
        return _zeros(w, "m", "u")

    def update(self, w: Array, g: Array, state: State, *, step: int, lr: float,
               regularization: Regularization = NONE) -> None:
        backend.call("adamax_update", w, g, state["m"], state["u"], t=step + 1, lr=lr, beta1=self.beta1,
                     beta2=self.beta2, eps=self.eps, regularization=regularization)


class RMSprop(Optimizer):
    """RMSprop (see `fastnet.functions.rmsprop_update`, which explains `eps_mode`)."""

    name = "rmsprop"

    def __init__(self, lr: float | None = 1e-2, *, alpha: float = 0.99, eps: float = 1e-8,
                 eps_mode: str = "outside") -> None:
        super().__init__(lr)
        below_one("RMSprop", alpha=alpha)
        positive("RMSprop", eps=eps)
        one_of("RMSprop", RMSPROP_EPS_MODES, eps_mode=eps_mode)
        self.alpha, self.eps, self.eps_mode = alpha, eps, eps_mode

    def start(self, w: Array) -> State:
        return _zeros(w, "v")

    def update(self, w: Array, g: Array, state: State, *, step: int, lr: float,
               regularization: Regularization = NONE) -> None:
        backend.call("rmsprop_update", w, g, state["v"], lr=lr, alpha=self.alpha, eps=self.eps,
                     eps_mode=self.eps_mode, regularization=regularization)


def _zeros(w: Array, *names: str) -> State:
    return {name: array_module(w).zeros_like(w) for name in names}


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    kind.name: kind for kind in (SGD, Adam, AdamW, Adagrad, Adadelta, Adamax, RMSprop)}
