"""A hidden layer of a perceptron as in `fastnet.ops.linear_batch_norm_relu`: the products, then the normalisation.

A few thousand outputs are normalised by plain loops on one thread, with sums in float64: the way into the blocks of
`_batch_norm` would take longer than that. More outputs go there.
"""

from fastnet.arrays import contiguous, empty, rehearsing
from fastnet.kernels.cpu import _batch_norm, _linear
from fastnet.kernels.cpu._jit import is_float
from fastnet.kernels.cpu._small_norm import denormalise, normalise

FEW = 1 << 14  # outputs, one thread's work of some 10 microseconds


def supports(x, w, gamma, beta, *, eps=1e-5):
    return (_linear.supports(x, w) and is_float(x, gamma, beta) and gamma.shape == beta.shape == w.shape[1:]
            and eps > 0)


def forward(x, w, gamma, beta, *, eps=1e-5):
    z, of_linear = _linear.forward(x, w, None, relu=False)
    if z.size > FEW:
        y, of_norm = _batch_norm.forward(_batch_norm.RELU, z, gamma, beta, None, eps)
        return y, (of_linear, None, None, of_norm)
    y, found = empty(z.shape, z.dtype), empty((3, z.shape[1]), z.dtype)
    gamma = contiguous(gamma)
    if not rehearsing():
        normalise(z, gamma, contiguous(beta), eps, found, y)
    return y, (of_linear, gamma, y, (z, found))


def statistics(cache):
    _, _, y, of_norm = cache
    return _batch_norm.statistics(of_norm) if y is None else of_norm[1][:2]


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None,) * 4)


def backward_into(dy, cache, needs, into):
    of_linear, gamma, y, of_norm = cache
    needs = needs or (True,) * 4
    if y is None:
        dz, *of_parameters, _ = _batch_norm.backward(_batch_norm.RELU, dy, of_norm, True)
    else:
        dz, of_parameters = empty(dy.shape, dy.dtype), empty((2, dy.shape[1]), dy.dtype)
        if not rehearsing():
            denormalise(contiguous(dy), y, *of_norm, gamma, dz, of_parameters)
    dgamma, dbeta = (d if needed else None for d, needed in zip(of_parameters, needs[2:], strict=True))
    dx, dw, _ = _linear.backward(dz, of_linear, (*needs[:2], False), (*into[:2], None))
    return dx, dw, dgamma, dbeta
