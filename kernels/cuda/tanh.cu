// Hyperbolic tangent: y = tanh(x), dx = dy (1 - y^2).
#include "elementwise.cuh"

FN_KERNEL(256) tanh_forward(const T* x, T* y, int64 size) {
    elementwise([](Acc v) { return tanh(v); }, size, y, x);
}

FN_KERNEL(256) tanh_backward(const T* dy, const T* y, T* dx, int64 size) {
    elementwise([](Acc slope, Acc v) { return slope * (1 - v * v); }, size, dx, dy, y);
}
