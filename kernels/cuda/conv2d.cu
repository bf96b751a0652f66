// Convolution as products of 64x64 tiles whose entries are gathered on load (implicit GEMM), in plain multiply-adds.
// Rows, columns and depth of the products, in each group of channels:
//
//   y   pixels of y                  channels out       taps x channels in
//   dx  pixels of x                  channels in        taps x channels out
//   dw  taps x channels in           channels out       pixels of y, cut into parts that conv2d_parts.cu adds up
#include "product.cuh"
#include "windows.cuh"

// Entries (i, k) of a tile into tile[k][i], zeros outside the matrix; neighbouring threads ask for neighbours along the
// depth, or along the rows.
template <bool ALONG_DEPTH, class F>
void gather_tile(Acc (&tile)[DEPTH][TILE + 1], F entry, int i0, int k0, int rows, int depth) {
    const int thread = int(threadIdx.x);
    FN_UNROLL(4)
    for (int n = 0; n < TILE * DEPTH / PRODUCT_THREADS; n++) {
        const int i = ALONG_DEPTH ? thread / DEPTH + n * (PRODUCT_THREADS / DEPTH) : thread % TILE;
        const int k = ALONG_DEPTH ? thread % DEPTH : thread / TILE + n * (PRODUCT_THREADS / TILE);
        tile[k][i] = i0 + i < rows && k0 + k < depth ? entry(i0 + i, k0 + k) : Acc(0);
    }
}

// Which tile a block works on: first row and column, group, part of the depth.
struct Tile { int row, column, group, part; };

// finish(i, j, tile, sum over k of a(i, k) b(j, k)) for all i < rows, j < columns, in every group and every part of the
// depth, of `chunk` each.
template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH, class A, class B, class F>
void gathered_product(A a, B b, F finish, int rows, int columns, int depth, int groups, int chunk) {
    FN_SHARED(Acc, a_tile, [DEPTH][TILE + 1]);
    FN_SHARED(Acc, b_tile, [DEPTH][TILE + 1]);
    const int tx = int(threadIdx.x) % 16, ty = int(threadIdx.x) / 16;
    const int across = (columns + TILE - 1) / TILE, down = (rows + TILE - 1) / TILE;
    const int parts = (depth + chunk - 1) / chunk;
    const int64 tiles = int64(across) * down * groups * parts;
    for (int64 number = blockIdx.x; number < tiles; number += gridDim.x) {
        // Tiles of the same rows come one after the other, so that what they gather is still in the cache.
        const int64 above = number / across, beside = above / down;
        const Tile tile = {int(above % down) * TILE, int(number % across) * TILE, int(beside % groups),
                           int(beside / groups)};
        const int end = int(smaller(depth, int64(tile.part + 1) * chunk));
        Acc sum[4][4] = {};
        for (int k0 = tile.part * chunk; k0 < end; k0 += DEPTH) {
            auto left = [&](int i, int k) { return a(tile, i, k); };
            auto right = [&](int j, int k) { return b(tile, j, k); };
            gather_tile<A_ALONG_DEPTH>(a_tile, left, tile.row, k0, rows, end);
            gather_tile<B_ALONG_DEPTH>(b_tile, right, tile.column, k0, columns, end);
            sync_threads();
            multiply_tiles(sum, a_tile, b_tile);
            sync_threads();
        }
        for (int r = 0; r < 4; r++)
            for (int s = 0; s < 4; s++) {
                const int i = tile.row + ty + 16 * r, j = tile.column + tx + 16 * s;
                if (i < rows && j < columns) finish(i, j, tile, sum[r][s]);
            }
    }
}

// The tap (i, j) and the channel that an entry of the depth stands for.
struct Entry { int i, j, channel; };
struct Taps {
    Divider channels, width;
    Entry operator()(int k) const {
        const int tap = channels(k), i = width(tap);
        return {i, tap - i * int(width.by), k - tap * int(channels.by)};
    }
};

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
