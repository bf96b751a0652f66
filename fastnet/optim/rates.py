"""Learning rates per parameter: factors chosen by name, laid out over the flat vector."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from fastnet.optim._checks import at_least_zero


class Run(NamedTuple):
    """Neighbours in the flat vector, [start, stop), whose rate has the same factor."""

    start: int
    stop: int
    factor: float


def runs(places: Mapping[str, int], size: int, rates: Mapping[str, float] | None) -> list[Run]:
    """The runs of a vector of `size` entries where parameter `name` starts at places[name]; padding goes with it.

    `rates` maps patterns (as in a shell: 'linear1.*') to factors; the last that matches a name wins, and the factor
    is 1 where none does. A factor of 0 freezes. Raises ValueError for a pattern without a match or a negative factor.
    """
    rates = rates or {}
    for pattern, factor in rates.items():
        at_least_zero("rates", **{f"the factor of {pattern!r}": factor})
        if not any(fnmatchcase(name, pattern) for name in places):
            raise ValueError(f"rates: {pattern!r} matches no parameter; there are {', '.join(places)}")
    found: list[Run] = []
    for name, start in sorted(places.items(), key=lambda item: item[1], reverse=True):
        factor = next((f for pattern, f in reversed(list(rates.items())) if fnmatchcase(name, pattern)), 1.0)
        stop = found[-1].start if found else size
        if found and found[-1].factor == factor:
            stop = found.pop().stop
        found.append(Run(start, stop, factor))
    return found[::-1]
