// Numbers of a 16-bit type in the type that sums are kept in, and back.
#include "common.cuh"

FN_TYPES(half, bf16);

FN_KERNEL(256) cast_widen(const T* x, Acc* y, int64 size) {
    for (int64 i = first_thread(); i < size; i += all_threads()) y[i] = load(x + i);
}

FN_KERNEL(256) cast_narrow(const Acc* x, T* y, int64 size) {
    for (int64 i = first_thread(); i < size; i += all_threads()) store(y + i, x[i]);
}
