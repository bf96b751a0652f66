// Rectified linear unit: y = max(x, 0), dx = dy where y > 0 else 0.
#include "elementwise.cuh"

FN_KERNEL(256) relu_forward(const T* x, T* y, int64 size) {
    // Not max(), and in this order, so that a NaN comes out as one.
    elementwise([](Acc v) { return v <= 0 ? Acc(0) : v; }, size, y, x);
}

FN_KERNEL(256) relu_backward(const T* dy, const T* y, T* dx, int64 size) {
    elementwise([](Acc slope, Acc v) { return v > 0 ? slope : Acc(0); }, size, dx, dy, y);
}
