// The average of the weights; with a decay that is NaN it stays.
#include "update.cuh"

FN_TYPES(float, double);

FN_KERNEL(256) average_update(T* __restrict__ average, const T* __restrict__ w, const double* decay_at, double decay,
                              int64 size) {
    const T share = T(1 - number(decay_at, decay));
    if (share != share) return;
    for (int64 i = first_thread(); i < size; i += all_threads()) average[i] += share * (w[i] - average[i]);
}
