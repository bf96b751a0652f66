// 3x3 convolution on tensor cores: x (pixels, depth), y (pixels, breadth) in T, w in T as (9, depth, breadth); or, for
// dx, where x is dy and y is dx, as (9, breadth, depth) with the taps in reverse.
//
// A block computes a tile of pixels x outputs. Of 64 channels at a time it loads the pixels that the tile's windows
// see, once (halo.cuh), and then the weights of one tap after the other, three in flight. Reckoned a tile, for width w:
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

// finish(sums, scratch, first pixel, first output) for each tile.
// Shared memory: a row of zeros, the weights, the pixels of 64 channels, and those of the next 64 where there are more.
template <int ACROSS, int WIDE, bool REVERSED, class F>
void tiles3x3(const T* x, const T* w, int pixels, int height, int width, int depth, int breadth, F finish) {
    typedef TensorTile<ACROSS, WIDE, REVERSED> Sums;
    FN_DYNAMIC(unsigned char, memory);
    unsigned char *const slabs = memory + ROW, *const halo = slabs + STAGES * Sums::SLAB;
    const int lane = lane_id(), seen = Sums::ROWS + 2 * width + 2, steps = depth / DEEP * TAPS;
    const int columns = breadth / Sums::BREADTH, rows = (pixels + Sums::ROWS - 1) / Sums::ROWS;
    if (threadIdx.x < ROW / 4) reinterpret_cast<uint32*>(memory)[threadIdx.x] = 0;

    for (int tile = int(blockIdx.x); tile < rows * columns; tile += int(gridDim.x)) {
        const int pixel = tile / columns * Sums::ROWS, output = tile % columns * Sums::BREADTH;
        auto load_weights = [&](int step) {
            const int tap = REVERSED ? TAPS - 1 - step % TAPS : step % TAPS;
            if (step < steps)
                Sums::load_weights(slabs + step % STAGES * Sums::SLAB, w, tap, step / TAPS * DEEP, output, depth,
                                   breadth);
        };
        auto load_pixels = [&](int part) {
            if (part * DEEP < depth)
                load_rows<Sums::THREADS, false>(halo + part % 2 * seen * ROW, x + part * DEEP, pixel - width - 1, seen,
                                                pixels, depth);
        };
        load_pixels(0);
        for (int step = 0; step < STAGES - 1; step++) {
            load_weights(step);
            cp_commit();
        }
        const TapsInside inside = {height, width, pixels};
        uint32 mask[4];
        for (int m = 0; m < 4; m++) mask[m] = inside(pixel + Sums::down() + m * 16 + lane % 16);
        Sums sums;

        FN_UNROLL(1)
        for (int step = 0; step < steps; step++) {
            cp_wait<STAGES - 2>();
            sync_threads();  // this step's weights are there, and nobody reads the last step's any more
            const int part = step / TAPS, tap = step % TAPS;
            load_weights(step + STAGES - 1);
            if (tap == 0) load_pixels(part + 1);
            cp_commit();
            int row[4];
            for (int m = 0; m < 4; m++) {
                const int p = Sums::down() + m * 16 + lane % 16 + tap / 3 * width + tap % 3;
                const int at = ROW + STAGES * Sums::SLAB + (part % 2 * seen + p) * ROW;
                row[m] = (mask[m] >> tap & 1 ? at : 0) + ((lane / 16 ^ (p & 7)) << 4);
            }
            sums.multiply(memory, row, slabs + step % STAGES * Sums::SLAB);
        }
        cp_wait<0>();
        sync_threads();
        finish(sums, slabs, pixel, output);
        sync_threads();
    }
}

template <int ACROSS, int WIDE, bool REVERSED>
void conv3x3(const T* x, const T* w, const Acc* b, T* y, int pixels, int height, int width, int depth, int breadth) {
    typedef TensorTile<ACROSS, WIDE, REVERSED> Sums;
    tiles3x3<ACROSS, WIDE, REVERSED>(x, w, pixels, height, width, depth, breadth,
                                     [=](Sums& sums, unsigned char* scratch, int pixel, int output) {
        sums.write(scratch, b, output, [=](int row) {
            return pixel + row < pixels ? y + int64(pixel + row) * breadth : nullptr;
        });
    });
}

struct alignas(8) Winners { uint8 entry[8]; };

// With ReLU and 2x2 windows behind it: y (pixels / 4, breadth), and which output of its window each is, with the rules
// of max_pool2d.cu. The width is even and divides 32, and the height is even: so a warp's 64 pixels are pairs of lines
// of an image or of several, and so 16 whole windows, which come one after the other in y.
template <int ACROSS, int WIDE>
void conv3x3_pooled(const T* x, const T* w, const Acc* b, T* y, uint8* winners, int pixels, int height, int width,
                    int depth, int breadth) {
    typedef TensorTile<ACROSS, WIDE, false> Sums;
    tiles3x3<ACROSS, WIDE, false>(x, w, pixels, height, width, depth, breadth,
                                  [=](Sums& sums, unsigned char* scratch, int pixel, int output) {
        unsigned char* out = sums.stage(scratch, b, output);
        const int across = width / 2, first = (pixel + Sums::down()) / 4;
        FN_UNROLL(1)
        for (int n = lane_id(); n < 16 * Sums::MANY; n += WARP) {
            const int window = n / Sums::MANY, chunk = n % Sums::MANY;
            if (first + window >= pixels / 4) break;
            const int line = window / across * 2 * width + window % across * 2;
            Pack best{ld128(Sums::staged(out, line, chunk))};
            Winners number = {};
            for (int tap = 1; tap < 4; tap++) {
                const Pack other{ld128(Sums::staged(out, line + tap / 2 * width + tap % 2, chunk))};
                for (int j = 0; j < 8; j++) {
                    const Acc v = load(&other.entry[j]), top = load(&best.entry[j]);
                    if (v > top || (v != v && top == top)) {
                        best.entry[j] = other.entry[j];
                        number.entry[j] = uint8(tap);
                    }
                }
            }
            for (int j = 0; j < 8; j++) {
                const Acc top = load(&best.entry[j]);
                if (!(top > 0)) number.entry[j] = 4;
                if (top <= 0) best.entry[j] = T{};
            }
            const int64 to = int64(first + window) * breadth + output + Sums::across() * WIDE + chunk * 8;
            st128(y + to, best.bits);
            *reinterpret_cast<Winners*>(winners + to) = number;
        }
    });
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

FN_KERNEL(128) conv3x3_pooled_256x64(const T* x, const T* w, const Acc* b, T* y, uint8* winners, int pixels, int height,
                                     int width, int depth, int breadth) {
    conv3x3_pooled<1, 64>(x, w, b, y, winners, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_pooled_128x128(const T* x, const T* w, const Acc* b, T* y, uint8* winners, int pixels,
                                      int height, int width, int depth, int breadth) {
    conv3x3_pooled<2, 64>(x, w, b, y, winners, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_pooled_128x64(const T* x, const T* w, const Acc* b, T* y, uint8* winners, int pixels, int height,
                                     int width, int depth, int breadth) {
    conv3x3_pooled<2, 32>(x, w, b, y, winners, pixels, height, width, depth, breadth);
}
