"""The commands that use a finished run, predict and export, and the start of a new one from weights in a file."""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from fastnet import cli_options
from fastnet.nn.sequential import Sequential
from fastnet.nn.summary import align


def add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the directory of a finished run")
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path)
    parser.add_argument("--top", type=int, default=3, metavar="N", help="how many classes to show (default 3)")
    parser.add_argument("--json", action="store_true", help="all classes of every image as JSON")
    cli_options.add_device(parser)


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the directory of a finished run")
    parser.add_argument("file", metavar="FILE", type=Path, help="the safetensors file to write")


def predict(options: argparse.Namespace) -> None:
    """Print the likeliest classes of each image. What cannot be read is named in the end, after all others."""
    from fastnet.data.images import MODES, read_image, require_pillow
    from fastnet.train.trained import load_run

    if options.top < 1:
        raise ValueError(f"--top must be at least 1 but is {options.top}")
    require_pillow()
    run = load_run(options.run_dir, device=options.device)
    if run.input_shape[2] not in MODES:
        raise ValueError(f"{options.run_dir}: its images have {run.input_shape[2]} channels; files have "
                         f"{' or '.join(map(str, MODES))}")
    paths, images, bad = [], [], []
    for path in options.images:
        try:
            images.append(read_image(path, run.input_shape))
            paths.append(path)
        except (OSError, ValueError) as error:
            bad.append(f"{path}: {getattr(error, 'strerror', None) or error}")
    if paths:
        scores = run.scores(np.stack(images))
        if options.json:
            print(json.dumps([{"image": str(path), "class": run.classes[int(row.argmax())],
                               run.score: dict(zip(run.classes, row.tolist(), strict=True))}
                              for path, row in zip(paths, scores, strict=True)], indent=2))
        else:
            print(_table(paths, scores, run.classes, run.score, options.top))
    if bad:
        raise ValueError(f"{len(bad)} of {len(options.images)} images cannot be read: {'; '.join(bad)}")


def _table(paths: list[Path], scores: np.ndarray, classes: tuple[str, ...], what: str, top: int) -> str:
    """A row for each image: its name, then class and score, the likeliest first."""
    top = min(top, len(classes))
    header = ["image"]
    for rank in range(top):
        header += [f"{rank + 1}. class" if rank else "class", what]
    rows: list[tuple[str, ...]] = [tuple(header)]
    for path, row in zip(paths, scores, strict=True):
        best = np.argsort(-row, kind="stable")[:top]
        cells = [cell for k in best for cell in (classes[k], f"{row[k]:.4f}")]
        rows.append((str(path), *cells))
    return align(rows, right=tuple(range(2, 2 * top + 1, 2)))


def export(options: argparse.Namespace) -> None:
    """Write the run's model as PyTorch names and orders it."""
    from fastnet.train.trained import load_run
    from fastnet.train.weights import save_torch_weights

    run = load_run(options.run_dir)
    save_torch_weights(run.model, options.file, input_shape=run.input_shape)
    print(f"{run.model.model_name}: {run.model.num_parameters():,} parameters -> {options.file}")


def start_from(model: Sequential, file: Path, shape: tuple[int, ...]) -> None:
    """Fill the model with the weights in `file`; which ones is kept with the run."""
    from fastnet.train.weights import load_weights

    load_weights(model, file, input_shape=shape)
    model.settings["weights"] = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
