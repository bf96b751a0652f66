// The words of common.cuh as g++ compiles them: kernels run on the CPU, one fiber a thread (emulator.cpp).
//
// Every function that threads meet in takes the line of its caller, so that an error can name it.
#pragma once
#include <math.h>
#include <stddef.h>
#include <string.h>

#define FN_LINE int line = __builtin_LINE()

namespace emulator {

struct Dim { unsigned x, y, z; };
struct Thread { Dim index; int lane; };
struct Block { Dim index, threads, grid; };
extern Thread* thread;  // the running one
extern Block block;     // and its block

void barrier(int line);
// Hands `value` to the warp and waits for the other lanes; returns all 32 values, `size` bytes each.
const void* exchange(const char* what, const void* value, size_t size, int line);
// The block's memory for the declaration that `key` stands for (null: the dynamic one), filled with NaN.
void* shared(const void* key, size_t bytes, const char* name);
void check_shared(const void* at, size_t bytes, const char* what, int line);
void check_aligned(const void* at, const char* what, int line);
void copy_async(void* to, const void* from, bool valid, int line);
void commit_copies();
void wait_for_copies(int left);

template <class V> const V* gather(const char* what, const V& value, int line) {
    return static_cast<const V*>(exchange(what, &value, sizeof(V), line));
}

}  // namespace emulator

#define threadIdx (emulator::thread->index)
#define blockIdx (emulator::block.index)
#define blockDim (emulator::block.threads)
#define gridDim (emulator::block.grid)

#define FN_KERNEL(threads) extern "C" void
#define FN_SHARED(type, name, dimensions) \
    typedef type name##_shared dimensions; \
    static char name##_key; \
    name##_shared& name = *static_cast<name##_shared*>(emulator::shared(&name##_key, sizeof(name##_shared), #name))
#define FN_UNROLL(times)
#define FN_DYNAMIC(type, name) type* const name = static_cast<type*>(emulator::shared(nullptr, 0, #name))

inline float from_bits(uint32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline uint32 to_bits(float x) {
    uint32 bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float widen(bf16 x) { return from_bits(uint32(x.bits) << 16); }
inline float widen(half x) {
    uint32 sign = uint32(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, fraction = x.bits & 0x3ff;
    if (exponent == 31) return from_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent == 0) return from_bits(sign | to_bits(float(fraction) * 0x1p-24f));
    return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}
// Both round to the nearest, ties to even; CUDA's NaN has all bits but the sign set.
inline void narrow(bf16& y, float x) {
    uint32 bits = to_bits(x);
    y.bits = x != x ? 0x7fff : uint16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline void narrow(half& y, float x) {
    uint32 bits = to_bits(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (x != x) y.bits = 0x7fff;
    else if (size >= 0x477ff000) y.bits = uint16(sign | 0x7c00);  // 65520 and more round to infinity
    else if (size < 0x38800000)  // below the normal numbers: in units of 2^-24
        y.bits = uint16(sign | uint32(nearbyintf(from_bits(size) * 0x1p24f)));
    else y.bits = uint16(sign | (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13);
}

inline float rounded_product(float a, float b) { return a * b; }
inline double rounded_product(double a, double b) { return a * b; }

inline void sync_threads(FN_LINE) { emulator::barrier(line); }
inline void sync_warp(FN_LINE) { emulator::gather("sync_warp", 0, line); }

template <class V> V shfl_xor(V x, int mask, FN_LINE) {
    return emulator::gather("shfl_xor", x, line)[emulator::thread->lane ^ mask];
}
template <class V> V shfl_down(V x, int delta, FN_LINE) {
    int from = emulator::thread->lane + delta;
    const V* all = emulator::gather("shfl_down", x, line);
    return from < WARP ? all[from] : x;
}
template <class V> V shfl(V x, int lane, FN_LINE) { return emulator::gather("shfl", x, line)[lane & (WARP - 1)]; }
inline uint32 ballot(bool x, FN_LINE) {
    const bool* all = emulator::gather("ballot", x, line);
    uint32 bits = 0;
    for (int i = 0; i < WARP; i++) bits |= uint32(all[i]) << i;
    return bits;
}

inline Bits128 ld128(const void* from, FN_LINE) {
    emulator::check_aligned(from, "ld128", line);
    Bits128 v;
    memcpy(&v, from, sizeof v);
    return v;
}
inline void st128(void* to, Bits128 v, FN_LINE) {
    emulator::check_aligned(to, "st128", line);
    memcpy(to, &v, sizeof v);
}

inline void cp_async16(void* to, const void* from, bool valid = true, FN_LINE) {
    emulator::copy_async(to, from, valid, line);
}
inline void cp_commit() { emulator::commit_copies(); }
template <int N> void cp_wait() { emulator::wait_for_copies(N); }

struct Row { const uint16* entry; };
inline void load_matrices(uint32 (&v)[4], const void* row, bool transposed, const char* what, int line) {
    emulator::check_aligned(row, what, line);
    emulator::check_shared(row, 16, what, line);
    const Row* rows = emulator::gather(what, Row{static_cast<const uint16*>(row)}, line);
    int g = emulator::thread->lane / 4, t = emulator::thread->lane % 4 * 2;
    for (int i = 0; i < 4; i++) {
        const Row* matrix = rows + 8 * i;
        v[i] = transposed ? matrix[t].entry[g] | uint32(matrix[t + 1].entry[g]) << 16
                          : matrix[g].entry[t] | uint32(matrix[g].entry[t + 1]) << 16;
    }
    // Nobody may overwrite the rows before all lanes have read them.
    emulator::gather(what, 0, line);
}
inline void ldsm4(uint32 (&v)[4], const void* row, FN_LINE) { load_matrices(v, row, false, "ldsm4", line); }
inline void ldsm4_trans(uint32 (&v)[4], const void* row, FN_LINE) { load_matrices(v, row, true, "ldsm4_trans", line); }

template <class S> void mma_16816(S, float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2], FN_LINE) {
    struct Fragments { uint32 a[4], b[2]; };
    Fragments mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const Fragments* all = emulator::gather("mma_16816", mine, line);
    int g = emulator::thread->lane / 4, t = emulator::thread->lane % 4 * 2;
    auto entry = [](uint32 two, int high) { return widen(S{uint16(high ? two >> 16 : two)}); };
    for (int i = 0; i < 4; i++) {
        int row = g + i / 2 * 8, column = t + i % 2;
        double sum = c[i];  // exact products, one rounding at the end
        for (int k = 0; k < 16; k++) {
            float x = entry(all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k % 2);
            float y = entry(all[column * 4 + k % 8 / 2].b[k / 8], k % 2);
            sum += double(x) * y;
        }
        c[i] = float(sum);
    }
}
