// Exponential linear unit: y = x where x > 0, else a (exp(x) - 1); dx = dy where x > 0, else dy (y + a).
#include "elementwise.cuh"

FN_KERNEL(256) elu_forward(const T* x, T* y, int64 size, Acc a) {
    elementwise([=](Acc v) { return v > 0 ? v : a * expm1(v); }, size, y, x);
}

FN_KERNEL(256) elu_backward(const T* dy, const T* y, T* dx, int64 size, Acc a) {
    elementwise([=](Acc slope, Acc v) { return v > 0 ? slope : slope * (v + a); }, size, dx, dy, y);
}
