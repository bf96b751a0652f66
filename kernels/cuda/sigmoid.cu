// Logistic function: y = 1 / (1 + exp(-x)), dx = dy y (1 - y).
#include "logistic.cuh"

FN_KERNEL(256) sigmoid_forward(const T* x, T* y, int64 size) {
    elementwise([](Acc v) { return sigmoid(v); }, size, y, x);
}

FN_KERNEL(256) sigmoid_backward(const T* dy, const T* y, T* dx, int64 size) {
    elementwise([](Acc slope, Acc v) { return slope * (v * (1 - v)); }, size, dx, dy, y);
}
