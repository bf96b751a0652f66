// Adagrad.
#include "update.cuh"

FN_TYPES(float, double);

FN_KERNEL(256) adagrad_update(T* __restrict__ w, const T* __restrict__ g, T* __restrict__ squares,
                              const double* rate_at, double rate, T eps, T decay, T l1, double shrink, int64 penalised,
                              int64 size) {
    rate = number(rate_at, rate);
    const T lr = T(rate);
    update(rate, decay, l1, shrink, penalised, w, g, size, [=](int64 i, T kept, T slope) {
        const T sum = squares[i] = squares[i] + slope * slope;
        return kept - lr * slope / (sqrt(sum) + eps);
    });
}
