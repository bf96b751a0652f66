"""The layers of a perceptron behind its first product as one op: its parameters stand in one vector.

x is (N, D_1), the first layer's product, z_1 = x. Layer i, one entry of `layers`, takes z_i to

    y_i = max(0, batch_norm(z_i)), or max(0, z_i) where it has no gamma          y_i (N, D_i)
    z_i+1 = y_i w_i + b_i, without b_i where it has none                         z_i+1 (N, D_i+1)

and the result is the last z. Backward goes through `linear` and `batch_norm_relu` or `relu` in reverse.

Source: Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors", 1986.
"""

from fastnet.arrays import array_module, require_float
from fastnet.ops import batch_norm_relu, linear, relu
from fastnet.shapes import ABSENT


def forward(x, vector, *, layers):
    """Return the last z, (N, outputs of the last layer). Raises ValueError where sizes do not fit."""
    _check(x, vector, layers)
    caches, z = [], x
    for layer in layers:
        w, b, gamma, beta = layer.parameters(vector)
        y, active = relu.forward(z) if gamma is None else batch_norm_relu.forward(z, gamma, beta, eps=layer.eps)
        z, product = linear.forward(y, w, b)
        caches.append((active, product))
    return z, (caches, vector, layers)


def statistics(cache):
    """The batch's (mean, biased var) of every layer with a batch norm, in order, both (D_i,)."""
    caches, _, layers = cache
    return [batch_norm_relu.statistics(active) for (active, _), layer in zip(caches, layers, strict=True)
            if layer.gamma != ABSENT]


def backward(dy, cache, needs=None):
    caches, vector, layers = cache
    dvector = array_module(vector).zeros_like(vector)
    for (active, product), layer in zip(reversed(caches), reversed(layers), strict=True):
        w, b, gamma, beta = layer.parameters(dvector)
        dy, w[...], db = linear.backward(dy, product)
        if b is not None:
            b[...] = db
        if gamma is None:
            dy, = relu.backward(dy, active)
        else:
            dy, gamma[...], beta[...] = batch_norm_relu.backward(dy, active)
    needs_x, needs_vector = needs or (True, True)
    return dy if needs_x else None, dvector if needs_vector else None


def _check(x, vector, layers):
    require_float("perceptron", x=x, vector=vector)
    if x.ndim != 2 or vector.ndim != 1 or len(x) == 0:
        raise ValueError(f"perceptron: x must be (N, D) with at least one sample and the parameters a vector, but they "
                         f"are {x.shape} and {vector.shape}")
    if not layers:
        raise ValueError("perceptron: there are no layers")
    features = x.shape[1]
    for layer in layers:
        if layer.features != features:
            raise ValueError(f"perceptron: {layer} takes {layer.features} features, but gets {features}")
        ends = [start + size for start, size in zip(layer[2:6], (
            layer.features * layer.outputs, layer.outputs, layer.features, layer.features), strict=True)]
        if min(layer[2:6]) < ABSENT or layer.w == ABSENT or max(ends) > len(vector):
            raise ValueError(f"perceptron: {layer} does not lie in a vector of {len(vector)} numbers")
        if (layer.gamma == ABSENT) != (layer.beta == ABSENT) or not layer.eps > 0:
            raise ValueError(f"perceptron: {layer} needs both gamma and beta or neither, and a positive eps")
        features = layer.outputs
