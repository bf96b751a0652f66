// What a step has changed, taken back where the rate of its update is NaN.
#include "common.cuh"

FN_KERNEL(256) take_back(T* to, const T* kept, const double* rate, int64 size) {
    if (*rate == *rate) return;
    for (int64 i = first_thread(); i < size; i += all_threads()) to[i] = kept[i];
}
