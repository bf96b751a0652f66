"""Where a training step's time goes: seconds by op and pass, and what is left for everything between the ops."""

import time
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

import fastnet as fn
from fastnet import backend


def profile(step: Callable[[], object], repeats: int = 20) -> list[tuple[str, float, int]]:
    """(op and pass, seconds a step, calls a step), the longest first; the last rows are the rest and the whole.

    The first two steps are not counted.
    """
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    pair = backend.pair

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                seconds[name] += time.perf_counter() - started
                calls[name] += 1

        return run

    def watched(name: str, *arrays: Any, **options: Any) -> Any:
        module = pair(name, *arrays, **options)
        label = name
        if name == "conv2d":
            w = arrays[1]
            size = "x".join(map(str, arrays[0].shape[1:]))
            label = f"conv2d {size} {w.shape[0]}x{w.shape[1]} {w.shape[3]}"
            if hasattr(module, "algorithm"):
                label += f" {module.algorithm(*arrays, **options)}"
        public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        for key in ("forward", "run"):
            if key in public:
                public[key] = timed(f"{label} {key}", public[key])
        if "backward" in public:
            def backward(dy: Any, cache: Any, needs: Any = None) -> Any:
                if name != "conv2d":
                    return timed(f"{label} backward", module.backward)(dy, cache, needs)
                needs = needs or (True, True, True)
                # One gradient at a time, to tell them apart.
                parts = [timed(f"{label} d{'xwb'[i]}", module.backward)(dy, cache, tuple(j == i for j in range(3)))[i]
                         if needs[i] else None for i in range(3)]
                return tuple(parts)

            public["backward"] = backward
        return SimpleNamespace(**public)

    step()
    step()
    seconds.clear()
    with mock.patch.object(backend, "pair", watched):
        started = time.perf_counter()
        for _ in range(repeats):
            step()
        whole = time.perf_counter() - started
    rows = [(name, spent / repeats, calls[name] // repeats) for name, spent in seconds.items()]
    rows.sort(key=lambda row: -row[1])
    return [*rows, ("between the ops", (whole - sum(seconds.values())) / repeats, 0), ("the step", whole / repeats, 0)]


def training_step(name: str, batch_size: int, **options: Any) -> Callable[[], object]:
    """One step of SGD with momentum on random images."""
    from fastnet.bench.steps import batch

    model = fn.build(name, **options)
    x, labels = batch(name, batch_size, np.float32, 0, options)
    step = fn.TrainStep(model, fn.SGD(lr=1e-3, momentum=0.9))
    return lambda: step(x, labels)
