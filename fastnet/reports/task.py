"""A piece of an experiment that is no training: a function run in a worker, and its answer kept."""

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastnet.reports.training import DONE, Place, Trained, Training, contents, hashed
from fastnet.train import record


@dataclass(frozen=True)
class Task:
    """`function(folder, place, *trained, **arguments)`, whose answer, plain JSON, is kept as the task's result.

    function   'module:name', such as 'fastnet.reports.gradients:mean_absolute'; files that it writes go into `folder`
    arguments  plain JSON; all that decides about the result
    after      trainings whose `Trained` it is given, in this order
    data       the data set it reads, if any, which the function is given as `data`; its images are part of the name
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[Training, ...] = ()
    data: str | None = None

    def key(self, place: Place) -> str:
        """A name for its directory: a hash of the function and its module's text, arguments, runs, data and device."""
        data = contents(self.data, place) if self.data else None
        found = importlib.util.find_spec(self.function.partition(":")[0])
        text = Path(found.origin).read_text() if found and found.origin else ""
        return hashed({"task": self.function, "text": text, "arguments": self.arguments, "data": data,
                       "device": place.device, "after": [training.key(place) for training in self.after]})

    def title(self) -> str:
        name = self.function.partition(":")[2]
        values = [Training(**v).title() if k == "training" else f"{k}={v}" for k, v in self.arguments.items()]
        values += [training.title() for training in self.after]
        return " ".join([name.replace("_", " "), *values])

    def inputs(self) -> tuple[Training, ...]:
        return self.after

    def perform(self, folder: Path, place: Place, inputs: tuple[Trained, ...] = ()) -> None:
        """Run the function and keep its answer. Raises what it raises, TypeError for an answer that is not JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        module, _, name = self.function.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        given = {**self.arguments, **({"data": self.data} if self.data else {})}
        answer = function(folder, place, *inputs, **given)
        record.write_json(folder / DONE, {"task": self.function, "arguments": dict(self.arguments),
                                          "answer": json.loads(json.dumps(answer))})


def answer(folder: Path) -> Any:
    """What a finished task answered."""
    return record.read_json(folder / DONE)["answer"]
