"""A residual block as in `fastnet.ops.basic_block`, its ops one after the other."""

from fastnet.kernels.cpu import add, batch_norm_add_relu, batch_norm_relu, conv2d
from fastnet.kernels.cpu._geometry import geometry


def supports(x, w1, gamma1, beta1, w2, gamma2, beta2, shortcut=None, *, stride=1, eps1=1e-5, eps2=1e-5):
    if not (conv2d.supports(x, w1, stride=stride, pad=1) and w1.shape[:2] == (3, 3)
            and w2.shape == (3, 3, w1.shape[3], w1.shape[3]) and w2.dtype == x.dtype):
        return False
    g = geometry(x, w1, stride, 1, 1, 1)
    direct = x if shortcut is None else shortcut
    return (direct.shape == (x.shape[0], g.out_h, g.out_w, w1.shape[3])
            and batch_norm_relu.supports(direct, gamma1, beta1, eps=eps1)
            and batch_norm_add_relu.supports(direct, gamma2, beta2, direct, eps=eps2)
            and direct.dtype == x.dtype)


def forward(x, w1, gamma1, beta1, w2, gamma2, beta2, shortcut=None, *, stride=1, eps1=1e-5, eps2=1e-5):
    y1, first = conv2d.forward(x, w1, stride=stride, pad=1)
    h, between = batch_norm_relu.forward(y1, gamma1, beta1, eps=eps1)
    y2, second = conv2d.forward(h, w2, pad=1)
    y, end = batch_norm_add_relu.forward(y2, gamma2, beta2, x if shortcut is None else shortcut, eps=eps2)
    return y, (first, between, second, end, shortcut is None)


def statistics(cache):
    """The batch's (mean, biased var) of y1 and of y2, all (K,)."""
    _, between, _, end, _ = cache
    return [batch_norm_relu.statistics(between), batch_norm_add_relu.statistics(end)]


def backward(dy, cache, needs=None):
    first, between, second, end, identity = cache
    needs_x, needs_w1, needs_gamma1, needs_beta1, needs_w2, needs_gamma2, needs_beta2, needs_shortcut = (
        needs or (True,) * 8)
    needs_y1 = needs_x or needs_w1
    below = needs_y1 or needs_gamma1 or needs_beta1
    dy2, dgamma2, dbeta2, dshortcut = batch_norm_add_relu.backward(
        dy, end, (below or needs_w2, needs_gamma2, needs_beta2, needs_x if identity else needs_shortcut))
    dh = dw2 = dx = dw1 = dgamma1 = dbeta1 = None
    if below or needs_w2:
        dh, dw2, _ = conv2d.backward(dy2, second, (below, needs_w2, False))
    if below:
        dy1, dgamma1, dbeta1 = batch_norm_relu.backward(dh, between, (needs_y1, needs_gamma1, needs_beta1))
    if needs_y1:
        dx, dw1, _ = conv2d.backward(dy1, first, (needs_x, needs_w1, False))
    if identity and needs_x:
        dx = add.run(dx, dshortcut)
    return dx, dw1, dgamma1, dbeta1, dw2, dgamma2, dbeta2, None if identity else dshortcut
