// RMSprop: w -= lr g / (sqrt(v + inside) + outside), of which one of `inside` and `outside` is 0.
#include "update.cuh"

FN_TYPES(float, double);

FN_KERNEL(256) rmsprop_update(T* __restrict__ w, const T* __restrict__ g, T* __restrict__ v, const double* rate_at,
                              double rate, T alpha, T rest, T inside, T outside, T decay, T l1, double shrink,
                              int64 penalised, int64 size) {
    rate = number(rate_at, rate);
    const T lr = T(rate);
    update(rate, decay, l1, shrink, penalised, w, g, size, [=](int64 i, T kept, T slope) {
        const T square = v[i] = alpha * v[i] + rest * slope * slope;
        return kept - lr * slope / (sqrt(square + inside) + outside);
    });
}
