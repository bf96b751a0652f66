"""What all figures share."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Okabe & Ito's palette: told apart with any form of colour blindness.
TRAIN, VALIDATION, RATE = "#0072B2", "#D55E00", "#009E73"
COLOURS = (TRAIN, VALIDATION, RATE, "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # its yellow is too pale for lines
STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
              "grid.alpha": 0.3, "legend.frameon": False, "figure.constrained_layout.use": True, "lines.linewidth": 1.6}


@contextlib.contextmanager
def written(path: Path, width: float, height: float, title: str | None = None) -> Iterator[Any]:
    """A figure of so many inches to draw on; it is in the file `path` when the block ends."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), dpi=150)
        if title is not None:
            figure.suptitle(title, fontsize=10)
        yield figure
        figure.savefig(path)
