"""R5: ResNet and VGG study, June 2024.

ResNet-18 and its kin by loss, weight decay, activation, optimizer, depth, width and dropout; how batch norm helps the
optimisation of VGG-A. As the report did, all train on 50,000 images, and the 10,000 test images are looked at after
every epoch; the figures say which epoch they are of. Rate .01 where the report names none: it is that of the long runs
and of the optimizers; constant in the 25-epoch runs, in which the training loss never stands still for 5 epochs.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace

from fastnet.reports import optimization, pictures
from fastnet.reports.experiment import Cell, Effect, Experiment, Results, Row
from fastnet.reports.figures import overlay
from fastnet.reports.networks import parameter_row, seconds_row
from fastnet.reports.scale import Scale
from fastnet.reports.task import Task
from fastnet.reports.training import Training

QUICK = Scale("quick", images=20, epochs=5, test=10, filters=8)
QUICK_LONG = replace(QUICK, epochs=20)
QUICK_VGG = replace(QUICK, images=16, epochs=2, filters=4)  # so that VGG-A without batch norm begins to learn

MOMENTUM = {"name": "sgd", "momentum": 0.9}
SHORT = Training("resnet18", split="50000/0", watch="test", epochs=25, batch_size=128, optimizer=MOMENTUM,
                 schedule={"name": "constant", "lr": 0.01}, penalty={"WeightDecay": 5e-4}, normalization="channel",
                 augmentation={"pad": 4, "horizontal_flip": True})
# E24: it must not be the test loss that decides about the rate (A44).
PLATEAU = {"name": "reduce_on_plateau", "lr": 0.01, "metric": "train_loss", "factor": 0.1, "patience": 5,
           "threshold": 1e-4, "min_lr": 1e-6}
LONG = replace(SHORT, epochs=200, schedule=PLATEAU)
HELD_OUT = replace(LONG, split="45000/5000", watch="validation", schedule={**PLATEAU, "metric": "validation_loss"})

ALWAYS = ("A33", "A42", "A43", "A44", "A45", "A16")
ABOUT = ("The published figures are accuracies on training images and, of the best epoch by them, on test images. "
         "Differences are tested on the last epochs' models.")


def shown(label: str, training: Training, train: float | None, best: float | None) -> tuple[Cell, ...]:
    """Three lines: the best epoch by the test images, as published; the last epoch; the training images."""
    return (Cell(label, training, best, "best_test_accuracy", "the epoch is chosen by the test images"),
            Cell(f"{label}, last epoch", training), Cell(f"{label}, training", training, train, "train_accuracy"))


# E20-E23: label, training and test accuracy, and what differs.
LOSSES = (("CE", .9499, .8911, "softmax_cross_entropy"), ("BCE", .9294, .8799, "sigmoid_cross_entropy"),
          ("MSE", .8765, .8517, "mean_squared_error"), ("Huber", .8355, .8039, "huber"),
          ("SoftMargin", .9293, .8734, "soft_margin"))
DECAYS = ((1e-2, .8379, .7999), (1e-3, .9400, .8958), (5e-3, .8839, .8535), (1e-4, .9536, .8983), (5e-4, .9505, .8984))
ACTIVATIONS = (("ReLU", .9469, .8945, "relu"), ("Leaky ReLU", .9482, .8932, "leaky_relu"),
               ("ELU", .8925, .8750, "elu"), ("GELU", .9536, .9019, "gelu"))
OPTIMIZERS = (("SGD", .9491, .8920, MOMENTUM), ("Adagrad", .9457, .8944, {"name": "adagrad"}),
              ("Adadelta", .8723, .8201, {"name": "adadelta"}), ("Adam", .7224, .6963, {"name": "adam"}),
              ("Adamax", .8321, .8085, {"name": "adamax"}))
DECOUPLED = tuple((name, replace(SHORT, optimizer=optimizer, penalty={"DecoupledDecay": 5e-4}))
                  for name, _, _, optimizer in OPTIMIZERS)

# E24: label, model, best test accuracy, millions of parameters, seconds an epoch on a V100.
NETWORKS = (("ResNet-18", "resnet18", .9493, 11.17, 23.61), ("ResNet-18, dropout", "resnet18-dropout", .9390, 11.17,
            23.63), ("ResNet-18 x2", "resnet18-x2", .9512, 44.60, 40.69), ("ResNet-34", "resnet34", .9550, 21.28,
            33.66))


def deep(model: str) -> Training:
    return replace(LONG, model=model)


def network_rows(results: Results) -> list[Row]:
    """Parameters and seconds an epoch beside the published ones."""
    return [row for label, model, _, millions, seconds in NETWORKS
            for row in (parameter_row(label, model, millions), seconds_row(label, deep(model), seconds, results))]


# E25-E28
VGG = Training("vgg-a", split="50000/0", watch="test", epochs=30, batch_size=128, optimizer={"name": "sgd"},
               schedule={"name": "constant", "lr": 0.1}, normalization="channel")
VGG_BN = replace(VGG, model="vgg-a-bn")
RATES = (0.15, 0.1, 0.075, 0.05)
NETS = {"no BN": VGG, "BN": VGG_BN}


def with_momentum(training: Training) -> Training:
    return replace(training, optimizer=MOMENTUM)


def recording(results: Results, net: str, rate: float, seed: int) -> Task:
    """The run of VGG-A with or without batch norm at a rate, 20 epochs, and what its updates do."""
    training = results.scale.apply(replace(NETS[net], epochs=20, schedule={"name": "constant", "lr": rate}, seed=seed))
    return Task("fastnet.reports.optimization:recorded", data="cifar10", arguments={
        "training": asdict(training), "rates": list(RATES)})


def recordings(results: Results) -> Iterator[Task]:
    """All of them, for every seed."""
    for seed in results.seeds:
        for net in NETS:
            for rate in RATES:
                yield recording(results, net, rate, seed)


def found(results: Results) -> optimization.Found | None:
    """What they recorded, by seed, network and rate; None where any is missing."""
    runs = optimization.Found()
    for seed in results.seeds:
        for net in NETS:
            for rate in RATES:
                folder = results.folder(recording(results, net, rate, seed))
                if folder is None:
                    return None
                runs.setdefault(seed, {}).setdefault(net, {})[rate] = optimization.read(folder)
    return runs


PLATEAU_FIRST = ("Without batch norm VGG-A stays at a loss of ln 10 for its first hundreds of updates; there its "
                 "gradient is next to nothing, and so are all of these figures. The second half of the steps is a "
                 "fairer look.")


def studied(claim: str, measures: tuple[optimization.Measure, ...]) -> dict:
    """What E26, E27 and E28 share: the runs, the rows of these figures, their picture."""
    def rows(results: Results) -> list[Row]:
        return optimization.rows(found(results), claim, measures, results,
                                 next(filter(None, map(results.failure, recordings(results))), ""))

    return {"text": PLATEAU_FIRST, "more": recordings, "rows": rows, "quick": QUICK_VGG,
            "figures": (lambda e, results, folder: optimization.draw(e, found(results), measures, results, folder),)}


BAND = (optimization.Measure("losses", "width of the band of losses (nats)", "Loss (nats)", "width"),
        optimization.Measure("losses", "the same, second half of the steps", "", "width", 0.5))
PREDICTIVENESS = (
    optimization.Measure("same_batch", "change of the gradient, same batch", "Change, same batch", "mean", log=True),
    optimization.Measure("same_batch", "the same, second half of the steps", "", "mean", 0.5),
    optimization.Measure("relative", "the same as a part of the gradient, second half", "Change / gradient", "mean",
                         0.5, log=True),
    optimization.Measure("consecutive", "between neighbouring batches", "Change, next batch", "mean", log=True),
    optimization.Measure("along_predictiveness", "largest along the gradient", "", "mean"))
SMOOTHNESS = (
    optimization.Measure("smoothness", "beta, largest over the rates", r"$\beta$", "largest", log=True),
    optimization.Measure("smoothness", "the same, second half of the steps", "", "largest", 0.5),
    optimization.Measure("published_smoothness", "beta as published", r"$\beta$ as published", "largest", log=True))

EXPERIMENTS = (
    Experiment(
        "E20", "losses: cross-entropy is best, Huber worst", quick=QUICK, text=ABOUT,
        cells=tuple(cell for label, train, best, loss in LOSSES
                    for cell in shown(label, replace(SHORT, loss=loss), train, best)) + shown(
            "CE, random resized crop", replace(SHORT, augmentation={"resized_crop": [0.08, 1.0],
                                                                    "horizontal_flip": True}), None, None),
        effects=tuple(Effect("cross-entropy is better", "CE", label) for label, *_ in LOSSES[1:]),
        decisions=(*ALWAYS, "A47", "A54"),
        figures=(overlay("losses", *(label for label, *_ in LOSSES)), pictures.examples, pictures.maps)),
    Experiment(
        "E21", "weight decays: 1e-4, 5e-4 and 1e-3 are good, 5e-3 and 1e-2 too much", quick=QUICK, text=ABOUT,
        cells=tuple(cell for decay, train, best in DECAYS
                    for cell in shown(f"{decay:g}", replace(SHORT, penalty={"WeightDecay": decay}), train, best)),
        effects=(Effect("5e-3 is too much", "0.0005", "0.005"), Effect("1e-2 is too much", "0.0005", "0.01"),
                 Effect("which is best", "0.0005", "0.0001"), Effect("which is best", "0.0005", "0.001")),
        decisions=(*ALWAYS, "A46"), figures=(overlay("decays", *(f"{decay:g}" for decay, *_ in DECAYS)),)),
    Experiment(
        "E22", "activations: GELU is best, ELU worst", quick=QUICK, text=ABOUT,
        cells=tuple(cell for label, train, best, name in ACTIVATIONS for cell in shown(
            label, replace(SHORT, options={"activation": name}) if name != "relu" else SHORT, train, best)),
        effects=(Effect("GELU is better", "GELU", "ReLU"), Effect("ELU is worse", "ReLU", "ELU"),
                 Effect("leaky ReLU is no better", "ReLU", "Leaky ReLU")),
        decisions=(*ALWAYS, "A48"), figures=(overlay("activations", *(label for label, *_ in ACTIVATIONS)),)),
    Experiment(
        "E23", "optimizers at rate .01: SGD and Adagrad are best, Adam is unstable", quick=QUICK, text=ABOUT,
        cells=tuple(cell for label, train, best, optimizer in OPTIMIZERS
                    for cell in shown(label, replace(SHORT, optimizer=optimizer), train, best)) + tuple(
            Cell(f"{label}, decoupled decay", training, None, "best_test_accuracy") for label, training in DECOUPLED),
        effects=(*(Effect("SGD is better", "SGD", label) for label, *_ in OPTIMIZERS[1:]),
                 *(Effect("decoupled decay helps", f"{label}, decoupled decay", label)
                   for label in ("Adam", "Adamax"))),
        decisions=(*ALWAYS, "A49"),
        figures=(overlay("optimizers", *(label for label, *_ in OPTIMIZERS), "Adam, decoupled decay"),)),
    Experiment(
        "E24", "200 epochs: ResNet-18 .9493, with dropout .9390, x2 .9512, ResNet-34 .9550", quick=QUICK_LONG,
        cells=tuple(cell for label, model, best, *_ in NETWORKS for cell in shown(label, deep(model), None, best)) + (
            Cell("ResNet-18 on 45,000, best by validation", HELD_OUT, None, "best_validation_accuracy",
                 "the test images have no part in it"),
            Cell("ResNet-18 on 45,000, last epoch", HELD_OUT)),
        rows=network_rows, text=ABOUT,
        effects=(Effect("dropout does not help", "ResNet-18", "ResNet-18, dropout"),
                 Effect("width helps", "ResNet-18 x2", "ResNet-18"), Effect("depth helps", "ResNet-34", "ResNet-18")),
        decisions=(*ALWAYS, "A40", "A41", "A67"),
        figures=(pictures.resnet_plan, overlay("networks", *(label for label, *_ in NETWORKS)))),
    Experiment(
        "E25", "VGG-A trains faster and better with batch norm", quick=QUICK_VGG,
        cells=tuple(Cell(f"{net}{name}", change(training)) for net, training in NETS.items()
                    for name, change in (("", lambda training: training), (", momentum", with_momentum))),
        effects=(Effect("batch norm helps", "BN", "no BN"),
                 Effect("batch norm helps", "BN, momentum", "no BN, momentum")),
        decisions=("A33", "A43", "A44", "A50"),
        figures=(overlay("accuracy", colours=2), overlay("loss", metric="train_loss", colours=2))),
    Experiment("E26", "the loss over the rates: a narrower band with batch norm", **studied("narrower", BAND),
               decisions=("A50", "A51")),
    Experiment("E27", "the gradient of the last linear layer changes less with batch norm",
               **studied("steadier", PREDICTIVENESS), decisions=("A50", "A51", "A52")),
    Experiment("E28", "beta-smoothness: smaller with batch norm", **studied("smaller", SMOOTHNESS),
               decisions=("A50", "A51", "A53")),
)
