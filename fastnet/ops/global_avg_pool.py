"""Mean over all places of each channel.

    y  = 1/(H W) sum_hw x          x (N, H, W, C), y (N, C)
    dx = dy / (H W) at every place

Source: Lin, Chen & Yan, "Network in network", 2014, section 3.2.
"""

from fastnet.arrays import accumulator, array_module, require_float
from fastnet.ops._windows import require_images


def forward(x):
    """Return the means, (N, C). Raises ValueError unless x is (N, H, W, C)."""
    require_float("global_avg_pool", x=x)
    require_images("global_avg_pool", x)
    y = x.astype(accumulator(x.dtype), copy=False).mean(axis=(1, 2))
    return y.astype(x.dtype, copy=False), x.shape


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    n, height, width, channels = cache
    share = (dy.astype(accumulator(dy.dtype), copy=False) / (height * width)).astype(dy.dtype, copy=False)
    return (array_module(dy).broadcast_to(share[:, None, None, :], (n, height, width, channels)).copy(),)
