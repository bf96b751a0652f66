"""What the losses on independent logits share: targets given as labels or densely, and the two reductions.

x is (N, K) logits. Targets are (N,) integer labels, which mean one-hot rows, or a floating array of x's shape, which
gets a gradient like any other. The reduction "mean" is over all N K entries (PyTorch's); "sample_mean" sums over the
classes and takes the mean over the samples, which makes loss and gradients K times larger.
"""

from fastnet.arrays import accumulator, array_module, is_floating, one_hot, require_float, require_labels


def check(op, x, targets, reduction):
    """Raise TypeError or ValueError unless the three fit together."""
    require_float(op, x=x)
    array_module(targets)
    if x.ndim != 2:
        raise ValueError(f"{op}: logits are {x.shape}, but (N, classes) is needed")
    if x.size == 0:
        raise ValueError(f"{op}: logits are {x.shape}: the batch is empty, so the mean loss is not defined")
    if is_floating(targets.dtype):
        if targets.shape != x.shape:
            raise ValueError(f"{op}: targets are {targets.shape} but logits are {x.shape}; floating-point targets need "
                             "the logits' shape, class labels an integer type")
    else:
        require_labels(op, targets, *x.shape)
    if reduction not in ("mean", "sample_mean"):
        raise ValueError(f"{op}: reduction must be 'mean' or 'sample_mean' but is {reduction!r}")


def dense(x, targets, off=0):
    """Logits and targets, both (N, K), in the type sums are kept in; a label's row is 1 there and `off` elsewhere."""
    precise = accumulator(x.dtype)
    if targets.dtype.kind in "iu":
        return x.astype(precise, copy=False), one_hot(targets, x.shape[1], precise, off)
    return x.astype(precise, copy=False), targets.astype(accumulator(targets.dtype), copy=False)


def reduced(losses, x, reduction):
    """The loss of x, a 0-d array of x's type, from the losses of its (N, K) entries."""
    return array_module(x).asarray(losses.sum() / divisor(x, reduction), dtype=x.dtype)


def divisor(x, reduction):
    """What the sum of all losses is divided by."""
    return x.size if reduction == "mean" else len(x)


def needed(targets, needs):
    """Which of the gradients of (x, targets) to compute: `needs`, and never that of labels."""
    needs_x, needs_targets = needs or (True, True)
    return needs_x, needs_targets and targets.dtype.kind not in "iu"
