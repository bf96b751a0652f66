"""A finished run as it lies on disk: the model, how its images are standardised, what its classes are called."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.data import Standardization
from fastnet.nn.models import MODELS, build, input_shape
from fastnet.nn.sequential import Sequential
from fastnet.train import checkpoint, record
from fastnet.train.weights import model_state

SPARE = 1 << 20  # parameters more than a file has for which a model is made all the same, to say which do not fit
SOFTMAX, LOGISTIC = ("softmax_cross_entropy",), ("sigmoid_cross_entropy", "soft_margin")


@dataclass(frozen=True, eq=False)
class Trained:
    """What a run has made.

    classes      their names, in the order of the labels; numbers where the run did not keep them
    input_shape  (H, W, C) of the images it was trained on
    loss         the op it was trained with, which says what the logits mean
    """

    model: Sequential
    standardization: Standardization
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    loss: str

    @property
    def score(self) -> str:
        """What `scores` are called: 'probability', or 'output' after a loss that has no probabilities."""
        return "probability" if self.loss in SOFTMAX + LOGISTIC else "output"

    def scores(self, images: np.ndarray) -> np.ndarray:
        """(N, classes) float64 for uint8 images (N, H, W, C), which are standardised as in training.

        The probabilities that belong to the loss: the softmax of the logits, or each logit's own sigmoid (these do not
        add up to 1) after sigmoid_cross_entropy and soft_margin. The bare outputs after mean_squared_error and huber.
        Raises ValueError for images of another type or shape.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self.input_shape:
            raise ValueError(f"scores: images are {images.dtype}{images.shape}, but uint8 (N, "
                             f"{', '.join(map(str, self.input_shape))}) is needed")
        logits = self.model.predict(self.standardization.apply(images, self.model.dtype)).astype(np.float64)
        if self.loss in SOFTMAX:
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            return powers / powers.sum(axis=1, keepdims=True)
        if self.loss in LOGISTIC:
            return 0.5 * (1 + np.tanh(0.5 * logits))  # the sigmoid, without overflow
        return logits


def load_run(out: str | Path, *, device: str = "cpu") -> Trained:
    """Read the finished run in the directory `out`; its model then is on `device`, wherever it was trained.

    Raises FileNotFoundError (NotADirectoryError) where there is none, ValueError for a model file that is damaged, that
    does not fit the model it says it is of, or whose model a script put together layer by layer: that script can build
    it again and `fastnet.load_weights` fills it.
    """
    folder, path = Path(out), Path(out) / record.MODEL
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, but the directory of a run is needed")
    if not path.exists():
        unfinished = (folder / record.CHECKPOINT).exists()
        raise FileNotFoundError(f"there is no {record.MODEL} in {folder}: " + (
            "its run has not finished (fastnet train ... --resume continues it)" if unfinished else
            "it is not the directory of a run"))
    arrays, metadata = checkpoint.load(path)
    try:
        settings, loss = metadata["config"]["model"], metadata["config"]["loss"]["name"]
        name, options, named = settings["name"], settings.get("options"), list(metadata.get("classes", []))
        if not isinstance(name, str) or not isinstance(loss, str):
            raise TypeError("the names of its model and of its loss are no text")
        constants = {key: arrays[f"standardization/{key}"] for key in ("mean", "std")}
        standardization = Standardization.from_arrays(constants)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not the model of a run ({type(error).__name__}: {error})") from None
    if name not in MODELS or options is None:
        raise ValueError(f"{path}: its model ({name}) is none of the table's; the script that trained it can build it "
                         "again and fill it with fastnet.load_weights")
    try:
        # Zeros: drawing weights that are replaced at once would take longer than all the rest.
        model = build(name, dtype=settings["dtype"], device=device, **{**_tuples(options), "init": "zeros"})
        state = model_state(arrays)
        # Before the model takes memory: a few bytes of options may be those of a model larger than any machine.
        if (own := model.num_parameters()) > SPARE + (there := sum(a.size for a in state.values())):
            raise ValueError(f"it has {own:,} parameters, but the file {there:,}")
        model.load_state(state)
        shape = _image_shape(metadata, model, standardization)
        standardization.constants(shape)  # looks at the shape
        (outputs,) = model.output_shape(shape)
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{path} does not fit the model {name} of this fastnet: {error}") from None
    classes = tuple(str(named[k]) if k < len(named) else str(k) for k in range(outputs))
    return Trained(model, standardization, classes, shape, loss)


def _image_shape(metadata: dict[str, Any], model: Sequential, standardization: Standardization) -> tuple[int, int, int]:
    """(H, W, C) of the images; runs written before it was kept have it in other places."""
    shape = metadata.get("input_shape")
    if shape is None:
        shape = standardization.mean.shape if standardization.per == "pixel" else input_shape(model)
    if shape is None:
        raise ValueError("it was written by an older fastnet, which did not keep the shape of the images")
    height, width, channels = (int(size) for size in shape)
    return height, width, channels


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples, as the options of a model were."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value
