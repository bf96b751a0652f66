"""One call of an op as arrays and plain JSON, to be made again elsewhere by `fastnet.check.lockstep.again`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.check.lockstep import Call
from fastnet.functions._update import Regularization
from fastnet.shapes import Hidden

TUPLES: dict[str, Any] = {kind.__name__: kind for kind in (Hidden, Regularization)}


def packed(call: Call, first: str, second: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays by name, metadata) of a call and the implementations that it is to be made by."""
    named = zip(backend.arguments(call.op), call.arrays, strict=False)
    arrays = {name: a for name, a in named if a is not None}
    if call.dy is not None:
        arrays["dy"] = np.asarray(call.dy)
    return arrays, {"op": call.op, "step": call.step, "layer": call.layer, "options": _plain(call.options),
                    "first": first, "second": second}


def unpacked(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> tuple[Call, str, str]:
    """What `packed` was given. Raises ValueError where these are not the arrays and metadata of a call."""
    try:
        op, options = metadata["op"], _restored(metadata["options"])
        names = backend.arguments(op)
        extra = [name for name in arrays if name not in (*names, "dy")]
        if extra or not isinstance(options, dict):
            raise ValueError(f"{op} does not take {', '.join(extra) or 'these options'}")
        call = Call(op, int(metadata["step"]), str(metadata["layer"]), tuple(arrays.get(name) for name in names),
                    options, arrays.get("dy"))
        return call, str(metadata["first"]), str(metadata["second"])
    except (KeyError, TypeError, ValueError, AttributeError, ImportError, OverflowError) as error:
        raise ValueError(f"this is not a call of an op that can be replayed ({type(error).__name__}: "
                         f"{error})") from None


def _plain(thing: Any) -> Any:
    if isinstance(thing, tuple):
        return {"tuple": type(thing).__name__, "of": [_plain(e) for e in thing]}
    if isinstance(thing, dict):
        return {"dict": {key: _plain(value) for key, value in thing.items()}}
    return thing.item() if isinstance(thing, np.generic) else thing


def _restored(thing: Any) -> Any:
    if not isinstance(thing, dict):
        return thing
    if "dict" in thing:
        return {key: _restored(value) for key, value in thing["dict"].items()}
    of = [_restored(e) for e in thing["of"]]
    return tuple(of) if thing["tuple"] == "tuple" else TUPLES[thing["tuple"]](*of)
