"""The basic block of a residual network: two 3x3 convolutions, each with batch normalisation, around a shortcut.

x (N, H, W, C), w1 (3, 3, C, K), w2 (3, 3, K, K), gamma and beta (K,), padding 1 and no biases; `stride` is the first
convolution's. shortcut and y (N, OH, OW, K); where shortcut is None it is x itself.

    y1 = x * w1       h = max(0, gamma1 y1^ + beta1)
    y2 = h * w2       y = max(0, gamma2 y2^ + beta2 + shortcut)

dshortcut, dy2, dgamma2 and dbeta2 are those of `batch_norm_add_relu`, dh and dw2 of `conv2d`, dy1, dgamma1 and dbeta1
of `batch_norm_relu`, dx and dw1 of `conv2d`; dx has dshortcut added to it if x was the shortcut.

Source: He et al., "Deep residual learning for image recognition", 2015, figure 2 and section 4.2.
"""

from fastnet.arrays import require_float
from fastnet.ops import batch_norm_add_relu, batch_norm_relu, conv2d

NAME = "basic_block"


def check(x, w1, w2, shortcut, stride):
    """Raise TypeError or ValueError for what the ops inside would not name as this op's argument."""
    conv2d.check(NAME, x, w1, None, stride, 1, 1, 1, "auto")
    require_float(NAME, w2=w2)
    if w1.shape[:2] != (3, 3) or w2.shape != (3, 3, w1.shape[3], w1.shape[3]):
        raise ValueError(f"{NAME}: w1 is {tuple(w1.shape)} and w2 {tuple(w2.shape)}, but (3, 3, C, K) and (3, 3, K, K) "
                         "are needed")
    if shortcut is None and (stride not in (1, (1, 1)) or w1.shape[2] != w1.shape[3]):
        raise ValueError(f"{NAME}: with stride {stride} and w1 {tuple(w1.shape)} y has another shape than x "
                         f"({tuple(x.shape)}), so a shortcut is needed")


def forward(x, w1, gamma1, beta1, w2, gamma2, beta2, shortcut=None, *, stride=1, eps1=1e-5, eps2=1e-5):
    """Return y (N, OH, OW, K). Raises ValueError and TypeError where the shapes and types do not fit."""
    check(x, w1, w2, shortcut, stride)
    y1, first = conv2d.forward(x, w1, stride=stride, pad=1)
    batch_norm_relu.check(NAME, y1, gamma1, beta1, eps1)
    h, between = batch_norm_relu.forward(y1, gamma1, beta1, eps=eps1)
    y2, second = conv2d.forward(h, w2, pad=1)
    batch_norm_add_relu.check(NAME, y2, gamma2, beta2, eps2)
    direct = x if shortcut is None else shortcut
    batch_norm_add_relu.check_shortcut(NAME, y2, direct)
    y, end = batch_norm_add_relu.forward(y2, gamma2, beta2, direct, eps=eps2)
    return y, (first, between, second, end, shortcut is None)


def statistics(cache):
    """The batch's (mean, biased var) of y1 and of y2, all (K,)."""
    _, between, _, end, _ = cache
    return [batch_norm_relu.statistics(between), batch_norm_add_relu.statistics(end)]


def backward(dy, cache, needs=None):
    first, between, second, end, identity = cache
    needs = needs or (True,) * 8
    dy2, dgamma2, dbeta2, dshortcut = batch_norm_add_relu.backward(dy, end)
    dh, dw2, _ = conv2d.backward(dy2, second)
    dy1, dgamma1, dbeta1 = batch_norm_relu.backward(dh, between)
    dx, dw1, _ = conv2d.backward(dy1, first, (needs[0], needs[1], False))
    if identity and needs[0]:
        dx = dx + dshortcut
    gradients = dx, dw1, dgamma1, dbeta1, dw2, dgamma2, dbeta2, None if identity else dshortcut
    return tuple(gradient if needed else None for gradient, needed in zip(gradients, needs, strict=True))
