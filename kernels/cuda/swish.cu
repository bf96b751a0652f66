// Swish: y = x s, dx = dy s (1 + x (1 - s)), where s is the logistic function of x.
#include "logistic.cuh"

FN_KERNEL(256) swish_forward(const T* x, T* y, int64 size) {
    elementwise([](Acc v) { return v * sigmoid(v); }, size, y, x);
}

FN_KERNEL(256) swish_backward(const T* dy, const T* x, T* dx, int64 size) {
    elementwise([](Acc slope, Acc v) {
        const Acc s = sigmoid(v);
        return slope * (s * (1 + v * (1 - s)));
    }, size, dx, dy, x);
}
