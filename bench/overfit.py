"""Can every model of the table learn 200 images by heart? What cannot has a mistake somewhere.

    python -m fastnet.bench.overfit [--data-dir DIR] [--models ...] [--json FILE]

The first 200 images of CIFAR-10, standardised by channel; Adam, rate .001, batches of 50 in an order of their own each
epoch; no penalty, no augmentation. After each epoch the images are classified in inference mode, until all are right.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import fastnet as fn
from fastnet.nn.summary import align
from fastnet.train.record import versions

IMAGES, BATCH, MOST_EPOCHS = 200, 50, 1000
FOR_TABLES = ("alexnet",)


def overfit(name: str, x: np.ndarray, labels: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Train on x until every label is right; the accuracy reached, epochs and seconds that it took."""
    model = fn.build(name, seed=seed)
    step = fn.TrainStep(model, fn.Adam(lr=1e-3), seed=seed)
    rng = np.random.default_rng(seed)
    started = time.perf_counter()
    accuracy, epoch = 0.0, 0
    while accuracy < 1 and epoch < MOST_EPOCHS:
        epoch += 1
        for batch in rng.permutation(len(x)).reshape(-1, BATCH):
            step(x[batch], labels[batch], samples=batch, epoch=epoch)
        accuracy = float(np.mean(model.predict(x).argmax(axis=1) == labels))
    return {"accuracy": accuracy, "epochs": epoch, "seconds": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn 200 images by heart, with every model.")
    parser.add_argument("--data-dir")
    parser.add_argument("--models", nargs="+", default=[name for name in fn.MODELS if name not in FOR_TABLES])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = fn.data.load("cifar10", data_dir=options.data_dir)
    images, labels = data.train.images[:IMAGES], data.train.labels[:IMAGES]
    x = images / np.float32(255)
    x = (x - x.mean(axis=(0, 1, 2))) / x.std(axis=(0, 1, 2))
    runs = {}
    for name in options.models:
        runs[name] = overfit(name, x, labels)
        print(name, runs[name], flush=True)
    rows = [("model", "accuracy", "epochs", "seconds")]
    rows += [(name, f"{r['accuracy']:.1%}", str(r["epochs"]), f"{r['seconds']:.1f}") for name, r in runs.items()]
    print(align(rows, right=(1, 2, 3)))
    if options.json:
        options.json.write_text(json.dumps({"runs": runs, "versions": versions()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
