"""R1: two-layer network, April 2024.

3072-50-10 with ReLU and softmax: mini-batch SGD, L2 penalty, cyclical learning rate, a coarse and a fine search for
lambda, a numeric gradient check.
"""

from dataclasses import replace

from fastnet.reports import verdicts
from fastnet.reports.experiment import Cell, Experiment, Results, Row, cell_row, not_run
from fastnet.reports.figures import cost_graph, curves, scatter
from fastnet.reports.search import Search
from fastnet.reports.task import Task
from fastnet.reports.training import Training

# The course's range of rates; half a cycle in updates is each experiment's own.
CYCLE = {"name": "triangular", "lr_min": 1e-5, "lr_max": 0.1}
# A file of 10,000 images to train on and the next to validate with: 100 updates an epoch.
ONE_FILE = Training("mlp2", split="10000/10000", order="file", batch_size=100, penalty={"L2": 0.01})
SHORT = replace(ONE_FILE, epochs=10, schedule={**CYCLE, "half_cycle_steps": 500})
LONG = replace(ONE_FILE, epochs=48, schedule={**CYCLE, "half_cycle_steps": 800})
SEARCHED = Training("mlp2", split="45000/5000", batch_size=450, epochs=12,
                    schedule={**CYCLE, "half_cycle_steps": 200})
FINAL = Training("mlp2", split="49000/1000", batch_size=100, epochs=24, schedule={**CYCLE, "half_cycle_steps": 1960},
                 penalty={"L2": 0.0027})
COMMON = ("A15", "A16", "A32", "A33", "A34", "A37")

# What the report lists of its searches: lambda and validation accuracy of the three best.
COARSE = ((0.0014, 0.4874), (0.0018, 0.4856), (0.00003, 0.4836))
FINE = ((0.0027, 0.4876), (0.0016, 0.4870), (0.0025, 0.4870))


def with_lambda(strength: float) -> Training:
    return replace(SEARCHED, penalty={"L2": strength})


COARSE_SEARCH = Search(with_lambda, 1e-5, 1e-1, [("coarse", {"trials": 8})])
FINE_SEARCH = replace(COARSE_SEARCH, plan=[("coarse", {"trials": 8}), ("window", {"trials": 8, "margin": 0.25})])

# Mean absolute errors that the report gives, and what numeric differences may differ by: another h, other weights.
GRADIENT_ERRORS = {"linear1.w": 1.51e-11, "linear2.w": 1.52e-11, "linear1.b": 3.3e-10, "linear2.b": 7.7e-11}
SAME_ORDER = 10


def gradient_check(results: Results) -> Task:
    """Every entry at full scale, 2,000 of each array else."""
    return Task("fastnet.reports.gradients:mean_absolute", data="cifar10",
                arguments={"entries": 2000 if results.scale.notice() else None, "l2": 0.01})


def gradient_rows(results: Results) -> list[Row]:
    found = results.answer(gradient_check(results))
    rows = []
    for name, reported in GRADIENT_ERRORS.items():
        label, measured = f"gradient of {name}", "mean absolute error"
        if found is None:
            rows.append(not_run(label, measured, f"{reported:.2e}", results.failure(gradient_check(results))))
            continue
        here = found[name]
        verdict = verdicts.AGREES if here["mean"] <= SAME_ORDER * reported else verdicts.DIFFERS
        rows.append(Row(label, measured, f"{reported:.2e}", f"{here['mean']:.2e}", "-", "-", verdict,
                        f"{here['entries']:,} entries; largest relative error {here['relative']:.1e}"))
    return rows


def best_lambda(results: Results) -> list[Training]:
    """The search, and the final model with the lambda that it finds."""
    best = FINE_SEARCH.best(results)
    final = [] if best is None else [replace(FINAL, penalty={"L2": float(best.parameters["value"])})]
    return [*FINE_SEARCH.trainings(results), *final]


def final_row(results: Results) -> list[Row]:
    """The final model with our lambda, beside the published one with theirs."""
    trainings, label = best_lambda(results), "lambda of our own search"
    if FINE_SEARCH.best(results) is None:
        return [not_run(label, "test %", "52.78", "the search has not finished")]
    strength = trainings[-1].penalty["L2"]
    return [cell_row(Cell(label, trainings[-1], 0.5278, note=f"lambda {strength:.3g}"), results)]


EXPERIMENTS = (
    Experiment(
        "G01", "the gradients are right: mean absolute errors of 1e-11 to 3e-10",
        more=lambda results: [gradient_check(results)], rows=gradient_rows,
        decisions=("A18", "A37", "A39", "A64"), figures=(cost_graph,),
        text="Centered differences with h = 1e-5 of the cost with lambda .01, on the first 10 training images, in "
             f"float64. It agrees where our mean error is at most {SAME_ORDER} times the report's. `fastnet check` "
             "proves the same gradients to 1e-12 by the complex step."),
    Experiment(
        "E01", "lambda .01, 1 cycle: test .4578", cells=(Cell("1 cycle, n_s 500", SHORT, 0.45780),),
        decisions=COMMON, figures=(curves(),)),
    Experiment(
        "E02", "lambda .01, 3 cycles: test .4674", cells=(Cell("3 cycles, n_s 800", LONG, 0.46740),),
        decisions=COMMON, figures=(curves(),)),
    Experiment(
        "E03", "coarse search: best on validation .4874 at lambda .0014",
        cells=tuple(Cell(f"lambda {value:g}", with_lambda(value), accuracy, "validation_accuracy")
                    for value, accuracy in COARSE),
        more=COARSE_SEARCH.trainings,
        rows=lambda results: [COARSE_SEARCH.row(results, "best of our 8 draws", COARSE[0][1])],
        decisions=(*COMMON, "A14", "A35", "A36"), figures=(scatter(COARSE_SEARCH, r"$\lambda$", COARSE),)),
    Experiment(
        "E04", "fine search: best on validation .4876 at lambda .0027",
        cells=tuple(Cell(f"lambda {value:g}", with_lambda(value), accuracy, "validation_accuracy")
                    for value, accuracy in FINE),
        more=FINE_SEARCH.trainings,
        rows=lambda results: [FINE_SEARCH.row(results, "best of our 8 + 8 draws", FINE[0][1])],
        decisions=(*COMMON, "A14", "A35", "A36"), figures=(scatter(FINE_SEARCH, r"$\lambda$", FINE),)),
    Experiment(
        "E05", "final model, 49,000 images, lambda .0027, 3 cycles: test .5278",
        cells=(Cell("lambda .0027", FINAL, 0.52780),), more=best_lambda, rows=final_row,
        decisions=(*COMMON, "A35"), figures=(curves(),)),
)
