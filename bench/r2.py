"""The four networks of report R2 (E06-E09) beside PyTorch: accuracy over seeds, and time in one process.

    python -m fastnet.bench.r2 [--data-dir DIR] [--seeds 0 1 2] [--models ...] [--json FILE]

Settings: those of `fastnet.reports.r2`, but the first 45,000 images in file order for training, the next 5,000 for
validation. First 50 steps of both from the same weights and batches are compared in float64; then ours and PyTorch's
runs alternate, seed by seed. PyTorch is given its best: the whole standardised training set as float32 in memory, fused
SGD, as many threads as we use.
"""

import argparse
import gc
import importlib.util
import itertools
import json
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numba
import numpy as np

import fastnet as fn
from fastnet.bench.machine import machine
from fastnet.nn.summary import align
from fastnet.reports import r2
from fastnet.train.record import versions

CELLS = [e.cells[0] for e in r2.EXPERIMENTS if e.id in ("E06", "E07", "E08", "E09")]
REPORTED = {cell.training.model: cell.reported for cell in CELLS}
EPOCHS, BATCH, STRENGTH = r2.THREE.epochs, r2.THREE.batch_size, r2.THREE.penalty["L2"]


def ours(name: str, data: fn.data.Dataset, seed: int) -> dict[str, float]:
    """Train with fastnet; test accuracy, and seconds of training with its evaluations."""
    started = time.perf_counter()
    run = fn.fit(fn.build(name, seed=seed), data, fn.SGD(), r2.THREE.rate(len(data.train)), epochs=EPOCHS,
                 batch_size=BATCH, penalty=fn.L2(STRENGTH), normalization="pixel", seed=seed, verbose=False)
    return {"test_accuracy": run.result["test_accuracy"], "seconds": time.perf_counter() - started}


def torch_model(name: str) -> tuple[Any, list[Any]]:
    """PyTorch's network of that name with its weights N(0, 1/fan_in), biases 0; and its linear layers."""
    import torch

    layers: list[torch.nn.Module] = []
    width = 3072
    for size in fn.MODELS[name].options["hidden"]:
        layers.append(torch.nn.Linear(width, size))
        layers += [torch.nn.BatchNorm1d(size)] * name.endswith("-bn") + [torch.nn.ReLU()]
        width = size
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 10))
    linear = [m for m in model if isinstance(m, torch.nn.Linear)]
    for m in linear:
        torch.nn.init.normal_(m.weight, 0, m.in_features**-0.5)
        torch.nn.init.zeros_(m.bias)
    return model, linear


def torch_optimizer(model: Any, linear: list[Any], **options: Any) -> Any:
    """SGD with the penalty on the weight matrices alone."""
    import torch

    weights = [m.weight for m in linear]
    rest = [p for p in model.parameters() if all(p is not w for w in weights)]
    return torch.optim.SGD([{"params": weights, "weight_decay": 2 * STRENGTH}, {"params": rest}], lr=0.1, **options)


def disagreement(name: str, data: fn.data.Dataset, steps: int = 50) -> float:
    """The largest relative difference of the losses of `steps` steps in float64, from the same weights and batches."""
    import torch

    ours = fn.build(name, dtype="float64")
    model, linear = torch_model(name)
    model = model.double()
    weights = {key: value for key, value in ours.parameters().items() if key.startswith("linear")}
    with torch.no_grad():
        for number, m in enumerate(linear, 1):
            m.weight.copy_(torch.from_numpy(weights[f"linear{number}.w"].T.copy()))
            m.bias.zero_()
    optimizer = torch_optimizer(model, linear)
    step = fn.TrainStep(ours, fn.SGD(0.1), penalty=fn.L2(STRENGTH))
    standard = fn.data.Standardization.fit(data.train.images, "pixel")
    worst = 0.0
    for x, labels, _ in itertools.islice(fn.data.Batches(data.train, standard, BATCH, dtype="float64").epoch(0), steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x).reshape(len(x), -1)),
                                                 torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        worst = max(worst, abs(float(step(x, labels)) / loss.item() - 1))
    return worst


def theirs(name: str, data: fn.data.Dataset, seed: int) -> dict[str, float]:
    """The same with PyTorch; the standardisation of its data in memory is not counted."""
    import torch

    torch.set_num_threads(numba.get_num_threads())
    torch.manual_seed(seed)
    standard = fn.data.Standardization.fit(data.train.images, "pixel")
    splits = [(torch.from_numpy(standard.apply(s.images)).reshape(len(s), -1), torch.from_numpy(s.labels))
              for s in (data.train, data.validation, data.test)]
    model, linear = torch_model(name)
    optimizer = torch_optimizer(model, linear, fused=True)
    (x, labels), validation, test = splits
    rate = r2.THREE.rate(len(x))
    criterion = torch.nn.CrossEntropyLoss()

    def accuracy(split: tuple[torch.Tensor, torch.Tensor]) -> float:
        model.eval()
        with torch.no_grad():
            logits = model(split[0])
            criterion(logits, split[1])
            found = (logits.argmax(1) == split[1]).float().mean().item()
        model.train()
        return found

    step = 0
    started = time.perf_counter()
    for _ in range(EPOCHS):
        for at in torch.randperm(len(x)).split(BATCH):
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            optimizer.zero_grad(set_to_none=True)
            criterion(model(x[at]), labels[at]).backward()
            optimizer.step()
            step += 1
        accuracy(validation)
    tested = accuracy(test)
    return {"test_accuracy": tested, "seconds": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=tuple(REPORTED), default=list(REPORTED))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = fn.data.load("cifar10", options.data_dir, split="45000/5000", order="file")
    peer = importlib.util.find_spec("torch") is not None
    headings = ("model", "ours, test %", "PyTorch, test %", "R2, test %", "ours, s", "PyTorch, s", "PyTorch / ours",
                "disagreement")
    rows, record = [], {}
    for name in options.models:
        # Agree first; and compilation is not what is compared here.
        worst = disagreement(name, data) if peer else None
        fn.fit(fn.build(name), data, fn.SGD(0.01), epochs=1, batch_size=5000, normalization="pixel", verbose=False)
        runs: dict[str, list[dict[str, float]]] = {"fastnet": [], "torch": []}
        for seed in options.seeds:
            runs["fastnet"].append(ours(name, data, seed))
            gc.collect()
            if peer:
                runs["torch"].append(theirs(name, data, seed))
                gc.collect()
        record[name] = {**runs, "reported": REPORTED[name], "disagreement": worst}
        ratios = [t["seconds"] / f["seconds"] for f, t in zip(runs["fastnet"], runs["torch"], strict=False)]
        rows.append((name, _accuracy(runs["fastnet"]), _accuracy(runs["torch"]), f"{100 * REPORTED[name]:.2f}",
                     _seconds(runs["fastnet"]), _seconds(runs["torch"]),
                     f"{np.median(ratios):.2f}" if ratios else "-", f"{worst:.0e}" if worst is not None else "-"))
        print(rows[-1], flush=True)
    print(align([headings, *rows], right=(2, 3, 4, 5, 6, 7)))
    if options.json:
        found = versions() | ({"torch": metadata.version("torch")} if peer else {})
        options.json.write_text(json.dumps({
            "runs": record, "seeds": options.seeds, "data": data.identity, "threads": numba.get_num_threads(),
            "machine": machine(), "versions": found}, indent=1) + "\n")


def _accuracy(runs: list[dict[str, float]]) -> str:
    if not runs:
        return "-"
    values = 100 * np.array([run["test_accuracy"] for run in runs])
    return f"{values.mean():.2f} +- {values.std(ddof=1):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _seconds(runs: list[dict[str, float]]) -> str:
    return f"{np.median([run['seconds'] for run in runs]):.1f}" if runs else "-"


if __name__ == "__main__":
    main()
