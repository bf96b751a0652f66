// Every function of common.cuh alone, its result written lane by lane: what a card and the emulator must agree on.
#include "common.cuh"

// out (7, 32)
FN_KERNEL(32) exchanges(const T* x, Acc* out) {
    const int l = lane_id();
    const Acc v = load(x + l);
    out[l] = shfl_xor(v, 5);
    out[32 + l] = shfl_down(v, 3);
    out[64 + l] = shfl(v, 7);
    out[96 + l] = Acc(ballot(v > 0) >> 8);
    out[128 + l] = warp_sum(v);
    out[160 + l] = warp_max(v);
    out[192 + l] = warp_sum(int64(1) << 40) == int64(1) << 45 ? Acc(1) : Acc(0);
}

FN_KERNEL(32) converted(const T* x, Acc* wide, T* narrow, int64 size) {
    for (int64 i = first_thread(); i < size; i += all_threads()) {
        wide[i] = load(x + i);
        store(narrow + i, load(x + i));
    }
}

// The conversion of float to a 16-bit T, for floats that lie between two of them.
FN_KERNEL(32) rounded(const Acc* x, T* y, int64 size) {
    for (int64 i = first_thread(); i < size; i += all_threads()) store(y + i, x[i]);
}

// y = x, but for pieces with an odd number, which are zero.
FN_KERNEL(64) copied(const T* x, T* y) {
    FN_DYNAMIC(Pack, tile);
    for (int group = 0; group < 2; group++) {
        const int piece = group * 64 + int(threadIdx.x);
        cp_async16(&tile[piece], x + piece * Pack::many, piece % 2 == 0);
        cp_commit();
    }
    cp_wait<1>();
    sync_threads();
    st128(y + (63 - threadIdx.x) * Pack::many, tile[63 - threadIdx.x].bits);
    cp_wait<0>();
    sync_threads();
    st128(y + (127 - threadIdx.x) * Pack::many, tile[127 - threadIdx.x].bits);
}

template <int FACTOR> Acc* row() {
    FN_SHARED(Acc, values, [WARP * FACTOR]);
    return values;
}

FN_KERNEL(32) two_instances(T* y) {
    Acc *one = row<1>(), *two = row<2>();
    one[lane_id()] = Acc(lane_id());
    two[2 * lane_id()] = Acc(31 - lane_id());
    sync_warp();
    store(y + lane_id(), one[lane_id()] + 100 * two[2 * lane_id()]);
}
