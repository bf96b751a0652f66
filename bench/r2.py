"""The four networks of report R2 (E06-E09) beside PyTorch: accuracy over seeds, and time in one process.

    python -m fastnet.bench.r2 [--data-dir DIR] [--seeds 0 1 2] [--json FILE]

Settings: the first 45,000 images in file order for training, the next 5,000 for validation; per-pixel
standardisation; weights N(0, 1/fan_in), biases 0; BN before ReLU; penalty .005 sum(W^2) on the weight matrices;
batch 100; rate from 1e-5 to 1e-1 and back, twice, in 20 epochs. Ours and PyTorch's runs alternate. PyTorch is given
its best: the whole standardised training set as float32 in memory, fused SGD, as many threads as we use.
"""

import argparse
import gc
import importlib.util
import json
import time
from pathlib import Path

import numba
import numpy as np

import fastnet as fn
from fastnet.nn.summary import align
from fastnet.train.record import versions

NETS = ("mlp3", "mlp3-bn", "mlp9", "mlp9-bn")
REPORTED = {"mlp3": 0.5360, "mlp3-bn": 0.5323, "mlp9": 0.4411, "mlp9-bn": 0.5019}
EPOCHS, BATCH, STRENGTH = 20, 100, 0.005


def ours(name: str, data: fn.data.Dataset, seed: int) -> dict[str, float]:
    """Train with fastnet; test accuracy, and seconds of training with its evaluations."""
    schedule = fn.schedules.triangular(half_cycle_steps=5 * len(data.train) // BATCH)
    started = time.perf_counter()
    run = fn.fit(fn.build(name, seed=seed), data, fn.SGD(), schedule, epochs=EPOCHS, batch_size=BATCH,
                 penalty=fn.L2(STRENGTH), normalization="pixel", seed=seed, verbose=False)
    return {"test_accuracy": run.result["test_accuracy"], "seconds": time.perf_counter() - started}


def theirs(name: str, data: fn.data.Dataset, seed: int) -> dict[str, float]:
    """The same with PyTorch; the standardisation of its data in memory is not counted."""
    import torch

    torch.set_num_threads(numba.get_num_threads())
    torch.manual_seed(seed)
    standard = fn.data.Standardization.fit(data.train.images, "pixel")
    splits = [(torch.from_numpy(standard.apply(s.images)).reshape(len(s), -1), torch.from_numpy(s.labels))
              for s in (data.train, data.validation, data.test)]
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
    weights = [m.weight for m in linear]
    rest = [p for p in model.parameters() if all(p is not w for w in weights)]
    optimizer = torch.optim.SGD([{"params": weights, "weight_decay": 2 * STRENGTH}, {"params": rest}], lr=0.1,
                                fused=True)
    (x, labels), validation, test = splits
    rate = fn.schedules.triangular(half_cycle_steps=5 * len(x) // BATCH)
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
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = fn.data.load("cifar10", options.data_dir, split="45000/5000", order="file")
    peer = importlib.util.find_spec("torch") is not None
    for name in NETS:  # compilation is not what is compared here
        fn.fit(fn.build(name), data, fn.SGD(0.01), epochs=1, batch_size=5000, normalization="pixel", verbose=False)
    rows, record = [], {}
    for name in NETS:
        runs = [ours(name, data, options.seeds[0])]
        torch_run = theirs(name, data, options.seeds[0]) if peer else None
        gc.collect()
        runs += [ours(name, data, seed) for seed in options.seeds[1:]]
        accuracies = 100 * np.array([run["test_accuracy"] for run in runs])
        seconds = float(np.median([run["seconds"] for run in runs]))
        record[name] = {"fastnet": runs, "torch": torch_run, "reported": REPORTED[name]}
        rows.append((name, f"{accuracies.mean():.2f} +- {accuracies.std(ddof=1) if len(runs) > 1 else 0:.2f}",
                     f"{100 * torch_run['test_accuracy']:.2f}" if torch_run else "-", f"{100 * REPORTED[name]:.2f}",
                     f"{seconds:.1f}", f"{torch_run['seconds']:.1f}" if torch_run else "-",
                     f"{torch_run['seconds'] / seconds:.2f}" if torch_run else "-"))
        print(name, rows[-1], flush=True)
    print(align([("model", "ours, test %", "PyTorch, test %", "R2, test %", "ours, s", "PyTorch, s", "PyTorch / ours"),
                 *rows], right=(2, 3, 4, 5, 6)))
    if options.json:
        found = versions()
        if peer:
            import torch

            found["torch"] = torch.__version__
        options.json.write_text(json.dumps({"runs": record, "seeds": options.seeds, "data": data.identity,
                                            "threads": numba.get_num_threads(), "versions": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
