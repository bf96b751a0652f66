"""The commands of the laboratory: `fastnet lab SUBJECT RUN_DIR` looks into finished runs."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastnet import cli_options, lab
from fastnet.nn.summary import align


def add_lab(parser: argparse.ArgumentParser) -> None:
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")

    def subject(name: str, run: Callable[[argparse.Namespace], None], about: str, data: bool = True) -> Any:
        added = subjects.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        added.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="the directory of a finished run")
        added.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN_DIR/lab)")
        if data:
            added.add_argument("--data-dir", type=Path, help="where CIFAR-10 lies")
            added.add_argument("--data", metavar="folder:DIR", help="where the run's folder of images lies")
        cli_options.add_device(added)
        return added.add_argument

    add = subject("statistics", statistics, "Measure the statistics of batch norm anew, and what that changes.")
    add("--of", choices=("train", "test"), default="train", help="the images they are measured on (default train)")
    add("--method", choices=lab.METHODS, default="layerwise", help="default layerwise, which is exact")
    add("--transductive", action="store_true", help="allow those of the test images, which are to be classified")
    add("--batch-size", type=int, default=100, help="of the methods that go by batches (default 100)")
    add("--seed", type=int, default=0, help="of the batches (default 0)")
    add = subject("surface", surface, "Draw the loss around the model along filter-normalised random directions.")
    add("--dimensions", type=int, choices=(1, 2), default=1, help="default 1")
    add("--points", type=int, help="along each direction (default 51, or 21 for two)")
    add("--reach", type=float, default=1.0, help="offsets go from -reach to reach (default 1)")
    add("--split", choices=("train", "validation", "test"), default="train", help="of the images (default train)")
    add("--images", type=int, default=1000, help="how many of them (default 1000)")
    add("--seed", type=int, default=0, help="of the directions and the images (default 0)")
    add("--move-vectors", action="store_true", help="move biases, gamma and beta too")
    add = subject("features", features, "Draw what the layers make of an image file, through Pillow.", data=False)
    add("image", metavar="IMAGE", type=Path)
    add("--layers", nargs="+", metavar="PATTERN", help="names, such as 'layer1.0.*' (default: up to the third "
                                                       "convolution)")
    add("--whole", action="store_true", help="the image in its own size instead of the model's")
    add("--longest", type=int, metavar="PIXELS", help="with --whole: make a larger one so small")
    add("--channels", type=int, default=8, help="of each layer (default 8)")
    add = subject("histograms", histograms, "Draw the weights of each layer, and count zeros.", data=False)
    add("--beside", nargs="+", type=Path, default=[], metavar="RUN_DIR", help="other runs, to compare")
    add("--bins", type=int, default=101, help="default 101")
    add("--limit", type=float, help="of the horizontal axis (default: the largest weight)")
    add("--tolerance", type=float, default=1e-3, help="below which a weight counts as near zero (default 0.001)")


def statistics(options: argparse.Namespace) -> None:
    """Print loss and accuracy on the test images with the run's statistics and with those measured."""
    from fastnet.train.evaluation import evaluate
    from fastnet.train.trained import load_run

    if options.of == "test" and not options.transductive:
        raise ValueError("--of test measures on the images that are to be classified; say --transductive if that is "
                         "meant")
    run = load_run(options.run_dir, device=options.device)
    model, standardization, loss = run.model, run.standardization, lab.run_loss(options.run_dir)
    data = lab.run_data(options.run_dir, options.data_dir, data=options.data)
    how = {"method": options.method, "batch_size": options.batch_size, "seed": options.seed}
    found = (lab.adaptive_bn_statistics(model, data.test, standardization, transductive=options.transductive, **how)
             if options.of == "test" else lab.bn_statistics(model, data.train, standardization, **how))
    evaluations = {"the run's own": evaluate(model, data.test, standardization, **loss)}
    lab.set_statistics(model, found)
    measured = f"{found.method}, {found.images:,} {options.of} images"
    evaluations[measured] = evaluate(model, data.test, standardization, **loss)
    rows: list[tuple[str, ...]] = [("statistics", "test loss", "test accuracy", "standard error")]
    rows += [(name, f"{e.loss:.4f}", f"{100 * e.accuracy:.2f} %", f"{100 * _error(e.accuracy, len(data.test)):.2f} pp")
             for name, e in evaluations.items()]
    right = [e.predictions == data.test.labels for e in evaluations.values()]
    lost, won = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    p = _mcnemar(lost, won)
    print(align(rows, right=(1, 2, 3)))
    print(f"right only with the run's own: {lost}, only with the others: {won}; exact McNemar test: p = {p:.3g}"
          + ("; transductive" if found.transductive else ""))
    _write(options, "statistics.json", {
        **found.settings(), "of": options.of, "statistics": found.arrays, "lost": lost, "won": won, "p": p,
        "evaluations": {name: {"loss": e.loss, "accuracy": e.accuracy} for name, e in evaluations.items()}})


def surface(options: argparse.Namespace) -> None:
    """Write surface.png and surface.json."""
    from fastnet import plots
    from fastnet.train.trained import load_run

    points = options.points or (51 if options.dimensions == 1 else 21)
    if points < 2 or not 0 < options.reach < math.inf:
        raise ValueError("--points must be at least 2 and --reach positive")
    run = load_run(options.run_dir, device=options.device)
    split = getattr(lab.run_data(options.run_dir, options.data_dir, data=options.data), options.split)
    offsets = np.linspace(-options.reach, options.reach, points)
    found = lab.plain(lab.loss_surface(
        run.model, split, run.standardization, a=offsets, b=offsets if options.dimensions == 2 else None,
        images=min(options.images, len(split)), seed=options.seed, move_vectors=options.move_vectors,
        **lab.run_loss(options.run_dir)))
    draw = plots.loss_lines if options.dimensions == 1 else plots.loss_contours
    path = _folder(options) / "surface.png"
    name = run.model.model_name or "model"
    draw({name: found}, path, title=f"{name}, {found['images']} {options.split} images, seed {options.seed}")
    print(path)
    _write(options, "surface.json", found)


def features(options: argparse.Namespace) -> None:
    """Write features.png."""
    from fastnet import plots
    from fastnet.data.images import MODES, read_image, read_whole_image, require_pillow
    from fastnet.train.trained import load_run

    if options.longest is not None and not options.whole:
        raise ValueError("--longest is for --whole")
    if options.channels < 1 or (options.longest or 1) < 1:
        raise ValueError("--channels and --longest must be at least 1")
    require_pillow()
    run = load_run(options.run_dir, device=options.device)
    channels = run.input_shape[2]
    if channels not in MODES:
        raise ValueError(f"{options.run_dir}: its images have {channels} channels; files have "
                         f"{' or '.join(map(str, MODES))}")
    try:
        image = (read_whole_image(options.image, channels, options.longest) if options.whole
                 else read_image(options.image, run.input_shape))
    except ValueError as error:
        raise ValueError(f"{options.image}: {error}") from None
    found = lab.feature_maps(run.model, image, run.standardization, layers=options.layers or _first_two(run.model))
    path = _folder(options) / "features.png"
    plots.feature_maps(found.image, found.maps, path, title=f"{run.model.model_name}, {options.image.name}",
                       kinds=found.kinds, channels=options.channels)
    if found.ended_by:
        print(f"at {'x'.join(map(str, image.shape))} the network ends there: {found.ended_by}")
    print(path)


def histograms(options: argparse.Namespace) -> None:
    """Print a table for each run; write histograms.png and histograms.json."""
    from fastnet import plots
    from fastnet.train.trained import load_run

    found = {}
    for folder in [options.run_dir, *options.beside]:
        rows = lab.weight_histograms(load_run(folder, device=options.device).model, bins=options.bins,
                                     limit=options.limit, tolerance=options.tolerance)
        found[str(folder)] = lab.plain(rows)
        near = f"within {options.tolerance:g}"
        table: list[tuple[str, ...]] = [("weights", "number", "zeros", near, "std", "largest")]
        table += [(row.name, f"{row.size:,}", f"{100 * row.zeros / row.size:.2f} %",
                   f"{100 * row.near_zero / row.size:.2f} %", f"{row.std:.4f}", f"{row.largest:.4f}") for row in rows]
        print(folder)
        print(align(table, right=(1, 2, 3, 4, 5)))
    path = _folder(options) / "histograms.png"
    plots.weight_histograms(found, path, title="Weights")
    print(path)
    _write(options, "histograms.json", found)


def _first_two(model: Any) -> list[str]:
    """The names of the layers up to the third convolution; of all that there are, where there is none."""
    from fastnet.nn.sequential import named_layers

    names, convolutions = [], 0
    for name, layer in named_layers(model):
        if layer.children():
            continue
        convolutions += layer.kind == "Conv2d"
        if convolutions > 2 or layer.kind in ("Flatten", "Linear"):
            break
        names.append(name)
    if not convolutions:
        raise ValueError(f"{model.model_name} has no convolutions, so there are no feature maps")
    return names


def _folder(options: argparse.Namespace) -> Path:
    folder = options.out or options.run_dir / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(options: argparse.Namespace, name: str, value: Any) -> None:
    from fastnet.train.record import write_json

    path = _folder(options) / name
    write_json(path, lab.plain(value))
    print(path)


def _error(accuracy: float, images: int) -> float:
    """The binomial standard error."""
    return math.sqrt(accuracy * (1 - accuracy) / images)


def _mcnemar(lost: int, won: int) -> float:
    """The exact two-sided p of so many images that one classifier alone has right, and so many the other alone."""
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0
