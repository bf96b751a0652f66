"""Mean softmax cross-entropy of logits against integer labels, with optional label smoothing.

x is (N, K) logits, labels (N,) integers in 0..K-1, s the smoothing:

    log p = x - logsumexp(x)             row by row, shifted by the row's largest logit
    t     = (1 - s) onehot(labels) + s/K
    y     = -1/N sum_n sum_k t_nk log p_nk
    dx    = dy (p - t) / N

Sources: Bridle, "Probabilistic interpretation of feedforward classification network outputs", 1990; label
smoothing: Szegedy et al., "Rethinking the Inception architecture", 2015, section 7.
"""

from fastnet.arrays import accumulator, array_module, require_float, require_labels


def check(op, shape, labels, label_smoothing):
    """Raise TypeError or ValueError, in the name of `op`, for what does not fit logits of `shape`."""
    if len(shape) != 2:
        raise ValueError(f"{op}: logits are {shape}, but (N, classes) is needed")
    require_labels(op, labels, *shape)
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"{op}: label_smoothing must be in [0, 1) but is {label_smoothing}")


def forward(x, labels, *, label_smoothing=0.0):
    """Return the mean loss as a 0-d array. Finite for any finite logits."""
    require_float("softmax_cross_entropy", x=x)
    check("softmax_cross_entropy", x.shape, labels, label_smoothing)
    xp = array_module(x)
    precise = x.astype(accumulator(x.dtype), copy=False)
    shifted = precise - precise.real.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    at_label = log_p[xp.arange(len(labels)), labels]
    loss = -(1 - label_smoothing) * at_label - label_smoothing * log_p.mean(axis=1)
    return xp.asarray(loss.mean(), dtype=x.dtype), (xp.exp(log_p), labels, label_smoothing, x.dtype)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return None, None
    p, labels, label_smoothing, dtype = cache
    xp = array_module(p)
    classes = p.shape[1]
    one_hot = labels[:, None] == xp.arange(classes)
    target = (1 - label_smoothing) * one_hot + label_smoothing / classes
    return (dy * (p - target) / len(labels)).astype(dtype, copy=False), None
