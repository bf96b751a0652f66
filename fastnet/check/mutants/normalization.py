"""Mistakes in batch normalisation, with the statistics of the batch or with given ones."""

from collections.abc import Callable

import numpy as np

from fastnet.check.mutants.call import Call, Host
from fastnet.check.mutants.mistake import Changed, Mistake

BATCH = ("batch_norm", "batch_norm_relu", "batch_norm_add_relu")
FIXED = ("batch_norm_fixed", "batch_norm_fixed_relu", "batch_norm_fixed_add_relu")
EPS = 1e-5  # the default


class _Norm:
    """The quantities of `fastnet.ops.batch_norm`'s equations, for one call."""

    def __init__(self, call: Call) -> None:
        self.x, self.gamma, self.beta = (call.arrays[name] for name in ("x", "gamma", "beta"))
        self.axes = tuple(range(self.x.ndim - 1))
        self.count = self.x.size // self.x.shape[-1]
        self.eps = call.options.get("eps", EPS)
        self.mean, self.var = self.x.mean(self.axes), self.x.var(self.axes)
        self.dz = call.dz

    def x_hat(self, rstd: Host) -> Host:
        return (self.x - self.mean) * rstd

    @property
    def rstd(self) -> Host:
        return 1 / np.sqrt(self.var + self.eps)


def _dx(mean_term: float = 1, variance_term: float = 1, *, rstd: Callable[[_Norm], Host] = lambda n: n.rstd,
        gamma: bool = True, count: Callable[[_Norm], float] = lambda n: n.count) -> Callable[[Call], Changed]:
    """dx = gamma rstd (dy - mean_term dbeta/M - variance_term x^ dgamma/M) with something wrong in it."""
    def backward(call: Call) -> Changed:
        n = _Norm(call)
        scale, m = rstd(n), count(n)
        x_hat = n.x_hat(scale)
        dbeta, dgamma = n.dz.sum(n.axes), (n.dz * x_hat).sum(n.axes)
        return {"x": (n.gamma if gamma else 1) * scale * (n.dz - mean_term * dbeta / m
                                                          - variance_term * x_hat * dgamma / m)}
    return backward


def _dgamma(change: Callable[[_Norm], Host]) -> Callable[[Call], Changed]:
    return lambda call: {"gamma": change(_Norm(call))}


def _y(rstd: Callable[[_Norm], Host]) -> Callable[[Call], Host]:
    def forward(call: Call) -> Host:
        n = _Norm(call)
        return n.gamma * n.x_hat(rstd(n)) + n.beta
    return forward


def _unbiased(n: _Norm) -> Host:
    return 1 / np.sqrt(n.var * n.count / (n.count - 1) + n.eps)


def _eps_outside(n: _Norm) -> Host:
    return 1 / (np.sqrt(n.var) + n.eps)


def _eps(factor: float) -> Callable[[Call], Changed]:
    return lambda call: {"x": call.again(options={"eps": factor * call.options.get("eps", EPS)})["x"]}


def _as_batch(call: Call) -> Changed:
    """dx as if the given statistics were the batch's."""
    n = _Norm(call)
    rstd = 1 / np.sqrt(call.arrays["var"] + n.eps)
    return {"x": n.gamma * rstd * (n.dz - n.dz.mean(n.axes))}


def _gradient(name: str, change: Callable[[Host, Call], Host]) -> Callable[[Call], Changed]:
    return lambda call: {name: change(call.gradients[name], call)}


def _channels(call: Call) -> Changed:
    return {name: np.roll(call.gradients[name], 1) for name in ("gamma", "beta")}


NORMALIZATION = (
    Mistake("no mean term", "dx lacks - dbeta/M: the batch's mean depends on x too", BATCH, _dx(0, 1), cause="mean"),
    Mistake("no variance term", "dx lacks - x^ dgamma/M: the batch's variance depends on x too", BATCH, _dx(1, 0),
            cause="variance"),
    Mistake("statistics taken for constants", "dx lacks both terms", BATCH, _dx(0, 0), cause="mean"),
    Mistake("variance term added", "the sign of the last term", BATCH, _dx(1, -1), cause="variance"),
    Mistake("unbiased variance in dx", "M - 1 for M in the last term", BATCH, lambda call: _dx(
        1, _Norm(call).count / (_Norm(call).count - 1))(call), cause="variance"),
    Mistake("unbiased variance in y", "y is normalised by the variance with M - 1", ("batch_norm",),
            forward=_y(_unbiased)),
    Mistake("samples for entries", "M counts samples where it is all entries of a channel", BATCH, lambda call: (
        {} if call.arrays["x"].ndim == 2 else _dx(count=lambda n: len(n.x))(call)), cause="mean"),
    Mistake("eps outside the root", "1/(sqrt(var) + eps) in dx", BATCH, _dx(rstd=_eps_outside)),
    Mistake("eps outside the root in y", "1/(sqrt(var) + eps) in y", ("batch_norm",), forward=_y(_eps_outside)),
    Mistake("eps twice", "eps is added to a variance that has it already", (*BATCH, *FIXED), _eps(2)),
    Mistake("eps left out", "backward divides by the bare variance", BATCH, _dx(rstd=lambda n: 1 / np.sqrt(n.var))),
    Mistake("gamma left out of dx", "dx = rstd (...)", BATCH, _dx(gamma=False), cause="channel"),
    Mistake("variance for deviation", "rstd^2 for rstd in dx", BATCH, _dx(rstd=lambda n: n.rstd**2)),
    Mistake("dgamma of x", "sum dy x instead of sum dy x^", BATCH, _dgamma(lambda n: (n.dz * n.x).sum(n.axes))),
    Mistake("dgamma not scaled", "sum dy (x - mean)", BATCH, _dgamma(
        lambda n: (n.dz * (n.x - n.mean)).sum(n.axes))),
    Mistake("dbeta averaged", "the mean where the sum is meant", (*BATCH, *FIXED), _gradient(
        "beta", lambda g, call: g * call.arrays["gamma"].size / call.arrays["x"].size), cause="1/"),
    Mistake("next channel", "dgamma and dbeta lie one channel further", (*BATCH, *FIXED), _channels,
            cause="shifted by 1 along axis 0"),
    Mistake("fixed statistics taken for the batch's", "dx with the batch's mean term", FIXED, _as_batch,
            cause="mean"),
    Mistake("sign of dmean", "dmean = gamma rstd dbeta", FIXED, _gradient("mean", lambda g, call: -g),
            cause="-1 times"),
    Mistake("dvar without 1/2", "the square root's derivative lacks its half", FIXED, _gradient(
        "var", lambda g, call: 2 * g), cause="2 times"),
    Mistake("dvar of the deviation", "the derivative by the standard deviation instead of the variance", FIXED,
            _gradient("var", lambda g, call: g * 2 * np.sqrt(call.arrays["var"]))),
)
