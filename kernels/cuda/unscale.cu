// A gradient divided by the scale of its loss.
#include "common.cuh"

FN_TYPES(float, double);

FN_KERNEL(256) unscale(T* g, const T* scale, uint32* overflow, int64 size) {
    const T factor = T(1) / *scale;
    bool finite = true;
    for (int64 i = first_thread(); i < size; i += all_threads()) {
        const T found = g[i] = g[i] * factor;
        finite = finite && fabs(found) < infinity();
    }
    if (!finite) *overflow = 1;  // whoever writes, writes the same
}
