"""The command `fastnet reproduce`."""

import argparse
import sys
from pathlib import Path

from fastnet import cli_options, devices
from fastnet.nn.summary import align


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("report", metavar="REPORT", nargs="?", help="R1, R2, ..., or theory: R4's questions")
    add("experiments", metavar="EXPERIMENT", nargs="*", help="of the report, such as E14 (default: all)")
    add("--list", action="store_true", help="list the experiments and what they claim, and run nothing")
    add("--seeds", type=int, default=3, help="runs of everything, with seeds 0, 1, ... (default 3)")
    add("--scale", choices=("quick", "full"), default="full",
        help="full: as published (default); quick: a tenth of the images and updates, told so everywhere")
    cli_options.add_device(parser)
    add("--data-dir", type=Path, help="where CIFAR-10 lies (else $FASTNET_DATA, else the cache, else downloaded)")
    add("--out", type=Path, default=Path("runs/reproduce"),
        help="runs, each in a directory of its own, kept for the next time (default runs/reproduce)")
    add("--page", type=Path, metavar="DIR", help="folder of the Markdown page and its figures (default OUT/pages)")
    add("--note", default="", metavar="TEXT", help="a line for the page, such as where the data come from")
    add("--workers", type=int, metavar="N", help="processes of one thread each (default: one a core, on a GPU 0); 0: "
                                                 "one run after another in this process")


def run(options: argparse.Namespace) -> int:
    """Reproduce a report; 1 if something could not be run. A verdict, `differs` too, is a result and no failure."""
    from fastnet.reports import page
    from fastnet.reports.reproduce import reproduce
    from fastnet.reports.scale import SCALES
    from fastnet.reports.training import Place

    if options.list:
        print(_listing(options.report))
        return 0
    if options.report is None:
        raise ValueError("name a report, such as R1; --list shows them all")
    devices.library(options.device)
    place = Place(str(options.data_dir) if options.data_dir else None, options.device)
    try:
        found = reproduce(options.report, options.experiments, scale=SCALES[options.scale], seeds=options.seeds,
                          place=place, out=options.out, pages=options.page, workers=options.workers,
                          note=options.note, tell=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print(f"\nall that is done is in {options.out}; the same command goes on from there", file=sys.stderr)
        raise
    print(f"{page.text(found.sections)}\n{page.LEGEND}\n{page.tally(found.sections)}\n{found.page}")
    return 0 if found.complete else 1


def _listing(report: str | None) -> str:
    from fastnet.reports.reproduce import chosen, reports

    names = [report.upper()] if report else list(reports())
    return align([("report", "experiment", "claim"), *((name, e.id, e.claim) for name in names for e in chosen(name))])
