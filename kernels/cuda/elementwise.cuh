// y[i] = f(x[i], ...) over vectors of T, sixteen bytes a thread and step wherever all of them start on such a boundary.
#pragma once
#include "common.cuh"

template <class F, class... In> void elementwise(F f, int64 size, T* y, const In*... x) {
    // Views may start anywhere. The test is the same in all threads.
    bool aligned = ((uint64(y) | ... | uint64(x)) & (sizeof(Pack) - 1)) == 0;
    int64 in_packs = aligned ? size - size % Pack::many : 0;
    for (int64 i = first_thread() * Pack::many; i < in_packs; i += all_threads() * Pack::many) {
        auto apply = [&](auto... in) {
            Pack out;
            for (int j = 0; j < Pack::many; j++) store(&out.entry[j], f(load(&in.entry[j])...));
            st128(y + i, out.bits);
        };
        apply(Pack{ld128(x + i)}...);
    }
    for (int64 i = in_packs + first_thread(); i < size; i += all_threads()) store(y + i, f(load(x + i)...));
}
