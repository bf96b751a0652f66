"""The layers behind a perceptron's first product as in `fastnet.ops.perceptron`: the kernels of their ops in turn."""

from fastnet.arrays import array_module
from fastnet.kernels.cuda import batch_norm_relu, linear, relu
from fastnet.kernels.cuda._arrays import contiguous, supported
from fastnet.shapes import ABSENT, fits


def supports(x, vector, *, layers):
    return (supported(x, vector) and x.ndim == 2 and vector.ndim == 1 and x.size > 0 and len(layers) > 0
            and layers[0].features == x.shape[1] and fits(layers, vector.size))


def forward(x, vector, *, layers):
    caches, z, vector = [], x, contiguous(vector)
    for layer in layers:
        w, b, gamma, beta = layer.parameters(vector)
        y, active = relu.forward(z) if gamma is None else batch_norm_relu.forward(z, gamma, beta, eps=layer.eps)
        z, product = linear.forward(y, w, b)
        caches.append((active, product))
    return z, (caches, vector, layers)


def statistics(cache):
    caches, _, layers = cache
    return [batch_norm_relu.statistics(active) for (active, _), layer in zip(caches, layers, strict=True)
            if layer.gamma != ABSENT]


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None, None))


def backward_into(dy, cache, needs, into):
    """Writes to the layers' own places in the vector of gradients alone."""
    caches, vector, layers = cache
    needs_x, needs_vector = needs or (True, True)
    if not (needs_x or needs_vector):
        return None, None
    gradient = into[1] if needs_vector else None
    if needs_vector and gradient is None:
        gradient = array_module(vector).zeros_like(vector)
    of_parameters = needs_vector, needs_vector
    for i in reversed(range(len(layers))):
        active, product = caches[i]
        dw, db, dgamma, dbeta = layers[i].parameters(gradient) if needs_vector else (None,) * 4
        below = needs_x or i > 0
        dy, _, _ = linear.backward_into(dy, product, (below or dgamma is not None, *of_parameters), (None, dw, db))
        if layers[i].gamma == ABSENT:
            dy, = relu.backward(dy, active, (below,))
            continue
        dy, _, _ = batch_norm_relu.backward_into(dy, active, (below, *of_parameters), (None, dgamma, dbeta))
    return dy, gradient
