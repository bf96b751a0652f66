// The functions of common.cuh that take 16-bit entries only, alone; see words.cu.
#include "common.cuh"

FN_TYPES(half, bf16);

// x (32, 8) of 16-bit entries; plain and transposed (4, 32, 2).
FN_KERNEL(32) matrices(const T* x, uint32* plain, uint32* transposed) {
    FN_SHARED(Pack, rows, [32]);
    const int l = lane_id();
    rows[l].bits = ld128(x + l * 8);
    sync_warp();
    uint32 v[4];
    ldsm4(v, &rows[l]);
    for (int i = 0; i < 4; i++) plain[i * 32 + l] = v[i];
    ldsm4_trans(v, &rows[l]);
    for (int i = 0; i < 4; i++) transposed[i * 32 + l] = v[i];
}

// c (16, 8) = a (16, 16) b (16, 8) + c, row by row in memory.
FN_KERNEL(32) multiplied(const T* a, const T* b, float* c) {
    FN_SHARED(T, tile, [16][16]);
    FN_SHARED(T, other, [16][8]);
    const int l = lane_id(), g = l / 4, t = l % 4 * 2;
    for (int i = l; i < 256; i += WARP) tile[i / 16][i % 16] = a[i];
    for (int i = l; i < 128; i += WARP) other[i / 8][i % 8] = b[i];
    sync_warp();
    uint32 left[4], right[4];
    ldsm4(left, &tile[l % 16][l / 16 * 8]);
    ldsm4_trans(right, &other[l % 16][0]);
    float sum[4];
    for (int i = 0; i < 4; i++) sum[i] = c[(g + i / 2 * 8) * 8 + t + i % 2];
    mma_16816(T(), sum, left, reinterpret_cast<const uint32(&)[2]>(right));
    for (int i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + t + i % 2] = sum[i];
}
