// The gradient of a 3x3 convolution's weights on tensor cores: dw (9, channels, outputs) = sum over pixels of x at the
// tap times dy, for x (pixels, channels), dy (pixels, outputs).
//
// A block sums 64 channels x 64 outputs for all nine taps over its part of the pixels: each pixel of x and dy is loaded
// once, 128 at a time while the 128 before are worked on. A warp keeps 16 channels x 32 outputs of each tap in
// registers. Reckoned: a warp's step of 16 pixels is 147,456 FLOP and reads 9 x 512 + 1,024 bytes of shared memory, 26
// FLOP a byte; a tile of 128 pixels is 9.4 MFLOP and loads (128 + 2 w + 2 + 128) x 128 bytes, for width w = 32, 16, 8,
// 4: 229, 254, 269, 277 FLOP a byte. Predictions: no card has run this.
#include "halo.cuh"

FN_TYPES(half, bf16);

constexpr int TILE_PIXELS = 128;

// One block a multiprocessor: the sums alone are 144 registers of each of 256 threads.
// x is what it is, or max(0, batch normalisation of x) if `found` and `beta` are given.
// parts (P, 9, channels, outputs): part p is the sum over pixels p chunk to (p + 1) chunk, chunk a multiple of 128.
// Shared memory: a row of zeros, and twice (for this tile and the next) which taps of its pixels lie inside, x and dy.
FN_KERNEL(256) conv3x3_dw(const T* x, const T* dy, const Acc* found, const Acc* beta, Acc* parts, int chunk,
                          int pixels, int height, int width, int channels, int outputs) {
    FN_DYNAMIC(unsigned char, memory);
    const int seen = TILE_PIXELS + 2 * width + 2, half = TILE_PIXELS * 2 + (seen + TILE_PIXELS) * ROW;
    // The warp's first chunks of x, of dy.
    const int lane = lane_id(), side = warp_id() % 4 * 2, wing = warp_id() / 4 * 4;
    const int across = outputs / DEEP, down = channels / DEEP, many = (pixels + chunk - 1) / chunk;
    if (threadIdx.x < ROW / 4) reinterpret_cast<uint32*>(memory)[threadIdx.x] = 0;

    for (int tile = int(blockIdx.x); tile < across * down * many; tile += int(gridDim.x)) {
        const int output = tile % across * DEEP, channel = tile / across % down * DEEP, part = tile / across / down;
        const int begin = part * chunk, end = int(smaller(pixels, int64(begin) + chunk));
        const TapsInside inside = {height, width, end};
        auto load_tile = [&](int pixel) {
            unsigned char* to = memory + ROW + pixel / TILE_PIXELS % 2 * half;
            if (threadIdx.x < TILE_PIXELS)
                reinterpret_cast<uint16*>(to)[threadIdx.x] = uint16(inside(pixel + int(threadIdx.x)));
            to += TILE_PIXELS * 2;
            load_rows<256, false>(to, x + channel, pixel - width - 1, seen, pixels, channels);
            load_rows<256, true>(to + seen * ROW, dy + output, pixel, TILE_PIXELS, end, outputs);
        };
        float sum[TAPS][4][4] = {};
        load_tile(begin);
        cp_commit();
        FN_UNROLL(1)
        for (int pixel = begin; pixel < end; pixel += TILE_PIXELS) {
            if (pixel + TILE_PIXELS < end) load_tile(pixel + TILE_PIXELS);
            cp_commit();
            cp_wait<1>();
            const int at = ROW + pixel / TILE_PIXELS % 2 * half, halo = at + TILE_PIXELS * 2;
            if (found) {
                sync_threads();
                const NormReLU<2> norm(found, beta, channels, channel + 2 * lane);
                change_rows<256>(memory + halo, pixel - width - 1, seen, pixels, norm);
            }
            sync_threads();
            FN_UNROLL(1)
            for (int k = 0; k < TILE_PIXELS; k += 16) {
                uint32 b[2][4];
                for (int n = 0; n < 2; n++)
                    ldsm4_trans(b[n], memory + halo + seen * ROW + placed(k + lane % 16, wing + 2 * n + lane / 16));
                const int m = k + lane % 8 + lane / 16 * 8, c = side + lane / 8 % 2;
                const uint32 mask = reinterpret_cast<const uint16*>(memory + at)[m];
                FN_UNROLL(9)
                for (int tap = 0; tap < TAPS; tap++) {
                    const int p = m + tap / 3 * width + tap % 3;
                    uint32 a[4];
                    ldsm4_trans(a, memory + (mask >> tap & 1 ? halo + p * ROW : 0) + ((c ^ (p & 7)) << 4));
                    for (int n = 0; n < 4; n++) {
                        const uint32 right[2] = {b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]};
                        mma_16816(T(), sum[tap][n], a, right);
                    }
                }
            }
            sync_threads();
        }
        cp_wait<0>();
        FN_UNROLL(9)
        for (int tap = 0; tap < TAPS; tap++)
            for (int n = 0; n < 4; n++)
                for (int e = 0; e < 4; e++) {
                    const int row = channel + side * 8 + lane / 4 + e / 2 * 8;
                    const int column = output + wing * 8 + n * 8 + lane % 4 * 2 + e % 2;
                    parts[((int64(part) * TAPS + tap) * channels + row) * outputs + column] = sum[tap][n][e];
                }
    }
}
