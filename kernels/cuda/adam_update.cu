// Adam: w -= size m / (sqrt(correction v + inside) + outside), of which one of `inside` and `outside` is 0.
#include "update.cuh"

FN_TYPES(float, double);

struct Factors { T size, correction, outside; };

FN_KERNEL(256) adam_update(T* __restrict__ w, const T* __restrict__ g, T* __restrict__ m, T* __restrict__ v,
                           const double* rate_at, double rate, const double* t_at, double t, double log_beta1,
                           double log_beta2, T beta1, T rest1, T beta2, T rest2, T inside, double outside, int hat,
                           T decay, T l1, double shrink, int64 penalised, int64 size) {
    FN_SHARED(Factors, factors, [1]);  // by one thread: in float64 they would cost all of them more than the update
    rate = number(rate_at, rate);
    if (threadIdx.x == 0) {
        t = number(t_at, t);
        const double correction = 1 / one_minus_power(log_beta2, t);
        factors[0] = {T(rate / one_minus_power(log_beta1, t)), T(correction),
                      T(hat ? outside * sqrt(correction) : outside)};
    }
    sync_threads();
    const Factors of = factors[0];
    update(rate, decay, l1, shrink, penalised, w, g, size, [=](int64 i, T kept, T slope) {
        const T mean = m[i] = beta1 * m[i] + rest1 * slope;
        const T square = v[i] = beta2 * v[i] + rest2 * slope * slope;
        return kept - of.size * mean / (sqrt(of.correction * square + inside) + of.outside);
    });
}
