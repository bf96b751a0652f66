"""What every layer makes of one image: its feature maps, before and after batch norm and activation alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from fastnet.arrays import Array, single_threaded_blas, to_numpy
from fastnet.data import Standardization
from fastnet.nn.layer import INFERENCE, Layer
from fastnet.nn.sequential import Sequential, named_layers


@dataclass(frozen=True)
class FeatureMaps:
    """The outputs of layers for one image, in the order of the forward pass.

    maps      {layer's name: (H, W, C) or (D,)}, in the type of the model
    kinds     {layer's name: Conv2d, BatchNorm, ...}
    image     the image (H, W, C) as it was given, uint8 or floating
    ended_by  why not every layer asked for could run at this size, None where all did
    """

    maps: dict[str, np.ndarray]
    kinds: dict[str, str]
    image: np.ndarray
    ended_by: str | None


class _Complete(Exception):
    """Ends a pass when all that was asked for has been seen."""


def feature_maps(model: Sequential, image: np.ndarray, standardization: Standardization | None = None, *,
                 layers: str | Sequence[str] = "*") -> FeatureMaps:
    """Run the model in inference on one image and keep what the layers named by `layers` make of it.

    image   uint8 (H, W, C), which `standardization` makes ready (`fastnet.data.images` reads files), or floating and
            ready
    layers  patterns of names, as in a shell: "*" (all), "conv*", "layer1.0.*", ["features.0", "features.1"]

    The image may have any size that the network allows. Where layers cannot take what comes to them at this size (a
    linear layer behind flattened maps) the pass ends there; that is an error if a layer that `layers` spells out was
    not reached, and else `ended_by` says so. The model is not changed. Raises ValueError for a pattern without a match,
    TypeError or ValueError for an image that is none.
    """
    patterns = [layers] if isinstance(layers, str) else list(layers)
    names = {id(layer): name for name, layer in named_layers(model)}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names.values()):
            raise ValueError(f"feature_maps: {pattern!r} matches no layer; there are {', '.join(names.values())}")
    if not isinstance(image, np.ndarray) or image.ndim != 3:
        raise ValueError(f"feature_maps: one image (H, W, C) is needed, got {getattr(image, 'shape', type(image))}")
    if (image.dtype == np.uint8) != (standardization is not None):
        raise TypeError("feature_maps: a uint8 image needs the standardization of training, a floating one is taken as "
                        f"it is; the image is {image.dtype} and standardization is "
                        f"{'missing' if standardization is None else 'given'}")
    x = image[None] if standardization is None else standardization.apply(image[None], model.dtype)
    x = model.prepare(x)
    ended_by = None
    try:
        model.output_shape(image.shape)
    except ValueError as error:
        ended_by = str(error)
    wanted = {name for name in names.values() if any(fnmatchcase(name, pattern) for pattern in patterns)}
    maps: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}

    def tap(layer: Layer, x: Array, y: Array) -> None:
        name = names[id(layer)]
        if name in wanted:
            maps[name] = np.array(to_numpy(y)[0])
            kinds[name] = layer.kind
            if len(maps) == len(wanted):
                raise _Complete  # the rest of the network, at the size of a photograph, is work for nothing

    with single_threaded_blas():
        try:
            model(x, replace(INFERENCE, tap=tap))
        except _Complete:
            ended_by = None
        except ValueError:
            if ended_by is None:
                raise
    missing = [name for name in patterns if name in wanted and name not in maps]
    if missing or not maps:
        raise ValueError(f"feature_maps: {', '.join(missing or patterns)} cannot be reached with an image of "
                         f"{image.shape}: {ended_by}")
    return FeatureMaps(maps, kinds, image, ended_by)
