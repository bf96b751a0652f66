"""The figures of a run, drawn from its record alone."""

from pathlib import Path

from fastnet import plots
from fastnet.optim.schedules import SCHEDULES, from_settings
from fastnet.train import record


def draw_curves(folder: Path) -> Path:
    """Draw curves.png of a run directory; return its path. Raises OSError or ValueError for a damaged record."""
    config, history = record.read_json(folder / record.CONFIG), record.read_history(folder)
    try:
        name, settings = config["schedule"]["name"], config["schedule"]["settings"]
        schedule = from_settings(name, settings) if name in SCHEDULES else None
        if schedule is None or hasattr(schedule, "observe"):  # only the run knew it: the epochs' last ones
            starts = [0, *(line["step"] for line in history)]
            rates = [line["lr"] for line, start in zip(history, starts, strict=False)
                     for _ in range(line["step"] - start)]
        else:
            rates = [schedule(t) for t in range(history[-1]["step"])]
        title = f"{config['model']['name']} on {config['data']['name']}, seed {config['seed']}"
        plots.training_curves(history, rates, folder / record.CURVES, title=title)
    except (LookupError, TypeError) as error:
        raise ValueError(f"{folder} holds no whole record of a run ({type(error).__name__}: {error})") from None
    return folder / record.CURVES
