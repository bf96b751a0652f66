"""R2: k-layer network with batch normalisation, April 2021.

3- and 9-layer nets with and without batch norm, a coarse-to-fine search for lambda, sensitivity to the initialisation.
Settings of all: batch 100, rate from 1e-5 to 1e-1 and back in 2 x 2,250 updates, lambda .005, 45,000/5,000 images.
"""

from dataclasses import replace

from fastnet.reports.experiment import Cell, Experiment
from fastnet.reports.training import Training

CYCLE = {"name": "triangular", "lr_min": 1e-5, "lr_max": 0.1, "half_cycle_steps": 2250}
THREE = Training("mlp3", epochs=20, batch_size=100, schedule=CYCLE, penalty={"L2": 0.005})
THREE_BN, NINE, NINE_BN = (replace(THREE, model=model) for model in ("mlp3-bn", "mlp9", "mlp9-bn"))
COMMON = ("A15", "A16", "A24", "A25", "A29", "A31", "A32", "A33", "A34", "A35")


def after(training: Training) -> Training:
    """The same with batch norm behind the ReLU."""
    return replace(training, options={**training.options, "norm_after": True})


EXPERIMENTS = (
    Experiment(
        "E06", "3 layers without batch norm, 2 cycles: .5360", decisions=COMMON,
        cells=(Cell("3 layers", THREE, 0.5360),)),
)
