// The first convolution, which reads the images of a data set (`fastnet.ops.augment_conv2d`): cuts of the samples, and
// plain multiply-adds of any kernel, stride, padding and dilation. No augmented batch is stored.
#include "bands.cuh"

// cuts (n, 4) for bands.cuh, by the random words of each sample.
FN_KERNEL(128) augment_conv2d_cuts(const int64* indices, const int64* samples, const int64* epoch, int* cuts, int n,
                                   int64 stored, uint32 key0, uint32 key1, int pad, int horizontal, int vertical) {
    for (int b = int(first_thread()); b < n; b += int(all_threads())) {
        const Cut cut = Drawn(samples[b], uint32(epoch[0]), key0, key1).cut(nullptr, pad, horizontal, vertical);
        const bool known = indices[b] >= 0 && indices[b] < stored;
        cuts[CUT * b] = known ? int(indices[b]) : -1;
        cuts[CUT * b + 1] = cut.top;
        cuts[CUT * b + 2] = cut.left;
        cuts[CUT * b + 3] = cut.mirrored + 2 * cut.turned;
    }
}

constexpr int TOGETHER = 4;  // pixels that a thread computes an output of, for one read of the weights

// A block takes a band at a time; neighbouring threads are neighbouring outputs. The order of a sum is that of the taps.
FN_KERNEL(256) augment_conv2d_forward(const uint8* images, const int* cuts, const Acc* mean, const Acc* scale,
                                      const Acc* w, const Acc* b, T* y, int64 stored, int band, int n, int height,
                                      int width, int channels, int out_h, int out_w, int outputs, int kernel_h,
                                      int kernel_w, int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h,
                                      int dilation_w, int groups) {
    FN_DYNAMIC(T, x);
    const Bands bands = {{images, mean, scale, stored, height, width, channels}, cuts,
                         {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                          pad_h, pad_w, dilation_h, dilation_w, groups}, n, band};
    const Places place = {out_h, out_w};
    const Divider across = outputs;
    const int line = bands.line();
    for (int number = int(blockIdx.x); number < bands.count(); number += int(gridDim.x)) {
        bands.load_band(x, number);
        sync_threads();
        const int pixels = bands.pixels_of(number);
        T* to = y + bands.first_pixel(number) * outputs;
        for (int item = int(threadIdx.x); item < (pixels + TOGETHER - 1) / TOGETHER * outputs; item += 256) {
            const int group = across(item), output = item - group * outputs, pixel = group * TOGETHER;
            int window[TOGETHER];
            FN_UNROLL(TOGETHER)
            for (int r = 0; r < TOGETHER; r++) window[r] = bands.window(place(int(smaller(pixel + r, pixels - 1))));
            Acc sum[TOGETHER] = {};
            const Acc* weight = w + output;
            FN_UNROLL(1)
            for (int i = 0; i < kernel_h; i++)
                FN_UNROLL(1)
                for (int j = 0; j < kernel_w; j++) {
                    const T* tap = x + i * dilation_h * line + j * dilation_w * channels;
                    FN_UNROLL(1)
                    for (int c = 0; c < channels; c++, tap++, weight += outputs) {
                        const Acc factor = *weight;
                        FN_UNROLL(TOGETHER)
                        for (int r = 0; r < TOGETHER; r++) sum[r] += load(tap + window[r]) * factor;
                    }
                }
            FN_UNROLL(TOGETHER)
            for (int r = 0; r < TOGETHER; r++)
                if (pixel + r < pixels)
                    store(to + int64(pixel + r) * outputs + output, b ? sum[r] + b[output] : sum[r]);
        }
        sync_threads();
    }
}

constexpr int ENTRIES = 8;  // rows of dw that a thread sums for one read of dy

// parts (P, taps x channels, outputs): part p is the sum over bands p chunk to (p + 1) chunk. Where a block has more
// threads than there are sums, several share one, each taking some of the pixels, and are added in their order.
FN_KERNEL(256) augment_conv2d_dw(const uint8* images, const int* cuts, const Acc* mean, const Acc* scale, const T* dy,
                                 Acc* parts, int chunk, int64 stored, int band, int n, int height, int width,
                                 int channels, int out_h, int out_w, int outputs, int kernel_h, int kernel_w,
                                 int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w,
                                 int groups) {
    FN_DYNAMIC(T, x);
    FN_SHARED(Acc, sums, [256][ENTRIES]);
    const Bands bands = {{images, mean, scale, stored, height, width, channels}, cuts,
                         {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                          pad_h, pad_w, dilation_h, dilation_w, groups}, n, band};
    const Places place = {out_h, out_w};
    const int depth = bands.depth(), items = (depth + ENTRIES - 1) / ENTRIES * outputs, thread = int(threadIdx.x);
    const int ways = items < 256 ? 256 / items : 1, way = items < 256 ? thread / items : 0;
    for (int part = int(blockIdx.x); part * chunk < bands.count(); part += int(gridDim.x)) {
        const int end = int(smaller(bands.count(), int64(part + 1) * chunk));
        for (int first = 0; first < items; first += 256) {
            const int item = first + (items < 256 ? thread % items : thread), output = item % outputs;
            const int entry = item / outputs * ENTRIES;
            const bool mine = item < items && way < ways;
            int offset[ENTRIES];
            FN_UNROLL(ENTRIES)
            for (int e = 0; e < ENTRIES; e++) offset[e] = entry + e < depth ? bands.offset(entry + e) : 0;
            Acc sum[ENTRIES] = {};
            for (int number = part * chunk; number < end; number++) {
                bands.load_band(x, number);
                sync_threads();
                const T* from = dy + bands.first_pixel(number) * outputs + output;
                FN_UNROLL(1)
                for (int pixel = way; mine && pixel < bands.pixels_of(number); pixel += ways) {
                    const T* window = x + bands.window(place(pixel));
                    const Acc d = load(from + int64(pixel) * outputs);
                    FN_UNROLL(ENTRIES)
                    for (int e = 0; e < ENTRIES; e++) sum[e] += load(window + offset[e]) * d;
                }
                sync_threads();
            }
            FN_UNROLL(ENTRIES)
            for (int e = 0; e < ENTRIES; e++) sums[thread][e] = sum[e];
            sync_threads();
            for (int e = 0; mine && way == 0 && e < ENTRIES && entry + e < depth; e++) {
                Acc total = sums[thread][e];
                for (int r = 1; r < ways; r++) total += sums[thread + r * items][e];
                parts[(int64(part) * depth + entry + e) * outputs + output] = total;
            }
            sync_threads();
        }
    }
}
