// 3x3 convolution on tensor cores: x (pixels, depth), y (pixels, breadth) in T, w in T as (9, depth, breadth); or, for
// dx, where x is dy and y is dx, as (9, breadth, depth) with the taps in reverse.
//
// A block computes a tile of pixels x outputs. Of 64 channels at a time it loads the pixels that the tile's windows see,
// once (halo.cuh), and then the weights of one tap after the other, three in flight. Reckoned a tile, for width w:
//
//   tile      warps     FLOP / byte from shared memory   FLOP / byte from global memory (w = 32, 16, 8, 4)
//   256 x 64  4 of 64 x 64           32                        164, 170, 173, 175
//   128 x 128 4 of 64 x 64           32                        110, 112, 114, 114
//   128 x 64  4 of 64 x 32           21                         96, 100, 102, 103
//
// A multiprocessor reads 128 bytes of shared memory a cycle: 32 FLOP a byte feed all that its tensor cores do.
// Nearly all bytes from global memory come from the L2 cache, weights above all. Predictions: no card has run this.
#include "halo.cuh"

FN_TYPES(half, bf16);

constexpr int STAGES = 3;  // weights of so many taps are in shared memory: one is used, the others are on their way

struct alignas(4) Two { T entry[2]; };

// The weights of a tap for 64 channels, in rows of BREADTH outputs, or REVERSED in rows of 64 channels, one an output.
template <int BREADTH, bool REVERSED>
void load_weights(unsigned char* to, const T* w, int tap, int channel, int output, int depth, int breadth) {
    constexpr int many = (REVERSED ? DEEP : BREADTH) / 8, together = 128 / many;  // chunks of a row; rows at a time
    const int row = int(threadIdx.x) / many, chunk = int(threadIdx.x) % many;
    const int64 at = REVERSED ? (int64(TAPS - 1 - tap) * breadth + output + row) * depth + channel
                              : (int64(tap) * depth + channel + row) * breadth + output;
    const T* from = w + at + chunk * 8;
    to += row * many * 16 + ((chunk ^ (row & 7)) << 4);  // the same in all rows of this thread: they are 8 or 16 apart
    for (int n = 0; n < DEEP * BREADTH / 8 / 128; n++, from += int64(together) * (REVERSED ? depth : breadth))
        cp_async16(to + n * 128 * 16, from);
}

// Four warps, of which ACROSS side by side share their pixels, and each computes 64 pixels x WIDE outputs.
// Shared memory: a row of zeros, the weights, the pixels of 64 channels, and those of the next 64 where there are more.
template <int ACROSS, int WIDE, bool REVERSED>
void conv3x3(const T* x, const T* w, const Acc* b, T* y, int pixels, int height, int width, int depth, int breadth) {
    constexpr int TILE_PIXELS = 4 / ACROSS * 64, BREADTH = ACROSS * WIDE, SLAB = DEEP * BREADTH * 2;
    FN_DYNAMIC(unsigned char, memory);
    unsigned char *const slabs = memory + ROW, *const halo = slabs + STAGES * SLAB;
    const int lane = lane_id(), across = warp_id() % ACROSS, down = warp_id() / ACROSS * 64;
    const int seen = TILE_PIXELS + 2 * width + 2, steps = depth / DEEP * TAPS;
    const int columns = breadth / BREADTH, rows = (pixels + TILE_PIXELS - 1) / TILE_PIXELS;
    if (threadIdx.x < ROW / 4) reinterpret_cast<uint32*>(memory)[threadIdx.x] = 0;

    for (int tile = int(blockIdx.x); tile < rows * columns; tile += int(gridDim.x)) {
        const int pixel = tile / columns * TILE_PIXELS, output = tile % columns * BREADTH;
        auto load_step = [&](int step) {  // what step begins with, as a group of copies
            const int channel = step / TAPS * DEEP;
            if (step < steps)
                load_weights<BREADTH, REVERSED>(slabs + step % STAGES * SLAB, w, step % TAPS, channel, output, depth,
                                                breadth);
        };
        auto load_pixels = [&](int part) {
            if (part * DEEP < depth)
                load_rows<128, false>(halo + part % 2 * seen * ROW, x + part * DEEP, pixel - width - 1, seen, pixels,
                                      depth);
        };
        load_pixels(0);
        for (int step = 0; step < STAGES - 1; step++) {
            load_step(step);
            cp_commit();
        }
        const TapsInside inside = {height, width, pixels};
        uint32 mask[4];
        for (int m = 0; m < 4; m++) mask[m] = inside(pixel + down + m * 16 + lane % 16);
        float sum[4][WIDE / 8][4] = {};

        FN_UNROLL(1)
        for (int step = 0; step < steps; step++) {
            cp_wait<STAGES - 2>();
            sync_threads();  // this step's weights are there, and nobody reads the last step's any more
            const int part = step / TAPS, tap = step % TAPS;
            load_step(step + STAGES - 1);
            if (tap == 0) load_pixels(part + 1);
            cp_commit();

            const unsigned char* slab = slabs + step % STAGES * SLAB;
            int row[4];  // of the lane's pixel in each fragment of 16, from `memory` on
            for (int m = 0; m < 4; m++) {
                const int p = down + m * 16 + lane % 16 + tap / 3 * width + tap % 3;
                const int at = ROW + STAGES * SLAB + (part % 2 * seen + p) * ROW;
                row[m] = (mask[m] >> tap & 1 ? at : 0) + ((lane / 16 ^ (p & 7)) << 4);
            }
            FN_UNROLL(2)
            for (int k = 0; k < DEEP / 16; k++) {
                uint32 a[4][4];
                for (int m = 0; m < 4; m++) ldsm4(a[m], memory + (row[m] ^ k << 5));
                for (int n = 0; n < WIDE / 16; n++) {
                    uint32 v[4];
                    if (REVERSED) {
                        const int line = across * WIDE + n * 16 + lane / 16 * 8 + lane % 8;
                        ldsm4(v, slab + placed(line, 2 * k + lane / 8 % 2));
                    } else {
                        const int line = k * 16 + lane % 16, chunk = (across * WIDE + n * 16) / 8 + lane / 16;
                        ldsm4_trans(v, slab + line * BREADTH * 2 + ((chunk ^ (line & 7)) << 4));
                    }
                    const uint32 left[2] = {v[0], v[1]}, right[2] = {v[2], v[3]};
                    for (int m = 0; m < 4; m++) {
                        mma_16816(T(), sum[m][2 * n], a[m], left);
                        mma_16816(T(), sum[m][2 * n + 1], a[m], right);
                    }
                }
            }
        }

        // Through shared memory, so that a warp writes whole lines.
        cp_wait<0>();
        sync_threads();
        constexpr int LINE = WIDE * 2, MANY = WIDE / 8;  // bytes and chunks of a pixel's outputs
        unsigned char* out = slabs + warp_id() * 64 * LINE;
        const int first = output + across * WIDE;
        FN_UNROLL(MANY)
        for (int n = 0; n < MANY; n++) {
            const int column = first + n * 8 + lane % 4 * 2;
            const Acc bias[2] = {b ? b[column] : 0, b ? b[column + 1] : 0};
            for (int m = 0; m < 4; m++)
                for (int h = 0; h < 2; h++) {
                    const int line = m * 16 + h * 8 + lane / 4;
                    Two two;
                    for (int e = 0; e < 2; e++) store(two.entry + e, sum[m][n][2 * h + e] + bias[e]);
                    *reinterpret_cast<Two*>(out + line * LINE + ((n ^ line % MANY) << 4) + lane % 4 * 4) = two;
                }
        }
        sync_warp();
        for (int n = lane; n < 64 * MANY; n += WARP) {
            const int line = n / MANY, chunk = n % MANY;
            if (pixel + down + line < pixels)
                st128(y + int64(pixel + down + line) * breadth + first + chunk * 8,
                      ld128(out + line * LINE + ((chunk ^ line % MANY) << 4)));
        }
        sync_threads();
    }
}

// Two blocks a multiprocessor, by registers (at most 255) and by shared memory; three of the smallest tile.
FN_KERNEL(128) conv3x3_forward_256x64(const T* x, const T* w, const Acc* b, T* y, int pixels, int height, int width,
                                      int depth, int breadth) {
    conv3x3<1, 64, false>(x, w, b, y, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_forward_128x128(const T* x, const T* w, const Acc* b, T* y, int pixels, int height, int width,
                                       int depth, int breadth) {
    conv3x3<2, 64, false>(x, w, b, y, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_forward_128x64(const T* x, const T* w, const Acc* b, T* y, int pixels, int height, int width,
                                      int depth, int breadth) {
    conv3x3<2, 32, false>(x, w, b, y, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_dx_256x64(const T* x, const T* w, const Acc* b, T* y, int pixels, int height, int width,
                                 int depth, int breadth) {
    conv3x3<1, 64, true>(x, w, b, y, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_dx_128x128(const T* x, const T* w, const Acc* b, T* y, int pixels, int height, int width,
                                  int depth, int breadth) {
    conv3x3<2, 64, true>(x, w, b, y, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_dx_128x64(const T* x, const T* w, const Acc* b, T* y, int pixels, int height, int width,
                                 int depth, int breadth) {
    conv3x3<2, 32, true>(x, w, b, y, pixels, height, width, depth, breadth);
}

// The weights in 16 bits.
FN_KERNEL(256) conv3x3_narrowed(const Acc* w, T* narrowed, int64 size) {
    for (int64 i = first_thread(); i < size; i += all_threads()) store(narrowed + i, w[i]);
}
