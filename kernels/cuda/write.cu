// One array written over another.
#include "elementwise.cuh"

FN_KERNEL(256) write_over(const T* x, T* to, int64 size) {
    elementwise([](Acc v) { return v; }, size, to, x);
}
