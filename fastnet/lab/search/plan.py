"""Plans: what a sweep tries, in rounds. The trials of a round are settled when all trials before it have ended.

A plan is a list of (kind, options), which a journal holds as JSON:

    coarse  trials                  draws from the space (REPORTS: T01)
    window  trials, margin          draws between the two best so far, `margin` decades beyond them each way (T02)
    factor  trials, low, high       U(low, high) times the best so far (T03)
    grid    points                  all combinations, `points` values of what is continuous (T05)
    tpe     trials, wave            Tree-structured Parzen Estimators, by optuna, in rounds of `wave` trials (T06)

What a round proposes is a function of the space, the seed, the number of its first trial and the results of the rounds
before. So it depends neither on how many workers there are nor on the order in which they finish.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastnet.functions import philox
from fastnet.lab.search.space import Choice, Log, Parameters, Space, draw, grid

OPTIONS: dict[str, dict[str, type]] = {
    "coarse": {"trials": int}, "window": {"trials": int, "margin": float},
    "factor": {"trials": int, "low": float, "high": float}, "grid": {"points": int},
    "tpe": {"trials": int, "wave": int}}
MOST_TRIALS = 100_000

Plan = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Result:
    """A trial that has ended. `value` is None where it failed, and `error` says why in a line."""

    trial: int
    stage: str
    parameters: Parameters
    value: float | None
    seconds: float
    error: str | None

    @property
    def state(self) -> str:
        return "done" if self.error is None else "failed"


class Round(NamedTuple):
    """One round of a plan: how many trials, of which kind, with which options."""

    kind: str
    options: dict[str, Any]
    trials: int


def check_plan(plan: Any) -> Plan:
    """The plan as lists of pairs. Raises ValueError for kinds, options and numbers that do not exist."""
    found: Plan = []
    for step in plan if isinstance(plan, list) else [plan]:
        if not (isinstance(step, list | tuple) and len(step) == 2 and isinstance(step[1], dict)):
            raise ValueError(f"{str(step)[:80]} is no pair of a kind of search and its options")
        kind, options = step
        if not isinstance(kind, str) or kind not in OPTIONS:
            raise ValueError(f"there is no search {str(kind)[:40]!r}; choose from {', '.join(OPTIONS)}")
        takes = OPTIONS[kind]
        if set(options) != set(takes):
            raise ValueError(f"a search of kind {kind} has {', '.join(takes)} but got {', '.join(map(str, options))}")
        for name, value in options.items():
            wanted = (takes[name], int)
            right = isinstance(value, wanted) and not isinstance(value, bool) and 0 < value < math.inf  # type: ignore[operator]
            if not right or (takes[name] is int and value > MOST_TRIALS):
                raise ValueError(f"{kind}: {name} must be a positive {takes[name].__name__} but is {str(value)[:40]}")
        if kind == "factor" and options["low"] >= options["high"]:
            raise ValueError(f"factor: low must be less than high but they are {options['low']} and {options['high']}")
        found.append((kind, dict(options)))
    if sum(options.get("trials", 0) for _, options in found) > MOST_TRIALS:
        raise ValueError(f"the plan has more than {MOST_TRIALS:,} trials")
    return found


def rounds(plan: Plan, space: Space) -> list[Round]:
    """The rounds of a plan, in order."""
    found = []
    for kind, options in plan:
        if kind == "grid":
            found.append(Round(kind, options, math.prod(len(one.values) if isinstance(one, Choice) else
                                                        options["points"] for one in space.values())))
        elif kind == "tpe":
            left, wave = options["trials"], options["wave"]
            found += [Round(kind, options, min(wave, left - at)) for at in range(0, left, wave)]
        else:
            found.append(Round(kind, options, options["trials"]))
    return found


def propose(one: Round, space: Space, seed: int, first: int, results: Sequence[Result],
            minimize: bool) -> list[Parameters]:
    """The parameters of a round's trials `first`, `first` + 1, ...

    Raises ValueError where it needs results and no trial has one, ImportError where optuna is needed and missing.
    """
    if one.kind == "grid":
        return grid(space, one.options["points"])
    if one.kind == "tpe":
        return _tpe(one, space, seed, first, results, minimize)
    if one.kind == "coarse":
        narrow = space
    else:
        best = best_first(results, minimize)
        if not best:
            raise ValueError(f"a search of kind {one.kind} goes on from the best trials, but none has a result yet; "
                             "begin with coarse")
        a, b = best[0].parameters, best[min(1, len(best) - 1)].parameters
        if one.kind == "window":
            narrow = {name: d.window(a[name], b[name], one.options["margin"]) for name, d in space.items()}
        else:
            narrow = {name: d.scaled(a[name], one.options["low"], one.options["high"]) for name, d in space.items()}
    return [draw(narrow, first + k, seed) for k in range(one.trials)]


def best_first(results: Sequence[Result], minimize: bool) -> list[Result]:
    """Those that have a value, the best first; of equals the one with the lower number."""
    valued = [(result.value if minimize else -result.value, result.trial, result)
              for result in results if result.value is not None]
    return [result for _, _, result in sorted(valued)]


def _tpe(one: Round, space: Space, seed: int, first: int, results: Sequence[Result],
         minimize: bool) -> list[Parameters]:
    """Bergstra et al., "Algorithms for hyper-parameter optimization" (2011); inside a round, whose trials go on at the
    same time, each takes those asked before it for bad ones (the constant liar)."""
    optuna = import_optuna()
    import warnings

    kinds: dict[str, Any] = {
        name: optuna.distributions.CategoricalDistribution(d.values) if isinstance(d, Choice)
        else optuna.distributions.FloatDistribution(d.low, d.high, log=isinstance(d, Log)) for name, d in space.items()}
    word = int(philox.run(np.array([first]), seed=seed, stream=philox.SEARCH, epoch=1, count=1)[0, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the constant liar
        sampler = optuna.samplers.TPESampler(seed=word, constant_liar=True)
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(sampler=sampler, direction="minimize" if minimize else "maximize")
        for result in results:
            # Windows may leave the bounds, and optuna knows nothing beyond them.
            if all(d.holds(result.parameters[name]) for name, d in space.items()):
                study.add_trial(optuna.trial.create_trial(
                    state=optuna.trial.TrialState.FAIL if result.value is None else optuna.trial.TrialState.COMPLETE,
                    value=result.value, params=result.parameters, distributions=kinds))
        return [dict(study.ask(kinds).params) for _ in range(one.trials)]
    finally:
        optuna.logging.set_verbosity(level)


def import_optuna() -> Any:
    """optuna. Raises ImportError with a line that says how to get it."""
    try:
        import optuna
    except ImportError:
        raise ImportError("a search of kind tpe needs optuna: pip install 'fastnet[search]'") from None
    return optuna
