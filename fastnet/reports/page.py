"""What a reproduction shows: a table on the terminal, a Markdown page with figures, and the same as JSON."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastnet.nn.summary import align
from fastnet.reports import verdicts
from fastnet.reports.decisions import DECISIONS
from fastnet.reports.experiment import Drawn, Experiment, Results, Row
from fastnet.reports.training import Training, contents
from fastnet.train import record
from fastnet.train.checkpoint import write_atomically

COLUMNS = ("cell", "measured", "reported", "ours", "error", "difference", "verdict", "notes")
LEGEND = ("ours: mean ± standard deviation over seeds; error: binomial standard error of the published figure at that "
          "number of images, or of a difference between one run of each; difference: ours less reported, in points. "
          "fastnet/reports/verdicts.py says what makes a verdict.")


@dataclass(frozen=True)
class Section:
    """An experiment as it came out."""

    experiment: Experiment
    rows: list[Row]
    figures: list[Drawn]
    notice: str = ""  # of its own reductions, where they are not the page's


def conditions(results: Results, data: str) -> list[str]:
    """What all numbers of a page rest on, a line each."""
    lines = [results.scale.notice()] if results.scale.notice() else []
    lines.append(f"seeds {', '.join(map(str, results.seeds))}; device {results.place.device}")
    lines.append(f"data: {data}, sha256 {contents(data, results.place)}")
    if notice := _notice(results):
        lines.append(notice)
    lines.append(", ".join(f"{name} {version}" for name, version in record.versions().items()))
    return lines


def text(sections: Sequence[Section]) -> str:
    """The table for a terminal."""
    rows = [("", *COLUMNS)]
    rows += [(section.experiment.id, *row) for section in sections for row in section.rows]
    return align(rows, right=(3, 4, 5, 6))


def tally(sections: Sequence[Section]) -> str:
    """How many lines got which verdict."""
    counts = Counter(row.verdict for section in sections for row in section.rows)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in verdicts.VERDICTS if counts[verdict])


def write(folder: Path, name: str, about: str, sections: Sequence[Section], conditions: Sequence[str]) -> Path:
    """Write NAME.md and NAME.json; the figures are in the folder already. Raises OSError."""
    title, _, rest = about.partition("\n")
    parts = [f"# {title}", rest.strip(), "\n".join(f"- {line}" for line in conditions), tally(sections) + ".", LEGEND]
    for section in sections:
        parts += _section(section)
    path = folder / f"{name}.md"
    write_atomically(path, ("\n\n".join(part for part in parts if part) + "\n").encode())
    record.write_json(folder / f"{name}.json", {"report": name, "conditions": list(conditions), "experiments": [
        {"id": s.experiment.id, "claim": s.experiment.claim, "decisions": list(s.experiment.decisions),
         "rows": [dict(zip(COLUMNS, row, strict=True)) for row in s.rows], "settings": dict(_settings(s.experiment)),
         "figures": [figure.file for figure in s.figures]} for s in sections]})
    return path


def _section(section: Section) -> list[str]:
    experiment = section.experiment
    parts = [f"## {experiment.id}: {experiment.claim}", section.notice and f"*{section.notice}*", experiment.text,
             "\n".join([_line(COLUMNS), _line(["---"] * len(COLUMNS)), *map(_line, section.rows)])]
    parts += [f"![{figure.caption}]({figure.file})\n\n*{figure.caption}*" for figure in section.figures]
    if experiment.decisions:
        parts.append("\n".join(f"- {name}: {DECISIONS[name]}" for name in experiment.decisions))
    settings = _settings(experiment)
    if settings:
        lines = [f"{label}\n" + "\n".join(f"    {line}" for line in lines) for label, lines in settings]
        parts.append("<details><summary>Settings</summary>\n\n```\n" + "\n".join(lines) + "\n```\n\n</details>")
    return parts


def _settings(experiment: Experiment) -> list[tuple[str, list[str]]]:
    """Of each training all settings as published; of later ones only what differs from the first.

    A training has the label of the first cell that shows it.
    """
    found: list[tuple[str, list[str]]] = []
    first: list[str] = []
    for number, cell in enumerate(experiment.cells):
        if cell.training in [earlier.training for earlier in experiment.cells[:number]]:
            continue
        lines = cell.training.lines()
        found.append((cell.label, [line for line in lines if line not in first] or ["as the first"]))
        first = first or lines
    return found


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _notice(results: Results) -> str:
    data = results.scale.apply(Training("mlp2")).dataset(results.place)
    return data.identity.get("notice") or ""

