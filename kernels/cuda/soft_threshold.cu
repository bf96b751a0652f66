// Every entry towards zero, at most to it; by a threshold that is NaN, nothing.
#include "update.cuh"

FN_TYPES(float, double);

FN_KERNEL(256) soft_threshold(T* w, const double* threshold_at, double threshold, int64 size) {
    const T by = T(number(threshold_at, threshold));
    if (by != by) return;
    for (int64 i = first_thread(); i < size; i += all_threads()) {
        const T old = w[i];
        w[i] = fabs(old) <= by ? T(0) : old - copysign(by, old);
    }
}
