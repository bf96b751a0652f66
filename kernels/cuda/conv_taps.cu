// Convolution of any kernel, stride, padding and dilation on tensor cores, tap by tap: the pixels that a tap sees are
// gathered into shared memory by asynchronous copies, zeros where they lie outside. x (N, height, width, channels), w
// (taps, channels, outputs), y (N, out_h, out_w, outputs) in T; channels and outputs in multiples of 64; no groups.
//
// Every tap loads its pixels anew, so that the L2 cache is the limit: 43 FLOP a byte (1.05 MFLOP for 16 KB of pixels
// and 8 KB of weights). From shared memory 21 FLOP a byte. Predictions: no card has run this.
#include "tensor.cuh"

FN_TYPES(half, bf16);

constexpr int MOST_TAPS = 64;
constexpr int STAGES = 3;  // taps of 64 channels in shared memory: one is used, the others are on their way

// to (N, extent_h, extent_w, breadth) = b + the sum over taps of what `find` (Seen or Sent) sees of x, times w.
//
// With a stride, only some taps reach an input pixel, and they are the same for all pixels whose row and column leave
// the same remainders. So for dx a tile is of pixels of one such class (of classes_h x classes_w), and has these taps
// alone.
template <bool REVERSED, class F>
void conv_taps(F find, const T* x, const T* w, const Acc* b, T* to, const Windows& at, int images, int extent_h,
               int extent_w, int classes_h, int classes_w, int depth, int breadth) {
    typedef TensorTile<2, 32, REVERSED> Sums;
    constexpr int STAGE = PIXEL_BYTES + Sums::SLAB;
    FN_DYNAMIC(unsigned char, memory);
    FN_SHARED(Pixel, places, [PIXELS]);
    FN_SHARED(uint8, taps, [MOST_TAPS]);
    FN_SHARED(int, taps_count, [1]);
    const int lane = lane_id(), columns = breadth / Sums::BREADTH;
    for (int number = int(blockIdx.x);; number += int(gridDim.x)) {
        int tile = number, kind = 0, a = 0, e = 0, high = 0, wide = 0;  // the class, its first row and column, its size
        for (; kind < classes_h * classes_w; kind++) {
            a = kind / classes_w;
            e = kind % classes_w;
            high = (extent_h - a + classes_h - 1) / classes_h;  // at least 0, as a < classes_h
            wide = (extent_w - e + classes_w - 1) / classes_w;
            const int tiles = (images * high * wide + PIXELS - 1) / PIXELS * columns;
            if (tile < tiles) break;
            tile -= tiles;
        }
        if (kind == classes_h * classes_w) return;
        const int rows = images * high * wide, output = tile % columns * Sums::BREADTH;
        const int mine = tile / columns * PIXELS + int(threadIdx.x);
        const Pixel place = Places{high, wide}(mine);
        places[threadIdx.x] = {mine < rows ? place.image : -1, place.row * classes_h + a, place.column * classes_w + e};
        if (threadIdx.x == 0) {
            int many = 0;
            for (int i = 0; i < at.kernel_h; i++)
                for (int j = 0; j < at.kernel_w; j++)
                    if ((a + at.pad_h - i * at.dilation_h) % classes_h == 0
                        && (e + at.pad_w - j * at.dilation_w) % classes_w == 0)
                        taps[many++] = uint8(i * at.kernel_w + j);
            taps_count[0] = many;
        }
        sync_threads();
        const int many = taps_count[0], steps = depth / DEEP * many;
        auto load_step = [&](int step) {
            if (step >= steps) return;
            const int tap = taps[step % many], channel = step / many * DEEP;
            const int i = tap / at.kernel_w, j = tap % at.kernel_w;
            unsigned char* stage = memory + step % STAGES * STAGE;
            gather_rows(stage, channel, x, [&](int row) {
                return places[row].image < 0 ? nullptr : find(places[row], i, j);
            });
            Sums::load_weights(stage + PIXEL_BYTES, w, tap, channel, output, depth, breadth);
        };
        for (int step = 0; step < STAGES - 1; step++) {
            load_step(step);
            cp_commit();
        }
        Sums sums;
        FN_UNROLL(1)
        for (int step = 0; step < steps; step++) {
            cp_wait<STAGES - 2>();
            sync_threads();  // this step's rows are there, and nobody reads the last step's any more
            load_step(step + STAGES - 1);
            cp_commit();
            const int stage = step % STAGES * STAGE;
            int row[4];
            for (int m = 0; m < 4; m++) row[m] = stage + placed(Sums::down() + m * 16 + lane % 16, lane / 16);
            sums.multiply(memory, row, memory + stage + PIXEL_BYTES);
        }
        cp_wait<0>();
        sync_threads();
        sums.round(memory, b, output);
        sync_warp();
        Sums::write(memory, output, [&](int row) -> T* {
            const Pixel p = places[row];
            return p.image < 0 ? nullptr : to + ((int64(p.image) * extent_h + p.row) * extent_w + p.column) * breadth;
        }, [](Pack&, T*) {});
        sync_threads();
    }
}

// Three blocks a multiprocessor, by shared memory (74 KB); by registers (at most 168) as well.
FN_KERNEL(128) conv_taps_forward(const T* x, const T* w, const Acc* b, T* y, int images, int height, int width,
                                 int channels, int out_h, int out_w, int outputs, int kernel_h, int kernel_w,
                                 int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w,
                                 int groups) {
    const Windows at = {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                        pad_h, pad_w, dilation_h, dilation_w, groups};
    conv_taps<false>(Seen{x, at}, x, w, b, y, at, images, out_h, out_w, 1, 1, channels, outputs);
}

FN_KERNEL(128) conv_taps_dx(const T* dy, const T* w, T* dx, int images, int height, int width, int channels, int out_h,
                            int out_w, int outputs, int kernel_h, int kernel_w, int stride_h, int stride_w, int pad_h,
                            int pad_w, int dilation_h, int dilation_w, int groups) {
    const Windows at = {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                        pad_h, pad_w, dilation_h, dilation_w, groups};
    conv_taps<true>(Sent{dy, at}, dy, w, nullptr, dx, at, images, height, width, stride_h, stride_w, outputs, channels);
}

// The weights in 16 bits.
FN_KERNEL(256) conv_taps_narrowed(const Acc* w, T* narrowed, int64 size) {
    for (int64 i = first_thread(); i < size; i += all_threads()) store(narrowed + i, w[i]);
}
