// What every kernel starts from: the types, the few words of CUDA that are not C++, and all PTX behind functions.
//
// A source is compiled once for each storage type T, given by -DFN_T: float, double, half or bf16. Sums are kept in Acc,
// which is float for the 16-bit types and T otherwise. Compiled by NVRTC this is CUDA (functions are device functions by
// the option -default-device); compiled by g++ with -DFN_EMU it runs on the emulator of the tests. So kernels use what
// is declared here and ordinary C++17, and no headers of CUDA's are needed.
#pragma once

typedef signed char int8;
typedef unsigned char uint8;
typedef unsigned short uint16;
typedef unsigned int uint32;
typedef long long int64;
typedef unsigned long long uint64;

struct half { uint16 bits; };
struct bf16 { uint16 bits; };
struct alignas(16) Bits128 { uint32 word[4]; };

typedef FN_T T;
template <class Storage> struct Accumulator { typedef float type; };
template <> struct Accumulator<double> { typedef double type; };
typedef Accumulator<T>::type Acc;

// Sixteen bytes of T: what a thread best reads and writes at a time.
union Pack {
    static constexpr int many = 16 / sizeof(T);
    Bits128 bits;
    T entry[many];
};

constexpr int WARP = 32;

// The types T that a source is compiled for where those are not all: FN_TYPES(half, bf16), which is read by the launcher.
#define FN_TYPES(...) static_assert(true, "")

#ifdef FN_EMU
#include "emulator.h"
#else

// A kernel and the number of threads in each of its blocks, which the launcher reads here: FN_KERNEL(256) name(...) {}
#define FN_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
// Memory that the threads of a block share: FN_SHARED(Acc, tile, [64][65]), or as many bytes as the launch asks for.
#define FN_SHARED(type, name, dimensions) __shared__ __align__(16) type name dimensions
#define FN_DYNAMIC(type, name)                                     \
    extern __shared__ __align__(16) unsigned char fn_dynamic_[]; \
    type* const name = reinterpret_cast<type*>(fn_dynamic_)
// How often the next loop is unrolled; the compiler's own choice can take so many registers that they spill.
#define FN_TEXT(words) #words
#define FN_UNROLL(times) _Pragma(FN_TEXT(unroll times))

inline float from_bits(uint32 bits) { return __uint_as_float(bits); }
inline float widen(half x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
inline float widen(bf16 x) { return from_bits(uint32(x.bits) << 16); }
inline void narrow(half& y, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
inline void narrow(bf16& y, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }

// a b, rounded. Any other product the compiler may fuse with a sum, which rounds only once.
inline float rounded_product(float a, float b) { return __fmul_rn(a, b); }
inline double rounded_product(double a, double b) { return __dmul_rn(a, b); }

// Barriers: all threads of the block; all lanes of the warp.
inline void sync_threads() { __syncthreads(); }
inline void sync_warp() { __syncwarp(); }

// The value of another lane; all 32 lanes take part.
template <class V> V shfl_xor(V x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
template <class V> V shfl_down(V x, int delta) { return __shfl_down_sync(0xffffffffu, x, delta); }
template <class V> V shfl(V x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }
inline uint32 ballot(bool x) { return __ballot_sync(0xffffffffu, x); }

// Sixteen bytes at an address divisible by 16.
inline Bits128 ld128(const void* from) {
    Bits128 v;
    asm volatile("ld.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3]) : "l"(from) : "memory");
    return v;
}
inline void st128(void* to, Bits128 v) {
    asm volatile("st.v4.u32 [%0], {%1, %2, %3, %4};"
                 :: "l"(to), "r"(v.word[0]), "r"(v.word[1]), "r"(v.word[2]), "r"(v.word[3]) : "memory");
}

// The address of shared memory as PTX's instructions take it.
inline uint32 shared_address(const void* p) { return uint32(__cvta_generic_to_shared(p)); }

// Asynchronous copies of 16 bytes from global to shared memory. Those issued since the last cp_commit are a group, and
// cp_wait<N> returns when all but the newest N groups of this thread have arrived; the other threads' need a barrier.
// With `valid` false nothing is read and zeros arrive.
inline void cp_async16(void* to, const void* from, bool valid = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
inline void cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> void cp_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"); }

// Four 8x8 matrices of 16-bit entries from shared memory. Lane 8i+r gives the address of row r of matrix i, 16 bytes at
// an address divisible by 16; in v[i] lane l gets entries (l/4, 2(l%4)) and (l/4, 2(l%4)+1), low half first. The second
// form transposes: lane l gets entries (2(l%4), l/4) and (2(l%4)+1, l/4).
inline void ldsm4(uint32 (&v)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(shared_address(row)) : "memory");
}
inline void ldsm4_trans(uint32 (&v)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(shared_address(row)) : "memory");
}

// c (16x8) += a (16x16) b (16x8) by the 32 lanes together, with g = lane/4 and t = 2(lane%4): a[0..3] hold entries
// (g, t..), (g+8, t..), (g, t+8..), (g+8, t+8..); b[0..1] hold (t.., g), (t+8.., g); c[0..3] are (g, t), (g, t+1),
// (g+8, t), (g+8, t+1). The first argument only says which 16-bit type a and b are.
#define FN_MMA(name)                                                                                             \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name ".f32 "                                 \
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                               \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
inline void mma_16816(bf16, float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2]) { FN_MMA("bf16"); }
inline void mma_16816(half, float (&c)[4], const uint32 (&a)[4], const uint32 (&b)[2]) { FN_MMA("f16"); }
#undef FN_MMA

#endif

// Entries in the type that sums are kept in, and back.
inline float load(const half* x) { return widen(*x); }
inline float load(const bf16* x) { return widen(*x); }
inline float load(const float* x) { return *x; }
inline double load(const double* x) { return *x; }
inline void store(half* y, float x) { narrow(*y, x); }
inline void store(bf16* y, float x) { narrow(*y, x); }
inline void store(float* y, float x) { *y = x; }
inline void store(double* y, double x) { *y = x; }

inline Acc infinity() { return from_bits(0x7f800000); }
inline Acc not_a_number() { return from_bits(0x7fc00000); }

// A number that may change from one replay of a recorded launch to the next: where `at` points, and `value` added to it;
// `value` itself where it is null.
inline double number(const double* at, double value) { return at ? *at + value : value; }

inline int64 smaller(int64 a, int64 b) { return a < b ? a : b; }
// a / b and a % b, neither negative. A division of 64 bits takes several times as long as one of 32.
struct Divided { int64 quotient, remainder; };
inline Divided divided(int64 a, int64 b) {
    if (uint64(a | b) >> 32) return {a / b, a % b};
    return {uint32(a) / uint32(b), uint32(a) % uint32(b)};
}
inline int lane_id() { return int(threadIdx.x) % WARP; }
inline int warp_id() { return int(threadIdx.x) / WARP; }

// The index of this thread in the grid, and how many threads there are: a loop from the one in steps of the other visits
// every entry of an array of any size. Likewise for warps.
inline int64 first_thread() { return int64(blockIdx.x) * blockDim.x + threadIdx.x; }
inline int64 all_threads() { return int64(gridDim.x) * blockDim.x; }
inline int64 first_warp() { return first_thread() / WARP; }
inline int64 all_warps() { return all_threads() / WARP; }

// The sum and the largest of the 32 lanes' values, in every lane. A NaN among them stays one.
template <class V> V warp_sum(V x) {
    for (int mask = WARP / 2; mask; mask /= 2) x += shfl_xor(x, mask);
    return x;
}
template <class V> V warp_max(V x) {
    for (int mask = WARP / 2; mask; mask /= 2) {
        V other = shfl_xor(x, mask);
        x = other > x || other != other ? other : x;
    }
    return x;
}
