"""R4: LeNet-5 and ResNet lab, September 2020.

LeNet-5 with augmentation, batch norm and Swish, sweeps of the rate and of L2, L1 beside L2, two ResNets. The report
names neither optimizer nor batch nor the default rate: all are SGD with momentum .9, batches of 128, 45,000/5,000
images, rate .005 without batch norm and .02 with it (chosen on the validation images), L2 1e-4. Sweeps, whose length is
not named either, are 20 epochs: enough to rank. Accuracies are of the validation images, as the report's are.
"""

from dataclasses import replace

import numpy as np

from fastnet.reports import initial, sparsity
from fastnet.reports.experiment import Cell, Effect, Experiment, Results, Row, claim_row, effect_row, not_run, percent
from fastnet.reports.figures import curves, overlay
from fastnet.reports.scale import Scale
from fastnet.reports.task import Task
from fastnet.reports.training import Trained, Training
from fastnet.reports.verdicts import AGREES, DIFFERS, INDISTINGUISHABLE, Comparison, comparison, spread_verdict

VALIDATION, BEST = "validation_accuracy", "best_validation_accuracy"
CROP_AND_FLIP = {"pad": 4, "horizontal_flip": True}
SWEEP_EPOCHS = 20
QUICK = Scale("quick", images=10, epochs=2)
QUICK_RESNET = Scale("quick", images=20, epochs=7, filters=4)


def rated(training: Training, rate: float) -> Training:
    """The same at another constant rate."""
    return replace(training, schedule={"name": "constant", "lr": rate})


PLAIN = rated(Training("lenet5", epochs=50, batch_size=128, optimizer={"name": "sgd", "momentum": 0.9},
                       penalty={"L2": 1e-4}, normalization="channel"), 0.005)
VARIED = replace(PLAIN, augmentation=CROP_AND_FLIP)
SWISH = replace(VARIED, options={"activation": "swish"})
BN = rated(replace(VARIED, model="lenet5-bn"), 0.02)
BN_SWISH = replace(BN, options={"activation": "swish"})
SWEEP, SWEEP_PLAIN = (replace(training, epochs=SWEEP_EPOCHS) for training in (BN, VARIED))


def drawn(init: str) -> Training:
    """The baseline with other initial weights."""
    return replace(PLAIN, options={"init": init})


# E32 and E34: rates, and what the report says of them.
GRID = (0.1, 0.02, 0.005, 0.001)
AT_LARGE_RATE = {"BN": .68, "no BN": .35}
RATES = (1.0, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
BEST_RATES = (0.05, 0.02)

# E35: L2 strengths; only the largest has a number.
STRENGTHS = (1e-2, 1e-3, 1e-4, 1e-5, 0.0)
STRENGTH_CELLS = tuple(Cell(f"L2 {value:g}", replace(SWEEP, penalty={"L2": value} if value else {}),
                            .50 if value == 1e-2 else None, VALIDATION) for value in STRENGTHS)

# E36: L2 as the report has it, L1 as it seems to, and L1 at strengths that train.
L1_STRENGTHS = (3e-5, 1e-4, 3e-4, 1e-3)
SPARSE = {"L2 0.01": {"L2": 1e-2}, "L1 1, subgradient": {"L1": 1.0}} | {
    f"L1 {value:g}, {way}": {"L1": {"strength": value, "proximal": way == "proximal"}}
    for way in ("subgradient", "proximal") for value in L1_STRENGTHS}
SPARSE_CELLS = tuple(Cell(name, replace(SWEEP, penalty=penalty), metric=VALIDATION) for name, penalty in SPARSE.items())

# E37: `every` is in epochs; a list is once each.
RESNET20 = Training("resnet20", epochs=105, batch_size=128, optimizer={"name": "sgd", "momentum": 0.9},
                    schedule={"name": "step_decay", "lr": 0.2, "factor": 0.1, "every": [25], "unit": "epoch"},
                    penalty={"L2": 1e-5}, normalization="channel", augmentation=CROP_AND_FLIP)
EVERY = {**RESNET20.schedule, "every": 25}

# E38: networks and initialisers. The report's is the first; the last is too wide on purpose (A63).
STARTS = (("lenet5", "torch_default"), ("lenet5", "kaiming_normal"), ("lenet5", "glorot_normal"),
          ("lenet5-bn", "torch_default"), ("resnet20", "kaiming_normal"), ("lenet5", "normal:0.3"))


def start(results: Results, model: str, init: str) -> Task:
    return Task("fastnet.reports.initial:losses", data="cifar10", arguments={
        "model": model, "init": init, "seeds": list(results.seeds), "split": results.scale.apply(PLAIN).split})


def beside(better: list[Trained], worse: list[Trained]) -> Comparison:
    """Two trainings on the same validation images."""
    return comparison([run.correct("validation") for run in better], [run.correct("validation") for run in worse], None)


def overfitting_rows(results: Results) -> list[Row]:
    """The epoch of the least validation loss."""
    label, measured = "baseline: the validation loss is least", "epoch"
    runs = results.runs(PLAIN)
    if runs is None:
        return [not_run(label, measured, "22", results.failure(PLAIN))]
    epochs = [1 + int(np.argmin([line["validation_loss"] for line in run.history])) for run in runs]
    return [claim_row(label, measured, "22", ", ".join(map(str, epochs)), spread_verdict(epochs, 22), results,
                      f"of {len(runs[0].history)} epochs")]


def rate_rows(results: Results) -> list[Row]:
    """Which rate is best, and whether 1 fails."""
    label, measured, said = "best rate", "by validation %", "0.05 or 0.02"
    found = {rate: runs for rate in RATES if (runs := results.runs(rated(SWEEP, rate)))}
    if len(found) < len(RATES):
        missing = next(rate for rate in RATES if rate not in found)
        return [not_run(label, measured, said, results.failure(rated(SWEEP, missing)))]
    means = {rate: sum(run.value(VALIDATION) for run in runs) / len(runs) for rate, runs in found.items()}
    best, theirs = max(means, key=means.__getitem__), max(BEST_RATES, key=means.__getitem__)
    verdict, note = AGREES, ""
    if best not in BEST_RATES:
        against = beside(found[best], found[theirs])
        verdict = INDISTINGUISHABLE if against.verdict == INDISTINGUISHABLE else DIFFERS
        note = f"{percent(against.difference, '+')} ± {percent(against.error)} points to {theirs:g}"
    return [claim_row(label, measured, said, f"{best:g}", verdict, results, note),
            claim_row("rate 1 fails", "validation %", "fails", percent(means[1.0]),
                      AGREES if means[1.0] <= 0.15 else DIFFERS, results, "it fails if that is at most 15 %")]


def strength_rows(results: Results) -> list[Row]:
    """What 1e-5 and 1e-4 change beside no penalty. The report sees no effect of 1e-5: there is no sign to agree with"""
    rows = []
    for value, said in ((1e-5, "no effect"), (1e-4, "chosen")):
        label, measured = f"L2 {value:g} beside 0", "validation, points"
        runs = [results.runs(replace(SWEEP, penalty=penalty)) for penalty in ({"L2": value}, {})]
        if runs[0] is None or runs[1] is None:
            rows.append(not_run(label, measured, said, "a run that it compares is missing"))
            continue
        found = beside(runs[0], runs[1])
        row = effect_row(label, "validation", results, found)
        rows.append(row._replace(reported=said, verdict=row.verdict if value != 1e-5 or results.scale.notice() else
                                 AGREES if found.verdict == INDISTINGUISHABLE else DIFFERS))
    return rows


PRESET = ("A55", "A33", "A35", "A16")

EXPERIMENTS = (
    Experiment(
        "E29", "LeNet-5: validation about .64, overfits after epoch 22", quick=QUICK,
        cells=(Cell("baseline", PLAIN, .64, BEST, "the report does not say of which epoch: the best"),
               Cell("baseline, last epoch", PLAIN, metric=VALIDATION),
               Cell("Kaiming normal", drawn("kaiming_normal"), .64, BEST),
               Cell("Xavier normal", drawn("glorot_normal"), .64, BEST)),
        effects=(Effect("the report sees no difference", "Kaiming normal", "baseline"),
                 Effect("the report sees no difference", "Xavier normal", "baseline")),
        rows=overfitting_rows, decisions=(*PRESET, "A56"),
        figures=(curves("baseline"), overlay("initialisers", "baseline", "Kaiming normal", "Xavier normal"))),
    Experiment(
        "E30", "crop and flip: .70 in 50 epochs", quick=QUICK,
        cells=(Cell("crop and flip", VARIED, .70, VALIDATION), Cell("baseline", PLAIN, metric=VALIDATION)),
        effects=(Effect("augmentation helps", "crop and flip", "baseline", .06),),
        decisions=(*PRESET, "A56"), figures=(overlay("augmentation"), overlay("loss", metric="validation_loss"))),
    Experiment(
        "E31", "and batch norm: about .73 in 50 epochs", quick=QUICK,
        cells=(Cell("BN", BN, .73, VALIDATION), Cell("no BN", VARIED, .70, VALIDATION)),
        effects=(Effect("batch norm helps", "BN", "no BN"),), decisions=PRESET, figures=(overlay("bn"),)),
    Experiment(
        "E32", "with batch norm larger rates train: at .1 about .68, without about .35", quick=QUICK,
        cells=tuple(Cell(f"{name}, rate {rate:g}", rated(net, rate), AT_LARGE_RATE[name] if rate == 0.1 else None,
                         VALIDATION) for name, net in (("BN", SWEEP), ("no BN", SWEEP_PLAIN)) for rate in GRID),
        effects=tuple(Effect("batch norm helps", f"BN, rate {rate:g}", f"no BN, rate {rate:g}") for rate in GRID),
        decisions=PRESET, figures=(overlay("rates", colours=len(GRID)),)),
    Experiment(
        "E33", "Swish: .735, .70 with ReLU", quick=QUICK,
        cells=(Cell("BN, Swish", BN_SWISH, .735, VALIDATION), Cell("BN, ReLU", BN, .73, VALIDATION),
               Cell("Swish", SWISH, metric=VALIDATION), Cell("ReLU", VARIED, .70, VALIDATION)),
        effects=(Effect("Swish helps a net with BN", "BN, Swish", "BN, ReLU"),
                 Effect("Swish helps a net without", "Swish", "ReLU", .035),
                 Effect("what the report compares: BN helps too", "BN, Swish", "ReLU")),
        decisions=(*PRESET, "A57", "A14"), figures=(overlay("activations", colours=2),)),
    Experiment(
        "E34", "eight rates: .05 and .02 are best, 1 fails", quick=QUICK, rows=rate_rows,
        cells=tuple(Cell(f"rate {rate:g}", rated(SWEEP, rate), metric=VALIDATION) for rate in RATES),
        decisions=PRESET, figures=(overlay("rates"),)),
    Experiment(
        "E35", "five strengths of L2: 1e-2 about .50, 1e-5 no effect, 1e-4 chosen", quick=QUICK, cells=STRENGTH_CELLS,
        rows=strength_rows, effects=(Effect("1e-2 is too much", "L2 0.0001", "L2 0.01"),),
        decisions=(*PRESET, "A14"), figures=(overlay("strengths"),)),
    Experiment(
        "E36", "the weights under L1 and under L2", quick=QUICK, cells=SPARSE_CELLS,
        rows=lambda results: sparsity.rows(SPARSE_CELLS, results), figures=(sparsity.histograms,),
        decisions=(*PRESET, "A58"),
        text="Matched: of the L1 strengths, for either way, the one whose training loss is nearest to that of L2 .01. "
             "The histograms are of those and of L2."),
    Experiment(
        "E37", "ResNet at rate .2, a tenth of it after 25 epochs, L2 1e-5: .9066 in 105 epochs", quick=QUICK_RESNET,
        cells=(Cell("ResNet-20, once", RESNET20, .9066, VALIDATION),
               Cell("ResNet-20, every 25", replace(RESNET20, schedule=EVERY), .9066, VALIDATION),
               Cell("ResNet-18, once", replace(RESNET20, model="resnet18"), .9066, VALIDATION),
               Cell("ResNet-18, every 25", replace(RESNET20, model="resnet18", schedule=EVERY), .9066, VALIDATION)),
        decisions=("A59", "A33", "A35", "A16"), figures=(overlay("resnets"),)),
    Experiment(
        "E38", "the loss before training is about ln 10 = 2.30", quick=Scale(),
        more=lambda results: [start(results, *net) for net in STARTS],
        rows=lambda results: [initial.row(results, start(results, *net), net == STARTS[0], *net) for net in STARTS],
        decisions=("A63",)),
)
