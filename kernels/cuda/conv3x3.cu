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
//
// Passes over memory that stand beside the convolutions of a residual block are done on the way (Forward, Backward). What
// x goes through first is done to its pixels in shared memory, so once for all nine taps; padding, which is zeros put in
// the place of a row, stays zero. What is to be summed up, and done to y, is done when y leaves.
#include "halo.cuh"

FN_TYPES(half, bf16);

constexpr int STAGES = 3;  // weights of so many taps are in shared memory: one is used, the others are on their way
constexpr int MANY = Pack::many;

// The convolution of x, or of max(0, batch normalisation of x) if `found` and `beta` are given. If `part` (2, breadth,
// tiles) is, it gets of each tile's pixels the sums of y - k and of its square, where k is their first one: what
// `batch_norm_sums` makes of chunks of so many rows.
struct Forward {
    static constexpr bool REVERSED = false;
    const Acc *found, *beta;
    Acc* part;

    template <class Sums, class F>
    void write(const unsigned char* scratch, int, int output, int, F target, Acc (&total)[2][MANY]) const {
        if (!part) return Sums::write(scratch, output, target, [](Pack&, T*) {});
        Acc origin[MANY];
        unpack(origin, Sums::first_row(scratch));
        Sums::write(scratch, output, target, [&](const Pack& pack, T*) {
            Acc v[MANY];
            unpack(v, pack);
            for (int j = 0; j < MANY; j++) {
                v[j] -= origin[j];
                total[0][j] += v[j];
                total[1][j] += v[j] * v[j];
            }
        });
    }
};

// The gradient: x is dy and y is dx, to which `beside` is added if that is given. Not so with `part`: then x of the
// convolution was max(0, batch normalisation of `beside`), y passes where that is positive, and part (2, breadth, tiles)
// gets of each tile's pixels the sums of y and of y (beside - mean), which `batch_norm_gradient_sums` makes of chunks.
struct Backward {
    static constexpr bool REVERSED = true;
    static constexpr const Acc* found = nullptr;  // nothing is done to dy on its way in
    T* y;
    const T* beside;
    const Acc *of_beside, *beta;
    Acc* part;

    template <class Sums, class F>
    void write(const unsigned char* scratch, int, int output, int breadth, F target, Acc (&total)[2][MANY]) const {
        if (!beside) return Sums::write(scratch, output, target, [](Pack&, T*) {});
        if (!part)
            return Sums::write(scratch, output, target, [&](Pack& pack, T* to) {
                Acc g[MANY], v[MANY];
                unpack(g, pack);
                read(v, beside + (to - y));
                for (int j = 0; j < MANY; j++) g[j] += v[j];
                pack = packed(g);
            });
        const NormReLU<MANY> norm(of_beside, beta, breadth, Sums::column(output));
        Sums::write(scratch, output, target, [&](Pack& pack, T* to) {
            Acc g[MANY], v[MANY];
            unpack(g, pack);
            read(v, beside + (to - y));
            norm.back(g, v);
            pack = packed(g);
            for (int j = 0; j < MANY; j++) {
                total[0][j] += g[j];
                total[1][j] += g[j] * v[j];
            }
        });
    }
};

struct alignas(8) Winners { uint8 entry[8]; };

// With ReLU and 2x2 windows behind it: y (pixels / 4, breadth), and which output of its window each is, with the rules
// of max_pool2d.cu. The width is even and divides 32, and the height is even: so a warp's 64 pixels are pairs of lines
// of an image or of several, and so 16 whole windows, which come one after the other in y.
struct Pooled {
    static constexpr bool REVERSED = false;
    static constexpr const Acc *found = nullptr, *beta = nullptr;
    static constexpr Acc* part = nullptr;
    T* y;
    uint8* winners;
    int pixels, width;

    template <class Sums, class F>
    void write(const unsigned char* scratch, int pixel, int output, int breadth, F, Acc (&)[2][MANY]) const {
        const unsigned char* out = scratch + warp_id() * 64 * Sums::LINE;
        const int across = width / 2, first = (pixel + Sums::down()) / 4;
        FN_UNROLL(1)
        for (int n = lane_id(); n < 16 * Sums::MANY; n += WARP) {
            const int window = n / Sums::MANY, chunk = n % Sums::MANY;
            if (first + window >= pixels / 4) break;
            const int line = window / across * 2 * width + window % across * 2;
            Pack best{ld128(out + Sums::staged(line, chunk))};
            Winners number = {};
            for (int tap = 1; tap < 4; tap++) {
                const Pack other{ld128(out + Sums::staged(line + tap / 2 * width + tap % 2, chunk))};
                for (int j = 0; j < MANY; j++) {
                    const Acc v = load(&other.entry[j]), top = load(&best.entry[j]);
                    if (v > top || (v != v && top == top)) {
                        best.entry[j] = other.entry[j];
                        number.entry[j] = uint8(tap);
                    }
                }
            }
            for (int j = 0; j < MANY; j++) {
                const Acc top = load(&best.entry[j]);
                if (!(top > 0)) number.entry[j] = 4;
                if (top <= 0) best.entry[j] = T{};
            }
            const int64 to = int64(first + window) * breadth + Sums::column(output);
            st128(y + to, best.bits);
            *reinterpret_cast<Winners*>(winners + to) = number;
        }
    }
};

// Shared memory: a row of zeros, the weights, the pixels of 64 channels, and those of the next 64 where there are more.
template <int ACROSS, int WIDE, class Way>
void conv3x3(const T* x, const T* w, const Acc* b, T* y, Way way, int pixels, int height, int width, int depth,
             int breadth) {
    constexpr bool REVERSED = Way::REVERSED;
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
            const int part = step / TAPS, tap = step % TAPS;
            cp_wait<STAGES - 2>();
            if (tap == 0 && way.found) {
                sync_threads();
                const NormReLU<2> norm(way.found, way.beta, depth, part * DEEP + 2 * lane);
                change_rows<Sums::THREADS>(halo + part % 2 * seen * ROW, pixel - width - 1, seen, pixels, norm);
            }
            sync_threads();  // this step's weights are there, and nobody reads the last step's any more
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
        sums.round(slabs, b, output);
        sync_threads();
        Acc total[2][MANY] = {};
        way.template write<Sums>(slabs, pixel, output, breadth, [&](int row) {
            return pixel + row < pixels ? y + int64(pixel + row) * breadth : nullptr;
        }, total);
        if (way.part)
            Sums::add_columns(total, reinterpret_cast<Acc*>(slabs + Sums::ROWS * Sums::BREADTH * 2),
                              [&](int s, int c, Acc sum) {
                                  way.part[(int64(s) * breadth + output + c) * rows + tile / columns] = sum;
                              });
        sync_threads();
    }
}

// Two blocks a multiprocessor, by registers (at most 255) and by shared memory; three of the smallest tile.
FN_KERNEL(128) conv3x3_forward_256x64(const T* x, const T* w, const Acc* b, T* y, const Acc* found, const Acc* beta,
                                      Acc* part, int pixels, int height, int width, int depth, int breadth) {
    conv3x3<1, 64>(x, w, b, y, Forward{found, beta, part}, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_forward_128x128(const T* x, const T* w, const Acc* b, T* y, const Acc* found, const Acc* beta,
                                       Acc* part, int pixels, int height, int width, int depth, int breadth) {
    conv3x3<2, 64>(x, w, b, y, Forward{found, beta, part}, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_forward_128x64(const T* x, const T* w, const Acc* b, T* y, const Acc* found, const Acc* beta,
                                      Acc* part, int pixels, int height, int width, int depth, int breadth) {
    conv3x3<2, 32>(x, w, b, y, Forward{found, beta, part}, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_dx_256x64(const T* x, const T* w, T* y, const T* beside, const Acc* found, const Acc* beta,
                                 Acc* part, int pixels, int height, int width, int depth, int breadth) {
    conv3x3<1, 64>(x, w, nullptr, y, Backward{y, beside, found, beta, part}, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_dx_128x128(const T* x, const T* w, T* y, const T* beside, const Acc* found, const Acc* beta,
                                  Acc* part, int pixels, int height, int width, int depth, int breadth) {
    conv3x3<2, 64>(x, w, nullptr, y, Backward{y, beside, found, beta, part}, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_dx_128x64(const T* x, const T* w, T* y, const T* beside, const Acc* found, const Acc* beta,
                                 Acc* part, int pixels, int height, int width, int depth, int breadth) {
    conv3x3<2, 32>(x, w, nullptr, y, Backward{y, beside, found, beta, part}, pixels, height, width, depth, breadth);
}

FN_KERNEL(128) conv3x3_pooled_256x64(const T* x, const T* w, const Acc* b, T* y, uint8* winners, int pixels, int height,
                                     int width, int depth, int breadth) {
    conv3x3<1, 64>(x, w, b, y, Pooled{y, winners, pixels, width}, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_pooled_128x128(const T* x, const T* w, const Acc* b, T* y, uint8* winners, int pixels,
                                      int height, int width, int depth, int breadth) {
    conv3x3<2, 64>(x, w, b, y, Pooled{y, winners, pixels, width}, pixels, height, width, depth, breadth);
}
FN_KERNEL(128) conv3x3_pooled_128x64(const T* x, const T* w, const Acc* b, T* y, uint8* winners, int pixels, int height,
                                     int width, int depth, int breadth) {
    conv3x3<2, 32>(x, w, b, y, Pooled{y, winners, pixels, width}, pixels, height, width, depth, breadth);
}
