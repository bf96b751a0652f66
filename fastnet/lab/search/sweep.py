"""What a journal's lines add up to. Every line is looked at before it counts; one that cannot be is a ValueError.

    {"fastnet": "sweep", "format": 1, "space", "seed", "minimize", "lease", "settings"}     the first line
    {"event": "plan", "plan"}                   the searches, which may get longer and never other ones
    {"event": "round", "first", "trials"}       parameters of the trials from number `first` on
    {"event": "claim", "trial", "owner", "time"}    who tries it, since when; a second claim is a takeover
    {"event": "beat", "owner", "trials"}        the owner is alive and still at these
    {"event": "released", "trial", "owner"}     given back after Ctrl-C
    {"event": "lost", "trial", "owner"}         the process that tried it died
    {"event": "done", "trial", "owner", "seconds", "value"}
    {"event": "failed", "trial", "owner", "seconds", "error"}
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastnet.lab.search.plan import Plan, Result, Round, check_plan, rounds
from fastnet.lab.search.space import Parameters, Space, from_settings

FORMAT = 1
FIELDS: dict[str, dict[str, type]] = {
    "plan": {"plan": list}, "round": {"first": int, "trials": list},
    "claim": {"trial": int, "owner": str, "time": float}, "beat": {"owner": str, "trials": list},
    "released": {"trial": int, "owner": str}, "lost": {"trial": int, "owner": str},
    "done": {"trial": int, "owner": str, "seconds": float, "value": float},
    "failed": {"trial": int, "owner": str, "seconds": float, "error": str}}


@dataclass
class Standing:
    """How it stands with one trial. `signs` counts the lines that its owner wrote of it; `losses` who died of it."""

    number: int
    stage: str
    parameters: Parameters
    owner: str | None = None
    claimants: set[str] = field(default_factory=set)
    signs: int = 0
    losses: int = 0
    result: Result | None = None


class Sweep:
    """A sweep as its header describes it, and all that happened since."""

    def __init__(self, header: Any) -> None:
        takes = {"fastnet": str, "format": int, "space": dict, "seed": int, "minimize": bool, "lease": float,
                 "settings": dict}
        if not isinstance(header, dict) or header.get("fastnet") != "sweep":
            raise ValueError("it is not a sweep's journal")
        if isinstance(header.get("format"), int) and header["format"] > FORMAT:
            raise ValueError(f"it has format {header['format']}, but this fastnet reads up to {FORMAT}")
        _check_fields("header", header, takes)
        if not header["lease"] > 0 or not 0 <= header["seed"] < 2**64 or not header["space"]:
            raise ValueError("its header has a lease, a seed or a space that cannot be")
        self.header = header
        self.space: Space = {name: from_settings(settings) for name, settings in header["space"].items()}
        self.seed, self.minimize, self.lease = header["seed"], header["minimize"], float(header["lease"])
        self.plan: Plan = []
        self.rounds: list[Round] = []
        self.opened = 0  # rounds whose trials are known
        self.trials: list[Standing] = []

    def apply(self, event: Any) -> None:
        """Count one line. Raises ValueError where it is none of ours or contradicts those before it."""
        if not isinstance(event, dict) or not isinstance(event.get("event"), str) or event["event"] not in FIELDS:
            raise ValueError("it is no event of a sweep")
        kind = event["event"]
        _check_fields(kind, event, {"event": str, **FIELDS[kind]})
        if kind == "plan":
            plan = check_plan(event["plan"])
            if plan[:len(self.plan)] != self.plan:
                raise ValueError("it is another plan, not a longer one")
            if plan != self.plan:
                self.plan, self.rounds = plan, rounds(plan, self.space)
        elif kind == "round":
            self._round(event["first"], event["trials"])
        elif kind == "beat":
            for number in event["trials"]:
                self._owned(number, event["owner"]).signs += 1
        else:
            self._trial(kind, event)

    def _round(self, first: int, trials: list[Any]) -> None:
        if self.opened == len(self.rounds):
            raise ValueError("it opens a round that the plan does not have")
        if not self.ended(self.opened):
            raise ValueError("it opens a round before the one before has ended")
        one = self.rounds[self.opened]
        if first != len(self.trials) or len(trials) != one.trials:
            raise ValueError(f"its round has {len(trials)} trials from {first} on, but the plan has {one.trials} from "
                             f"{len(self.trials)} on")
        for k, parameters in enumerate(trials):
            if not isinstance(parameters, dict) or list(parameters) != list(self.space) or any(
                    not isinstance(value, str | bool | int | float) for value in parameters.values()):
                raise ValueError(f"trial {first + k} does not have the parameters {', '.join(self.space)}")
            self.trials.append(Standing(first + k, one.kind, parameters))
        self.opened += 1

    def _trial(self, kind: str, event: dict[str, Any]) -> None:
        number, owner = event["trial"], event["owner"]
        if kind == "claim":
            trial = self._open(number)
            trial.losses += trial.owner is not None
            trial.owner = owner
            trial.claimants.add(owner)
            trial.signs += 1
        elif kind in ("released", "lost"):
            trial = self._owned(number, owner)
            trial.losses += kind == "lost"
            trial.owner = None
        else:
            trial = self._open(number)
            if owner not in trial.claimants:
                raise ValueError(f"trial {number} ends by somebody who never claimed it")
            trial.result = Result(number, trial.stage, trial.parameters, event.get("value"), event["seconds"],
                                  event.get("error"))

    def _open(self, number: Any) -> Standing:
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(self.trials):
            raise ValueError(f"there is no trial {str(number)[:40]}")
        if self.trials[number].result is not None:
            raise ValueError(f"trial {number} has ended before")
        return self.trials[number]

    def _owned(self, number: Any, owner: str) -> Standing:
        trial = self._open(number)
        if trial.owner != owner:
            raise ValueError(f"trial {number} is not its owner's")
        return trial

    def ended(self, count: int) -> bool:
        """Whether all trials of the first `count` rounds have ended."""
        known = sum(one.trials for one in self.rounds[:count])
        return len(self.trials) >= known and all(trial.result is not None for trial in self.trials[:known])

    @property
    def results(self) -> list[Result]:
        return [trial.result for trial in self.trials if trial.result is not None]


def _check_fields(what: str, found: Mapping[str, Any], takes: Mapping[str, type]) -> None:
    if set(found) != set(takes):
        raise ValueError(f"a line of kind {what} has {', '.join(takes)} but this has "
                         f"{', '.join(str(name)[:40] for name in list(found)[:12])}")
    for name, kind in takes.items():
        value = found[name]
        right = isinstance(value, int | float if kind is float else kind)
        if isinstance(value, bool) is not (kind is bool) or not right:
            raise ValueError(f"its {name} is {str(value)[:40]!r}, but {kind.__name__} is needed")
        if kind is float and not abs(value) <= sys.float_info.max:
            raise ValueError(f"its {name} is not finite")
