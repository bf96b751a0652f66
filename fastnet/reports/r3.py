"""R3: Adam, wider nets, PreciseBN and AdaptiveBN, May 2024.

Adam with a decaying rate on 7-layer nets beside the cyclical rate; batch norm's statistics in inference from training
or test images.
"""

from collections.abc import Iterator
from dataclasses import replace

from fastnet.reports import normalization, r2, verdicts
from fastnet.reports.experiment import Cell, Effect, Experiment, Results, Row, effect_row, figure_row, not_run
from fastnet.reports.figures import curves, overlay, scatter
from fastnet.reports.search import Search
from fastnet.reports.task import Task
from fastnet.reports.training import Training

ADAM = {"name": "adam", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "eps_mode": "inside"}
DECAY = {"name": "exponential", "lr": 2e-3, "decay": 0.995, "unit": "epoch"}
# 3 cycles of 2 x 500 updates with batches of 450: 3,000 updates, 30 epochs.
NARROW = Training("mlp7", epochs=30, batch_size=450, optimizer=ADAM, schedule=DECAY, penalty={"L2": 0.005})
WIDE = replace(NARROW, model="mlp7-wide")
CYCLICAL = replace(WIDE, optimizer={"name": "sgd"}, schedule={
    "name": "triangular", "lr_min": 1e-5, "lr_max": 0.1, "half_cycle_steps": 500})
PLAIN = ("A02", "A03", "A05", "A15", "A16", "A33", "A34", "A35")


def outside(training: Training) -> Training:
    """The same with eps outside the root, as the paper has it (A01)."""
    return replace(training, optimizer={**training.optimizer, "eps_mode": "outside"})


def normalised(training: Training) -> Training:
    """The same with batch norm (A08)."""
    return replace(training, options={**training.options, "batch_norm": True})


def per_step(training: Training) -> Training:
    """The same with the decay at every update (A04)."""
    return replace(training, schedule={**training.schedule, "unit": "step"})


def slower(training: Training) -> Training:
    """The same with the rate of the text (A03)."""
    return replace(training, schedule={**training.schedule, "lr": 1e-3})


def with_lambda(strength: float) -> Training:
    return replace(WIDE, penalty={"L2": strength})


SEARCH = Search(with_lambda, 1e-5, 1e-1, [("coarse", {"trials": 8})])

# E18 and E19: what the report lists, by the names of `fastnet.reports.normalization`.
STATISTICS = {"neither": .5275, "precise": .5220, "adaptive": .5281, "both": .5238}
FLIPPED = {"flipped, neither": .5260, "flipped, adaptive": .5285}


def statistics(results: Results) -> Iterator[Task]:
    """One task a seed: all statistics of one trained model (A09)."""
    for seed in results.seeds:
        yield Task("fastnet.reports.normalization:inference_statistics", after=(replace(r2.THREE_BN, seed=seed),))


def statistics_rows(results: Results, reported: dict[str, float], others: tuple[str, ...],
                    effects: tuple[tuple[str, str, str], ...]) -> list[Row]:
    """A line for each kind of statistics, and for each claim that one (label) beats another."""
    tasks = list(statistics(results))
    names = (*reported, *others)
    found = [results.answer(task) for task in tasks]
    if any(one is None for one in found):
        why = "; ".join(filter(None, (results.failure(task) for task in tasks)))
        return [not_run(name, "test %", "", why) for name in names]
    right = {name: [normalization.correct(folder, name) for task in tasks if (folder := results.folder(task))]
             for name in names}
    rows = [figure_row(name, "test %", verdicts.figure([one[name] for one in found], len(right[name][0]),
                                                       reported.get(name)), results) for name in names]
    for claim, better, worse in effects:
        said = reported[better] - reported[worse] if better in reported and worse in reported else None
        rows.append(effect_row(f"{better} > {worse}: {claim}", "test", results,
                               verdicts.comparison(right[better], right[worse], said)))
    return rows


def inference_rows(results: Results) -> list[Row]:
    return statistics_rows(results, STATISTICS, tuple(normalization.VARIANTS), (
        ("adaptive statistics help", "adaptive", "neither"), ("precise statistics do not", "neither", "precise"),
        ("nor together with adaptive ones", "neither", "both")))


def flipped_rows(results: Results) -> list[Row]:
    return statistics_rows(results, FLIPPED, ("flipped, adaptive to clean",), (
        ("adaptive statistics help on changed images", "flipped, adaptive", "flipped, neither"),))


EXPERIMENTS = (
    Experiment(
        "E15", "Adam on the narrow 7-layer net: slightly below the main assignment",
        cells=(Cell("Adam, eps inside", NARROW), Cell("Adam, eps outside", outside(NARROW)),
               Cell("Adam, rate 1e-3", slower(NARROW)), Cell("Adam, decay per update", per_step(NARROW)),
               Cell("Adam, BN", normalised(NARROW)), Cell("3 layers, BN, 3 cycles (R2, E13)", r2.BEST)),
        effects=(Effect("Adam is below", "3 layers, BN, 3 cycles (R2, E13)", "Adam, eps inside"),
                 Effect("with BN", "3 layers, BN, 3 cycles (R2, E13)", "Adam, BN"),
                 Effect("where eps is matters", "Adam, eps outside", "Adam, eps inside")),
        decisions=(*PLAIN, "A01", "A04", "A07", "A08", "A14"), figures=(curves("Adam, eps inside"), overlay("adam"))),
    Experiment(
        "E16", "Adam on the wide 7-layer net: test .5070",
        cells=(Cell("Adam, eps inside", WIDE, .5070), Cell("Adam, eps outside", outside(WIDE), .5070),
               Cell("Adam, decay per update", per_step(WIDE), .5070), Cell("Adam, BN", normalised(WIDE), .5070),
               Cell("Adam, BN, eps outside", outside(normalised(WIDE)), .5070)),
        effects=(Effect("where eps is matters", "Adam, eps outside", "Adam, eps inside"),
                 Effect("batch norm helps", "Adam, BN", "Adam, eps inside")),
        decisions=(*PLAIN, "A01", "A04", "A08", "A14"), figures=(curves("Adam, eps inside"), overlay("adam"))),
    Experiment(
        "E17", "the cyclical rate on the wide net without batch norm: test .5186, better than Adam",
        cells=(Cell("cyclical", CYCLICAL, .5186), Cell("cyclical, BN", normalised(CYCLICAL), .5186),
               Cell("Adam", WIDE, .5070), Cell("Adam, BN", normalised(WIDE), .5070)),
        effects=(Effect("without BN", "cyclical", "Adam"), Effect("both with BN", "cyclical, BN", "Adam, BN"),
                 Effect("cyclical without BN, Adam with it", "cyclical", "Adam, BN")),
        decisions=(*PLAIN, "A08", "A14", "A32"), figures=(curves("cyclical"), overlay("rates"))),
    Experiment(
        "T04", "search with Adam: the best lambda is about .005", cells=(
            Cell("lambda .005", WIDE, metric="validation_accuracy"),),
        more=SEARCH.trainings, rows=lambda results: [SEARCH.row(results, "best of our 8 draws", None)],
        decisions=(*PLAIN, "A14", "A36"), figures=(scatter(SEARCH, r"$\lambda$"),)),
    Experiment(
        "E18", "batch norm's statistics: neither .5275, precise .5220, adaptive .5281, both .5238",
        more=statistics, rows=inference_rows, decisions=("A09", "A10", "A11", "A12", "A14", "A25", "A27")),
    Experiment(
        "E19", "half of the test images mirrored: adaptive .5285, without .5260",
        more=statistics, rows=flipped_rows, decisions=("A09", "A11", "A12", "A13", "A14")),
)
