// Kernels with one mistake each, made unless `right` says otherwise: the emulator has to notice every one.
#include "common.cuh"

// y = x reversed within a block, through shared memory.
FN_KERNEL(128) missing_barrier(const T* x, T* y, int right) {
    FN_SHARED(T, tile, [128]);
    tile[threadIdx.x] = x[threadIdx.x];
    if (right) sync_threads();
    y[threadIdx.x] = tile[127 - threadIdx.x];
}

// The same, where warps that kept step would never show it.
FN_KERNEL(128) barrier_missed_late(const T* x, T* y, int right) {
    FN_SHARED(T, tile, [128]);
    tile[threadIdx.x] = x[threadIdx.x];
    for (int i = 0; i < 8; i++) sync_warp();
    if (right) sync_threads();
    y[threadIdx.x] = tile[127 - threadIdx.x];
}

// y = x by asynchronous copies.
FN_KERNEL(32) missing_wait(const T* x, T* y, int right) {
    FN_SHARED(Pack, tile, [32]);
    cp_async16(&tile[threadIdx.x], x + threadIdx.x * Pack::many);
    cp_commit();
    if (right) cp_wait<0>();
    else cp_wait<1>();
    st128(y + threadIdx.x * Pack::many, tile[threadIdx.x].bits);
    cp_wait<0>();
}

FN_KERNEL(32) unfinished_copy(const T* x, T* y, int right) {
    FN_SHARED(Pack, tile, [32]);
    cp_async16(&tile[threadIdx.x], x, false);
    cp_commit();
    if (right) cp_wait<0>();
    store(y + threadIdx.x, 0);
}

// y = two pieces of x, each reversed; the second piece may not arrive before all have read the first.
FN_KERNEL(64) overwritten_too_early(const T* x, T* y, int right) {
    FN_SHARED(Pack, tile, [64]);
    for (int piece = 0; piece < 2; piece++) {
        cp_async16(&tile[threadIdx.x], x + (piece * 64 + threadIdx.x) * Pack::many);
        cp_commit();
        cp_wait<0>();
        sync_threads();
        st128(y + (piece * 64 + threadIdx.x) * Pack::many, tile[63 - threadIdx.x].bits);
        if (right) sync_threads();
    }
}

FN_KERNEL(32) touches(const T* x, T* y, int64 read, int64 written) {
    if (threadIdx.x == 5) store(y + written, load(x + read));
}

FN_KERNEL(64) divergent_shuffle(const T* x, T* y, int right) {
    Acc v = load(x + threadIdx.x);
    if (right || threadIdx.x % 2) v += shfl_xor(v, 1);
    store(y + threadIdx.x, v);
}

FN_KERNEL(32) two_shuffles(const T* x, T* y, int right) {
    Acc v = load(x + threadIdx.x);
    if (right || lane_id() < 16)
        v = shfl_xor(v, 1);
    else
        v = shfl_xor(v, 2);
    store(y + threadIdx.x, v);
}

FN_KERNEL(64) divergent_barrier(const T* x, T* y, int right) {
    if (right || threadIdx.x < 40) sync_threads();
    y[threadIdx.x] = x[threadIdx.x];
}

FN_KERNEL(64) two_barriers(const T* x, T* y, int right) {
    if (right || threadIdx.x < 32)
        sync_threads();
    else
        sync_threads();
    y[threadIdx.x] = x[threadIdx.x];
}

FN_KERNEL(40) part_of_a_warp(const T* x, T* y) { store(y + threadIdx.x, warp_sum(load(x + threadIdx.x))); }

FN_KERNEL(32) shared_overrun(T* y, int at) {
    FN_SHARED(Acc, tile, [32]);
    Acc* volatile first = tile;
    if (threadIdx.x == 0) first[at] = 0;
    sync_threads();
    store(y + threadIdx.x, tile[threadIdx.x]);
}

FN_KERNEL(32) reads_beside(T* y, int at) {
    FN_SHARED(Acc, tile, [32]);
    const Acc* volatile first = tile;
    tile[threadIdx.x] = 0;
    sync_threads();
    store(y + threadIdx.x, first[at]);
}

FN_KERNEL(2048) too_many_threads(T* y) { store(y, 0); }

FN_KERNEL(32) dynamic_overrun(T* y, int at) {
    FN_DYNAMIC(Acc, tile);
    tile[at < 0 ? at : int(threadIdx.x)] = 1;
    sync_threads();
    store(y + threadIdx.x, tile[threadIdx.x]);
}

FN_KERNEL(32) misaligned(const T* x, T* y, int offset) { st128(y, ld128(x + offset)); }

FN_KERNEL(32) divided(T* y, int by) { store(y + threadIdx.x, Acc(7 / by)); }

FN_KERNEL(32) endless(T* y, int deep) {
    volatile char frame[4096];
    struct Deep {
        static int call(volatile char* p, int left) {
            volatile char more[4096];
            more[0] = p[0];
            return left ? call(more, left - 1) + more[0] : more[0];
        }
    };
    frame[0] = 1;
    store(y + threadIdx.x, Acc(Deep::call(frame, deep)));
}
