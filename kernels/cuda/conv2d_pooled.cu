// Convolution, ReLU and max pooling in one pass, in plain multiply-adds, for windows of up to four of the convolution's
// outputs that do not overlap: a thread has the sums of all outputs of a window, and stores the largest alone.
//
// y (images, places_h, places_w, outputs), and which tap of the window won, in a byte, with the rules of max_pool2d.cu:
// of equal outputs the first, a NaN over all but an earlier one; where the largest is not above 0, the number of taps.
#include "gathered.cuh"

constexpr int MOST = 4;  // outputs of a window

// Where the windows of the pooling stand on the convolution's outputs.
struct Pool {
    int window_h, window_w, stride_h, stride_w, pad_h, pad_w, out_h, out_w;
    int taps() const { return window_h * window_w; }
    // Whether tap number `tap` of a window sees an output, which `seen` then is.
    bool operator()(Pixel window, int tap, Pixel& seen) const {
        const int i = tap / window_w;
        seen = {window.image, window.row * stride_h - pad_h + i, window.column * stride_w - pad_w + tap - i * window_w};
        return tap < taps() && uint32(seen.row) < uint32(out_h) && uint32(seen.column) < uint32(out_w);
    }
};

// The outputs are rounded as if they were stored, so that those win which would win there.
inline void store_largest(const Pool& pool, Pixel window, const Acc (&output)[MOST], T* y, uint8* winner) {
    Acc best = -infinity();
    int number = -1;  // so that the first output wins whatever it is
    for (int tap = 0; tap < MOST; tap++) {
        Pixel seen;
        T stored;
        store(&stored, output[tap]);
        const Acc v = load(&stored);
        if (pool(window, tap, seen) && (number < 0 || v > best || (v != v && best == best))) {
            best = v;
            number = tap;
        }
    }
    store(y, best <= 0 ? Acc(0) : best);
    *winner = uint8(best > 0 ? number : pool.taps());
}

// Where groups have few channels: a thread per entry of y. Neighbouring threads are neighbouring channels, and each
// weight is read once for all outputs of the window.
FN_KERNEL(256) conv2d_pooled_direct(const T* x, const Acc* w, const Acc* b, T* y, uint8* winners, int images,
                                    int height, int width, int channels, int out_h, int out_w, int outputs,
                                    int kernel_h, int kernel_w, int stride_h, int stride_w, int pad_h, int pad_w,
                                    int dilation_h, int dilation_w, int groups, int window_h, int window_w,
                                    int pool_stride_h, int pool_stride_w, int pool_pad_h, int pool_pad_w, int places_h,
                                    int places_w) {
    const Windows at = {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                        pad_h, pad_w, dilation_h, dilation_w, groups};
    const Pool pool = {window_h, window_w, pool_stride_h, pool_stride_w, pool_pad_h, pool_pad_w, out_h, out_w};
    const Places place = {places_h, places_w};
    const int depth = at.depth();
    const Divider breadth = at.breadth();
    constexpr int OUTSIDE = -(1 << 30);
    for_each_channel(images * places_h * places_w, outputs, [&](int number, int k) {
        const Pixel window = place(number);
        const T* image = x + int64(window.image) * height * width * channels + breadth(k) * depth;
        int top[MOST], left[MOST];  // what the kernel's first tap sees
        for (int m = 0; m < MOST; m++) {
            Pixel output;
            const bool exists = pool(window, m, output);
            top[m] = exists ? output.row * stride_h - pad_h : OUTSIDE;
            left[m] = output.column * stride_w - pad_w;
        }
        const Acc* tap = w + k;
        Acc sum[MOST] = {};
        FN_UNROLL(1)  // here and below: by more, as the compiler would, doubles spill
        for (int i = 0; i < kernel_h; i++)
            FN_UNROLL(1)
            for (int j = 0; j < kernel_w; j++, tap += int64(depth) * outputs) {
                int pixel[MOST];  // where it begins in the image, which has less than 2^31 entries
                for (int m = 0; m < MOST; m++) {
                    const int row = top[m] + i * dilation_h, column = left[m] + j * dilation_w;
                    const bool inside = uint32(row) < uint32(height) && uint32(column) < uint32(width);
                    pixel[m] = inside ? (row * width + column) * channels : -1;
                }
                FN_UNROLL(1)
                for (int c = 0; c < depth; c++) {
                    const Acc weight = tap[int64(c) * outputs];
                    for (int m = 0; m < MOST; m++)
                        if (pixel[m] >= 0) sum[m] += load(image + pixel[m] + c) * weight;
                }
            }
        for (int m = 0; m < MOST; m++) sum[m] = b ? sum[m] + b[k] : sum[m];
        const int64 to = int64(number) * outputs + k;
        store_largest(pool, window, sum, y + to, winners + to);
    });
}

// Otherwise: products of 64x64 tiles as in conv2d.cu, with 16 windows a tile. Tap r of its window p is row 16 r + p, so
// that a thread's four rows are one window.
FN_KERNEL(256) conv2d_pooled_tiles(const T* x, const Acc* w, const Acc* b, T* y, uint8* winners, int images, int height,
                                   int width, int channels, int out_h, int out_w, int outputs, int kernel_h,
                                   int kernel_w, int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h,
                                   int dilation_w, int groups, int window_h, int window_w, int pool_stride_h,
                                   int pool_stride_w, int pool_pad_h, int pool_pad_w, int places_h, int places_w) {
    const Windows at = {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                        pad_h, pad_w, dilation_h, dilation_w, groups};
    const Pool pool = {window_h, window_w, pool_stride_h, pool_stride_w, pool_pad_h, pool_pad_w, out_h, out_w};
    const Places place = {places_h, places_w};
    const Taps taps = {at.depth(), kernel_w};
    const Seen seen = {x, at};
    const int depth = kernel_h * kernel_w * at.depth(), breadth = at.breadth(), windows = images * places_h * places_w;
    constexpr int EACH = TILE / MOST;  // windows of a tile
    gathered_sums<true, false>(
        [&](const Tile& tile, int i, int k) {
            const int window = i / TILE * EACH + i % EACH;
            Pixel output;
            if (window >= windows || !pool(place(window), i / EACH % MOST, output)) return Acc(0);
            const Entry e = taps(k);
            return entry_of(seen(output, e.i, e.j), tile.group * taps.channels.by + e.channel);
        },
        [&](const Tile& tile, int j, int k) { return w[int64(k) * outputs + tile.group * breadth + j]; },
        [&](const Tile& tile, const Acc (&sum)[4][4]) {
            const int window = tile.row / MOST + int(threadIdx.x) / EACH;
            for (int s = 0; s < 4; s++) {
                const int j = tile.column + int(threadIdx.x) % EACH + EACH * s;
                if (window >= windows || j >= breadth) continue;
                const int k = tile.group * breadth + j;
                const int64 to = int64(window) * outputs + k;
                Acc output[MOST];
                for (int r = 0; r < MOST; r++) output[r] = b ? sum[r][s] + b[k] : sum[r][s];
                store_largest(pool, place(window), output, y + to, winners + to);
            }
        },
        (windows + EACH - 1) / EACH * TILE, breadth, depth, groups, depth);
}
