// Stochastic gradient descent; `velocity` is null where there is no momentum.
#include "update.cuh"

FN_TYPES(float, double);

FN_KERNEL(256) sgd_update(T* __restrict__ w, const T* __restrict__ g, T* __restrict__ velocity, const double* rate_at,
                          double rate, T momentum, int nesterov, T decay, T l1, double shrink, int64 penalised,
                          int64 size) {
    rate = number(rate_at, rate);
    const T lr = T(rate);
    update(rate, decay, l1, shrink, penalised, w, g, size, [=](int64 i, T kept, T slope) {
        if (!velocity) return kept - lr * slope;
        const T speed = velocity[i] = momentum * velocity[i] + slope;
        return kept - lr * (nesterov ? slope + momentum * speed : speed);
    });
}
