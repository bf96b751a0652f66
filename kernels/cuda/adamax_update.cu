// Adamax, Adam with the maximum norm.
#include "update.cuh"

FN_TYPES(float, double);

FN_KERNEL(256) adamax_update(T* __restrict__ w, const T* __restrict__ g, T* __restrict__ m, T* __restrict__ u,
                             const double* rate_at, double rate, const double* t_at, double t, double log_beta1,
                             T beta1, T rest1, T beta2, T eps, T decay, T l1, double shrink, int64 penalised,
                             int64 size) {
    FN_SHARED(T, shared, [1]);  // by one thread, as in Adam
    rate = number(rate_at, rate);
    if (threadIdx.x == 0) shared[0] = T(rate / one_minus_power(log_beta1, number(t_at, t)));
    sync_threads();
    const T step = shared[0];
    update(rate, decay, l1, shrink, penalised, w, g, size, [=](int64 i, T kept, T slope) {
        const T mean = m[i] = beta1 * m[i] + rest1 * slope;
        const T bound = beta2 * u[i], length = fabs(slope) + eps;
        // Written so that a NaN gradient is kept, as the reference's maximum does.
        const T norm = u[i] = bound > length ? bound : length;
        return kept - step * mean / norm;
    });
}
