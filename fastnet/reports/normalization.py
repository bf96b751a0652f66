"""R3's comparison of the statistics that batch norm uses in inference: E18 and E19, for one trained network."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fastnet.data import Split
from fastnet.functions import philox
from fastnet.lab.bn_statistics import adaptive_bn_statistics, bn_statistics, set_statistics
from fastnet.reports.training import Place, Trained, Training
from fastnet.train import checkpoint
from fastnet.train.evaluation import evaluate
from fastnet.train.trained import load_run

CORRECT = "correct.safetensors"
# What each cell of R3's table is taken for: {running averages, population} x {training images, test images}.
TABLE = {"neither": ("moving", "train"), "precise": ("layerwise", "train"), "adaptive": ("moving", "test"),
         "both": ("layerwise", "test")}
VARIANTS = {"precise, one pass": ("one_pass", "train"), "precise, Wu & Johnson": ("wu_johnson", "train")}


def inference_statistics(folder: Path, place: Place, run: Trained, *, flip_seed: int = 0) -> dict[str, float]:
    """Test accuracy of one trained model with each kind of statistics; which images it gets right goes into a file.

    The names of TABLE and VARIANTS are on the test images as they are. Those that begin with 'flipped' are on test
    images of which half are mirrored: 'flipped, neither', 'flipped, adaptive' with statistics from the mirrored images
    and 'flipped, adaptive to clean' with those from the images as they are.
    """
    trained = load_run(run.folder, device=place.device)
    model, standardization = trained.model, trained.standardization
    data = Training(**run.found["training"]).dataset(place)
    flipped, seed = flip_half(data.test, flip_seed), run.found["training"]["seed"]
    right: dict[str, np.ndarray] = {}

    def judge(name: str, method: str, source: str, images: Split) -> None:
        if (method, source) == ("moving", "train"):  # what training left behind
            right[name] = evaluate(model, images, standardization).predictions == images.labels
            return
        if source == "train":
            found = bn_statistics(model, data.train, standardization, method=method, seed=seed)
        else:
            found = adaptive_bn_statistics(model, flipped if source == "flipped" else data.test, standardization,
                                           method=method, seed=seed, transductive=True)
        before = set_statistics(model, found)
        right[name] = evaluate(model, images, standardization).predictions == images.labels
        set_statistics(model, before)

    for name, (method, source) in {**TABLE, **VARIANTS}.items():
        judge(name, method, source, data.test)
    judge("flipped, neither", "moving", "train", flipped)
    judge("flipped, adaptive", "layerwise", "flipped", flipped)
    judge("flipped, adaptive to clean", "layerwise", "test", flipped)
    checkpoint.save(folder / CORRECT, right, {})
    return {name: float(values.mean()) for name, values in right.items()}


def correct(folder: Path, name: str) -> np.ndarray:
    """Which test images the model got right with statistics of that name, bool (N,)."""
    return checkpoint.load(folder / CORRECT)[0][name]


def flip_half(split: Split, seed: int) -> Split:
    """The split with every image mirrored left to right whose Philox key says so: about half of them."""
    words = philox.run(split.indices, seed=seed, stream=philox.SPLIT, count=1)
    mirrored = words[:, 0] & 1 == 1
    images = split.images.copy()
    images[mirrored] = images[mirrored, :, ::-1]
    return replace(split, images=images)
