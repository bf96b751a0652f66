"""Optimizers: settings, the state they need, one update of the flat vector. They hold no state themselves."""

from typing import Any, Protocol

from fastnet import backend
from fastnet.arrays import Array, array_module
from fastnet.functions.adam_update import EPS_MODES

State = dict[str, Array]  # vectors as long as the parameters


class Optimizer(Protocol):
    """What the trainer asks of an optimizer."""

    name: str
    lr: float | None

    def start(self, w: Array) -> State:
        """The state before the first update."""

    def update(self, w: Array, g: Array, state: State, *, step: int, lr: float, decay: float, penalised: int) -> None:
        """Update w and the state in place; `step` counts from 0, decay w is added to g on the penalised part."""

    def settings(self) -> dict[str, Any]:
        """All that makes it again."""


class SGD:
    """Stochastic gradient descent with momentum, plain or Nesterov's (see `fastnet.functions.sgd_update`).

    `lr` is used when no schedule is given. Raises ValueError for values out of range.
    """

    name = "sgd"

    def __init__(self, lr: float | None = None, *, momentum: float = 0.0, nesterov: bool = False) -> None:
        check_rate("SGD", lr)
        if not 0 <= momentum < 1:
            raise ValueError(f"SGD: momentum must be in [0, 1) but is {momentum}")
        if nesterov and not momentum:
            raise ValueError("SGD: Nesterov's form needs a momentum above 0")
        self.lr, self.momentum, self.nesterov = lr, momentum, nesterov

    def start(self, w: Array) -> State:
        return {"velocity": array_module(w).zeros_like(w)} if self.momentum else {}

    def update(self, w: Array, g: Array, state: State, *, step: int, lr: float, decay: float, penalised: int) -> None:
        backend.call("sgd_update", w, g, state.get("velocity"), lr=lr, momentum=self.momentum, nesterov=self.nesterov,
                     decay=decay, penalised=penalised)

    def settings(self) -> dict[str, Any]:
        return {"lr": self.lr, "momentum": self.momentum, "nesterov": self.nesterov}


class Adam:
    """Adam (see `fastnet.functions.adam_update`, which explains `eps_mode`).

    `lr` is used when no schedule is given. Raises ValueError for values out of range.
    """

    name = "adam"

    def __init__(self, lr: float | None = 1e-3, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
                 eps_mode: str = "outside") -> None:
        check_rate("Adam", lr)
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"Adam: {name} must be in [0, 1) but is {value}")
        if not eps > 0:
            raise ValueError(f"Adam: eps must be positive but is {eps}")
        if eps_mode not in EPS_MODES:
            raise ValueError(f"Adam: eps_mode must be one of {', '.join(EPS_MODES)} but is {eps_mode!r}")
        self.lr, self.beta1, self.beta2, self.eps, self.eps_mode = lr, beta1, beta2, eps, eps_mode

    def start(self, w: Array) -> State:
        zeros_like = array_module(w).zeros_like
        return {"m": zeros_like(w), "v": zeros_like(w)}

    def update(self, w: Array, g: Array, state: State, *, step: int, lr: float, decay: float, penalised: int) -> None:
        backend.call("adam_update", w, g, state["m"], state["v"], t=step + 1, lr=lr, beta1=self.beta1,
                     beta2=self.beta2, eps=self.eps, eps_mode=self.eps_mode, decay=decay, penalised=penalised)

    def settings(self) -> dict[str, Any]:
        return {"lr": self.lr, "beta1": self.beta1, "beta2": self.beta2, "eps": self.eps, "eps_mode": self.eps_mode}


def check_rate(optimizer: str, lr: float | None) -> None:
    """Raise ValueError unless lr is None or a positive finite number."""
    if lr is not None and not 0 < lr < float("inf"):
        raise ValueError(f"{optimizer}: the learning rate must be a positive number but is {lr}")


OPTIMIZERS = {"sgd": SGD, "adam": Adam}
