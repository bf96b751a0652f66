"""The statistics that batch normalisation uses in inference, measured over many images with the weights fixed.

    layerwise   of what a layer is fed in inference, once all layers before it have their measured statistics: mean and
                population variance of all values
    one_pass    the same of what it is fed in training, where the layers before it normalise batch by batch
    wu_johnson  of that, the mean of the batches' means and of their unbiased variances, each batch counting the same
    moving      of that, the layer's own running averages, which go on from the model's

`layerwise` is exact: with the statistics put in, every layer sees inputs of just that mean and variance over these
images. It does not depend on the batches but for rounding, and takes a pass for each layer, which ends at that layer.
The others take one pass and depend on the batches. Dropout is off in all of them.

Sources: Wu & Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3 ("PreciseBN"; `wu_johnson` is the simple
average of Ioffe & Szegedy's section 3.1, `one_pass` the one of their appendix, for small batches). From the images to
be classified instead: Li et al., "Revisiting batch normalization for practical domain adaptation" (AdaBN), 2016.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.arrays import Array, assign, single_threaded_blas, to_numpy
from fastnet.data import Split, Standardization
from fastnet.lab.inputs import passes
from fastnet.lab.moments import Moments
from fastnet.nn.layer import Context, Layer
from fastnet.nn.layers import BatchNorm, Dropout
from fastnet.nn.sequential import Sequential, named_layers

METHODS = ("layerwise", "one_pass", "wu_johnson", "moving")


@dataclass(frozen=True)
class BatchNormStatistics:
    """{name: (C,) float64}, named as in `Sequential.statistics`, and how they were measured."""

    arrays: dict[str, np.ndarray]
    method: str
    images: int
    batch_size: int
    transductive: bool  # from the very images that are to be classified

    def settings(self) -> dict[str, Any]:
        """All but the arrays, as JSON, for a run's record."""
        return {"method": self.method, "images": self.images, "batch_size": self.batch_size,
                "transductive": self.transductive}


def bn_statistics(model: Sequential, data: Split | Array, standardization: Standardization | None = None, *,
                  method: str = "layerwise", batch_size: int = 100, seed: int = 0) -> BatchNormStatistics:
    """Measure the statistics of every BatchNorm layer over all of `data`; the model is not changed.

    `data` is a split, of training images, or a standardised array; `seed` shuffles a split, which matters to the
    methods that go by batches. Raises ValueError for an unknown method, a model without BatchNorm, data that do not fit
    and, unless layerwise, a batch with one value a channel; TypeError for data of a wrong type.
    """
    return _measure(model, data, standardization, method, batch_size, seed, transductive=False)


def adaptive_bn_statistics(model: Sequential, data: Split | Array, standardization: Standardization | None = None, *,
                           transductive: bool = False, method: str = "layerwise", batch_size: int = 100,
                           seed: int = 0) -> BatchNormStatistics:
    """The same from the images that are to be classified, without their labels.

    A prediction then depends on the other images that it is asked for with, so it must be wanted: raises ValueError
    unless `transductive` is True, and as `bn_statistics` does. What is returned says that it is transductive.
    """
    if transductive is not True:
        raise ValueError("adaptive_bn_statistics: these statistics see the images to be classified, so the prediction "
                         "for one depends on the others; say transductive=True if that is meant")
    return _measure(model, data, standardization, method, batch_size, seed, transductive=True)


def set_statistics(model: Sequential, statistics: BatchNormStatistics | Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Give the model these running statistics; return copies of those it had, which `set_statistics` takes back.

    Raises ValueError where names or shapes differ from the model's, or a number is not finite; nothing is changed then.
    """
    given = statistics.arrays if isinstance(statistics, BatchNormStatistics) else statistics
    own = model.statistics()
    if sorted(given) != sorted(own):
        raise ValueError(f"set_statistics: the statistics are {', '.join(sorted(given)) or 'none'}, but those of the "
                         f"model are {', '.join(sorted(own)) or 'none'}")
    for name, value in own.items():
        if given[name].shape != value.shape or not np.isfinite(to_numpy(given[name])).all():
            raise ValueError(f"set_statistics: {name} is {given[name].shape}, but {value.shape} finite numbers are "
                             "needed")
    before = {name: np.array(to_numpy(value)) for name, value in own.items()}
    for name, value in own.items():
        assign(value, given[name])
    return before


def _measure(model: Sequential, data: Split | Array, standardization: Standardization | None, method: str,
             batch_size: int, seed: int, *, transductive: bool) -> BatchNormStatistics:
    if method not in METHODS:
        raise ValueError(f"bn_statistics: method {method!r} is not known; choose from {', '.join(METHODS)}")
    begin, images = passes(model, data, standardization, batch_size, seed)
    twin = model.copy()
    norms = {name: layer for name, layer in named_layers(twin) if isinstance(layer, BatchNorm)}
    if not norms:
        raise ValueError("bn_statistics: the model has no BatchNorm layer")
    for layer in twin.walk():
        if isinstance(layer, Dropout):
            layer.p = 0.0
    with single_threaded_blas():
        if method == "layerwise":
            found = _layerwise(twin, norms, begin)
        elif method == "moving":
            for x in begin():
                twin(x, Context(training=True))
            found = {name: to_numpy(value).astype(np.float64) for name, value in twin.statistics().items()}
        else:
            found = _by_batches(twin, norms, begin, total=method == "one_pass")
    return BatchNormStatistics(found, method, images, min(batch_size, images), transductive)


class _Seen(Exception):
    """Ends a pass at the layer whose input has been seen."""


def _layerwise(model: Sequential, norms: dict[str, BatchNorm],
               begin: Callable[[], Iterator[Array]]) -> dict[str, np.ndarray]:
    found = {}
    for name, norm in norms.items():  # in the order of the forward pass
        moments = _input_moments(model, norm, begin)
        for key, value in (("running_mean", moments.mean), ("running_var", moments.variance)):
            found[f"{name}.{key}"] = value
            assign(norm.statistics_here[key], value)
    return found


def _input_moments(model: Sequential, norm: BatchNorm, begin: Callable[[], Iterator[Array]]) -> Moments:
    """Of what `norm` is fed in inference, over a whole pass."""
    moments = Moments()

    def tap(layer: Layer, x: Array, y: Array) -> None:
        if layer is norm:
            moments.add(x)
            raise _Seen

    for x in begin():
        try:
            model(x, Context(tap=tap))
        except _Seen:
            continue
    return moments


def _by_batches(model: Sequential, norms: dict[str, BatchNorm], begin: Callable[[], Iterator[Array]], *,
                total: bool) -> dict[str, np.ndarray]:
    """Over batches that normalise by themselves: by the law of total variance, or the mean of the batches' figures."""
    whole: dict[int, list[Moments]] = {id(norm): [] for norm in norms.values()}

    def tap(layer: Layer, x: Array, y: Array) -> None:
        if id(layer) not in whole:
            return
        parts = whole[id(layer)]
        if not total or not parts:
            parts.append(Moments())
        before = parts[-1].count
        parts[-1].add(x)
        if parts[-1].count - before == 1:
            raise ValueError("bn_statistics: a batch has one value a channel, which has no variance; choose another "
                             "batch size")

    for x in begin():
        model(x, Context(training=True, update_statistics=False, tap=tap))
    found = {}
    for name, norm in norms.items():
        parts = whole[id(norm)]
        unbiased = [m.variance if total else m.variance * (m.count / (m.count - 1)) for m in parts]
        found[f"{name}.running_mean"] = np.mean([m.mean for m in parts], axis=0)
        found[f"{name}.running_var"] = np.mean(unbiased, axis=0)
    return found
