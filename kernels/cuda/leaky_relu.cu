// Leaky rectified linear unit: y = x where x > 0, else a x; dx = dy where x > 0, else a dy. As a >= 0, y says which.
#include "elementwise.cuh"

FN_KERNEL(256) leaky_relu_forward(const T* x, T* y, int64 size, Acc a) {
    elementwise([=](Acc v) { return v > 0 ? v : a * v; }, size, y, x);
}

FN_KERNEL(256) leaky_relu_backward(const T* dy, const T* y, T* dx, int64 size, Acc a) {
    elementwise([=](Acc slope, Acc v) { return v > 0 ? slope : a * slope; }, size, dx, dy, y);
}
