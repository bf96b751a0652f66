"""A perceptron and its loss, forward and backward in one go: what a training step does before its update.

x (N, D_0) goes through the first product, the other layers and the mean softmax cross-entropy, and back, by the
equations of `fastnet.ops.linear`, `fastnet.ops.perceptron` and `fastnet.ops.softmax_cross_entropy`; dx is not computed.
"""

from fastnet.arrays import array_module
from fastnet.ops import linear, perceptron, softmax_cross_entropy


def run(x, labels, vector, gradient, *, layers, label_smoothing=0.0):
    """Return the loss, the logits (N, classes), and the batch's (mean, biased var) of every layer with a batch norm.

    `layers` are as for `fastnet.ops.perceptron`, but for the first, which is the product of x alone. The gradients are
    written to `gradient`, a vector like that of the parameters, at the layers' own places; the rest of it stays. Raises
    what the three ops raise.
    """
    first, *rest = layers
    z, product = linear.forward(x, *first.parameters(vector)[:2])
    logits, hidden = perceptron.forward(z, vector, layers=tuple(rest))
    loss, softmax = softmax_cross_entropy.forward(logits, labels, label_smoothing=label_smoothing)
    dlogits, _ = softmax_cross_entropy.backward(array_module(x).ones_like(loss), softmax)
    dz, inner = perceptron.backward(dlogits, hidden)
    for layer in rest:
        for place, found in zip(layer.parameters(gradient), layer.parameters(inner), strict=True):
            if place is not None:
                place[...] = found
    w, b = first.parameters(gradient)[:2]
    _, w[...], db = linear.backward(dz, product, (False, True, b is not None))
    if b is not None:
        b[...] = db
    return loss, logits, perceptron.statistics(hidden)
