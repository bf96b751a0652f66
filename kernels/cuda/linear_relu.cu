// Linear layer with a rectified linear unit behind it: y = max(x w + b, 0). x (n, in), y (n, out) of T; w, b of Acc.
#include "product.cuh"

FN_KERNEL(256) linear_relu_forward(const T* x, const Acc* w, const Acc* b, T* y, int64 n, int64 in, int64 out) {
    product(row_major(x, in), row_major(w, out), row_major(y, out), n, out, in, [=](Acc sum, int64 j) {
        const Acc z = b ? sum + b[j] : sum;
        return z <= 0 ? Acc(0) : z;  // in this order a NaN stays one
    });
}
