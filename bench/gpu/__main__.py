"""Everything that only a card can tell, in one command of less than nine minutes.

    python -m fastnet.bench.gpu --json gpu.json [--out DIR] [--stages steps peers] [--minutes 9]
    python -m fastnet.bench.gpu --json gpu.json --train RUN [--data DIR] [--minutes 25]
    python -m fastnet.bench.gpu --json gpu.json --table

Stages run in order of value, each in processes of its own, and the record is written as they go: what one that hangs
or dies has measured before stays, and the next one starts. A record that is there is added to. --out is given all that
was printed (gpu.log) and the tables (gpu.md). --train trains ResNet-18 by its report's recipe in the run directory RUN,
from its checkpoint where there is one, and stops with a checkpoint when the time is up.
"""

import argparse
import json
from pathlib import Path

from fastnet import devices
from fastnet.bench.gpu import report, watchdog
from fastnet.bench.gpu.watchdog import Stage
from fastnet.train.record import write_json

HERE = "fastnet.bench.gpu"
STAGES = {stage.name: stage for stage in (
    Stage("environment", f"{HERE}.environment:run", 60),
    Stage("conformance", f"{HERE}.suite:conformance", 60, 30),
    Stage("correctness", f"{HERE}.suite:correctness", 150, 45, workers=8),
    Stage("ceilings", f"{HERE}.ceilings:run", 60, 30),
    Stage("ops", f"{HERE}.ops:run", 100, 45),
    Stage("steps", f"{HERE}.steps:run", 120, 60),
    Stage("peers", f"{HERE}.peers:run", 400, 150))}
MINUTES = {"stages": 8.75, "train": 9.0}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fastnet.bench.gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--json", type=Path, required=True, help="the record")
    add("--out", type=Path, help="a folder for the log and the tables")
    add("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="only these")
    add("--minutes", type=float, help=f"in all (default {MINUTES['stages']:g}; {MINUTES['train']:g} of --train)")
    add("--train", type=Path, metavar="RUN", help="train ResNet-18 in this run directory instead")
    add("--dtype", default="bfloat16", help="of --train (default bfloat16)")
    add("--data", help="of --train: where CIFAR-10 lies")
    add("--table", action="store_true", help="print the tables of the record and measure nothing")
    options = parser.parse_args()
    if options.table:
        print(report.tables(json.loads(options.json.read_text())))
        return
    try:
        devices.library("cuda")
    except (ImportError, devices.DeviceError) as error:
        parser.exit(2, f"fastnet.bench.gpu: {error}\n")
    seconds = 60 * (options.minutes or MINUTES["train" if options.train else "stages"])
    settings = {"device": "cuda", "log": None}
    stages = [STAGES[name] for name in options.stages]
    if options.train:
        settings |= {"run": str(options.train), "dtype": options.dtype, "data": options.data, "seconds": seconds - 20}
        stages = [Stage("training", f"{HERE}.training:run", seconds, seconds)]
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        settings["log"] = str(options.out / "gpu.log")
    write_json(options.json, json.loads(options.json.read_text()) if options.json.exists() else {"stages": {}})
    record = watchdog.run(stages, options.json, settings, seconds)
    if options.out:
        (options.out / "gpu.md").write_text(report.tables(record))
    print(report.short(record))


if __name__ == "__main__":
    main()
