// Adadelta: v averages squared gradients, u squared steps.
#include "update.cuh"

FN_TYPES(float, double);

FN_KERNEL(256) adadelta_update(T* __restrict__ w, const T* __restrict__ g, T* __restrict__ v, T* __restrict__ u,
                               const double* rate_at, double rate, T rho, T rest, T eps, T decay, T l1, double shrink,
                               int64 penalised, int64 size) {
    rate = number(rate_at, rate);
    const T lr = T(rate);
    update(rate, decay, l1, shrink, penalised, w, g, size, [=](int64 i, T kept, T slope) {
        const T square = v[i] = rho * v[i] + rest * slope * slope;
        const T step = slope * (sqrt(u[i] + eps) / sqrt(square + eps));
        u[i] = rho * u[i] + rest * step * step;
        return kept - lr * step;
    });
}
