// Convolution as products of 64x64 tiles whose entries are gathered on load (implicit GEMM), in plain multiply-adds.
// Rows, columns and depth of the products, in each group of channels:
//
//   y   pixels of y                  channels out       taps x channels in
//   dx  pixels of x                  channels in        taps x channels out
//   dw  taps x channels in           channels out       pixels of y, cut into parts that conv2d_parts.cu adds up
#include "gathered.cuh"

FN_KERNEL(256) conv2d_forward(const T* x, const Acc* w, const Acc* b, T* y, int images, int height, int width,
                              int channels, int out_h, int out_w, int outputs, int kernel_h, int kernel_w, int stride_h,
                              int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int groups) {
    const Windows at = {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                        pad_h, pad_w, dilation_h, dilation_w, groups};
    const Places place = {out_h, out_w};
    const Taps taps = {at.depth(), kernel_w};
    const Seen seen = {x, at};
    const int depth = kernel_h * kernel_w * at.depth(), breadth = at.breadth();
    gathered_product<true, false>(
        [&](const Tile& tile, int pixel, int k) {
            const Entry e = taps(k);
            return entry_of(seen(place(pixel), e.i, e.j), tile.group * taps.channels.by + e.channel);
        },
        [&](const Tile& tile, int j, int k) { return w[int64(k) * outputs + tile.group * breadth + j]; },
        [&](int pixel, int j, const Tile& tile, Acc sum) {
            const int k = tile.group * breadth + j;
            store(y + int64(pixel) * outputs + k, b ? sum + b[k] : sum);
        },
        images * out_h * out_w, breadth, depth, groups, depth);
}

FN_KERNEL(256) conv2d_dx(const T* dy, const Acc* w, T* dx, int images, int height, int width, int channels, int out_h,
                         int out_w, int outputs, int kernel_h, int kernel_w, int stride_h, int stride_w, int pad_h,
                         int pad_w, int dilation_h, int dilation_w, int groups) {
    const Windows at = {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                        pad_h, pad_w, dilation_h, dilation_w, groups};
    const Places place = {height, width};
    const Taps taps = {at.breadth(), kernel_w};
    const Sent sent = {dy, at};
    const int depth = kernel_h * kernel_w * at.breadth(), breadth = at.breadth(), inner = at.depth();
    gathered_product<true, true>(
        [&](const Tile& tile, int pixel, int k) {
            const Entry e = taps(k);
            return entry_of(sent(place(pixel), e.i, e.j), tile.group * breadth + e.channel);
        },
        [&](const Tile& tile, int j, int k) {
            const int tap = taps.channels(k);
            return w[(int64(tap) * inner + j) * outputs + tile.group * breadth + k - tap * breadth];
        },
        [&](int pixel, int j, const Tile& tile, Acc sum) {
            store(dx + int64(pixel) * channels + tile.group * inner + j, sum);
        },
        images * height * width, inner, depth, groups, depth);
}

// parts (P, taps, channels in, outputs): part p is the sum over pixels p chunk to (p + 1) chunk of y.
FN_KERNEL(256) conv2d_dw(const T* x, const T* dy, Acc* parts, int chunk, int images, int height, int width,
                         int channels, int out_h, int out_w, int outputs, int kernel_h, int kernel_w, int stride_h,
                         int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int groups) {
    const Windows at = {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                        pad_h, pad_w, dilation_h, dilation_w, groups};
    const Places place = {out_h, out_w};
    const Taps taps = {at.depth(), kernel_w};
    const Seen seen = {x, at};
    const int rows = kernel_h * kernel_w * at.depth(), breadth = at.breadth();
    gathered_product<false, false>(
        [&](const Tile& tile, int i, int pixel) {
            const Entry e = taps(i);
            return entry_of(seen(place(pixel), e.i, e.j), tile.group * taps.channels.by + e.channel);
        },
        [&](const Tile& tile, int j, int pixel) {
            return Acc(load(dy + int64(pixel) * outputs + tile.group * breadth + j));
        },
        [&](int i, int j, const Tile& tile, Acc sum) {
            parts[(int64(tile.part) * rows + i) * outputs + tile.group * breadth + j] = sum;
        },
        rows, breadth, images * out_h * out_w, groups, chunk);
}
