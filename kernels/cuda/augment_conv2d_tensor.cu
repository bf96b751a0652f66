// The first convolution on tensor cores, where a window has at most 32 entries (3x3 of 3 channels has 27): fragments of
// the windows come straight from the standardized pixels in shared memory. Outputs in multiples of 8.
//
// A block's forward pass reads 3 bytes a pixel and writes 128 (64 outputs in 16 bits), so that memory is the limit.
// Shared memory: 16 reads of two bytes a lane for 16 windows, and 4 KB of outputs on their way. Predictions: no card has
// run this.
#include "bands.cuh"
#include "tensor.cuh"

FN_TYPES(half, bf16);

constexpr int WIDE = 64, WARPS = 8, TILE_ROWS = 16, SLAB = TILE_ROWS * ROW;

inline uint32 two(T low, T high) { return low.bits | uint32(high.bits) << 16; }
inline T narrowed(Acc x) {
    T y;
    store(&y, x);
    return y;
}

// A block takes bands in turn, all for 64 outputs before the next 64; a warp 16 pixels at a time. Shared memory: a slab
// for each warp's outputs, and the band's pixels.
FN_KERNEL(256) augment_conv2d_tensor_forward(const uint8* images, const int* cuts, const Acc* mean, const Acc* scale,
                                             const Acc* w, const Acc* b, T* y, int64 stored, int band, int n,
                                             int height, int width, int channels, int out_h, int out_w, int outputs,
                                             int kernel_h, int kernel_w, int stride_h, int stride_w, int pad_h,
                                             int pad_w, int dilation_h, int dilation_w, int groups) {
    FN_DYNAMIC(unsigned char, memory);
    const Bands bands = {{images, mean, scale, stored, height, width, channels}, cuts,
                         {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                          pad_h, pad_w, dilation_h, dilation_w, groups}, n, band};
    const Places place = {out_h, out_w};
    const int lane = lane_id(), g = lane / 4, t = lane % 4 * 2, depth = bands.depth(), count = bands.count();
    unsigned char* slab = memory + warp_id() * SLAB;
    T* x = reinterpret_cast<T*>(memory + WARPS * SLAB);
    // Of the lane's pairs of entries of a window: where they lie, and which of them there are.
    int offset[8];
    uint32 exists[4];
    for (int e = 0; e < 8; e++) {
        const int k = t + e % 2 + e / 2 * 8;
        offset[e] = k < depth ? bands.offset(k) : 0;
        exists[e / 2] = (e % 2 ? exists[e / 2] : 0) | (k < depth ? 0xffffu << e % 2 * 16 : 0);
    }
    uint32 weights[2][8][2];
    int loaded = -1;  // the outputs that the weights are for
    for (int64 tile = blockIdx.x; tile < int64(count) * ((outputs + WIDE - 1) / WIDE); tile += gridDim.x) {
        const int number = int(tile % count), output = int(tile / count) * WIDE;
        if (output != loaded) {
            loaded = output;
            for (int e = 0; e < 4; e++)
                for (int m = 0; m < 8; m++) {
                    const int k = t + e * 8, column = output + m * 8 + g;
                    auto weight = [&](int k) {
                        return narrowed(k < depth && column < outputs ? w[int64(k) * outputs + column] : 0);
                    };
                    weights[e / 2][m][e % 2] = two(weight(k), weight(k + 1));
                }
        }
        bands.load_band(x, number);
        sync_threads();
        const int pixels = bands.pixels_of(number);
        T* to = y + bands.first_pixel(number) * outputs + output;
        FN_UNROLL(1)
        for (int first = warp_id() * TILE_ROWS; first < pixels; first += WARPS * TILE_ROWS) {
            const T* window[2];
            for (int h = 0; h < 2; h++) window[h] = x + bands.window(place(int(smaller(first + g + 8 * h, pixels - 1))));
            float sum[8][4] = {};
            for (int k = 0; k < 2; k++) {
                uint32 a[4];
                for (int e = 0; e < 4; e++) {
                    const T* from = window[e % 2];
                    const int pair = 2 * k + e / 2;
                    a[e] = two(from[offset[2 * pair]], from[offset[2 * pair + 1]]) & exists[pair];
                }
                for (int m = 0; m < 8; m++) mma_16816(T(), sum[m], a, weights[k][m]);
            }
            for (int m = 0; m < 8; m++) {
                const int column = output + m * 8 + t;
                const Acc bias[2] = {b && column < outputs ? b[column] : 0, b && column < outputs ? b[column + 1] : 0};
                for (int h = 0; h < 2; h++)
                    *reinterpret_cast<uint32*>(slab + placed(g + 8 * h, m) + t * 2) =
                        two(narrowed(sum[m][2 * h] + bias[0]), narrowed(sum[m][2 * h + 1] + bias[1]));
            }
            sync_warp();
            for (int e = lane; e < TILE_ROWS * CHUNKS; e += WARP) {
                const int row = e / CHUNKS, chunk = e % CHUNKS;
                if (first + row < pixels && output + chunk * 8 < outputs)
                    st128(to + int64(first + row) * outputs + chunk * 8, ld128(slab + placed(row, chunk)));
            }
            sync_warp();
        }
        sync_threads();
    }
}

// parts (P, taps x channels, outputs): part p is the sum over bands p chunk to (p + 1) chunk. A warp sums 32 entries of
// the windows x 64 outputs over every eighth 16 pixels, while dy of the next ones is on its way; the eight sums are added
// in their order. Shared memory: two slabs of dy for each warp, and the band's pixels.
FN_KERNEL(256) augment_conv2d_tensor_dw(const uint8* images, const int* cuts, const Acc* mean, const Acc* scale,
                                        const T* dy, Acc* parts, int chunk, int64 stored, int band, int n, int height,
                                        int width, int channels, int out_h, int out_w, int outputs, int kernel_h,
                                        int kernel_w, int stride_h, int stride_w, int pad_h, int pad_w,
                                        int dilation_h, int dilation_w, int groups) {
    FN_DYNAMIC(unsigned char, memory);
    const Bands bands = {{images, mean, scale, stored, height, width, channels}, cuts,
                         {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                          pad_h, pad_w, dilation_h, dilation_w, groups}, n, band};
    const Places place = {out_h, out_w};
    const int lane = lane_id(), g = lane / 4, t = lane % 4 * 2, depth = bands.depth(), count = bands.count();
    const int many = (count + chunk - 1) / chunk, columns = (outputs + WIDE - 1) / WIDE;
    unsigned char* slabs = memory + warp_id() * 2 * SLAB;
    T* x = reinterpret_cast<T*>(memory + WARPS * 2 * SLAB);
    int offset[4];
    for (int e = 0; e < 4; e++) offset[e] = g + 8 * e < depth ? bands.offset(g + 8 * e) : 0;
    for (int tile = int(blockIdx.x); tile < columns * many; tile += int(gridDim.x)) {
        const int part = tile / columns, output = tile % columns * WIDE;
        const int end = int(smaller(count, int64(part + 1) * chunk));
        float sum[2][8][4] = {};
        for (int number = part * chunk; number < end; number++) {
            const int pixels = bands.pixels_of(number);
            const T* from = dy + bands.first_pixel(number) * outputs + output;
            auto load_rows = [&](int first) {
                unsigned char* to = slabs + first / (WARPS * TILE_ROWS) % 2 * SLAB;
                const int part = lane % CHUNKS;
                for (int row = lane / CHUNKS; row < TILE_ROWS; row += WARP / CHUNKS) {
                    const bool valid = first + row < pixels && output + part * 8 < outputs;
                    cp_async16(to + placed(row, part), valid ? from + int64(first + row) * outputs + part * 8 : dy,
                               valid);
                }
            };
            bands.load_band(x, number);
            load_rows(warp_id() * TILE_ROWS);
            cp_commit();
            sync_threads();
            FN_UNROLL(1)
            for (int first = warp_id() * TILE_ROWS; first < pixels; first += WARPS * TILE_ROWS) {
                load_rows(first + WARPS * TILE_ROWS);
                cp_commit();
                cp_wait<1>();
                sync_warp();
                const unsigned char* rows = slabs + first / (WARPS * TILE_ROWS) % 2 * SLAB;
                const T* window[4];
                for (int e = 0; e < 4; e++)
                    window[e] = x + bands.window(place(int(smaller(first + t + e % 2 + e / 2 * 8, pixels - 1))));
                uint32 a[2][4];
                for (int m = 0; m < 2; m++)
                    for (int e = 0; e < 4; e++) {
                        const int at = offset[2 * m + e % 2], pixel = e / 2 * 2;
                        a[m][e] = two(window[pixel][at], window[pixel + 1][at]);
                    }
                for (int c = 0; c < 4; c++) {
                    uint32 v[4];
                    ldsm4_trans(v, rows + placed(lane % 16, 2 * c + lane / 16));
                    const uint32 left[2] = {v[0], v[1]}, right[2] = {v[2], v[3]};
                    for (int m = 0; m < 2; m++) {
                        mma_16816(T(), sum[m][2 * c], a[m], left);
                        mma_16816(T(), sum[m][2 * c + 1], a[m], right);
                    }
                }
                sync_warp();
            }
            cp_wait<0>();
            sync_threads();
        }
        float* total = reinterpret_cast<float*>(memory);
        for (int warp = 0; warp < WARPS; warp++) {
            if (warp == warp_id())
                FN_UNROLL(2)
                for (int m = 0; m < 2; m++)
                    FN_UNROLL(8)
                    for (int c = 0; c < 8; c++)
                        FN_UNROLL(4)
                        for (int h = 0; h < 4; h++) {
                            const int at = (m * 16 + g + h / 2 * 8) * WIDE + c * 8 + t + h % 2;
                            total[at] = warp ? total[at] + sum[m][c][h] : sum[m][c][h];
                        }
            sync_threads();
        }
        for (int e = int(threadIdx.x); e < depth * WIDE; e += 256)
            if (output + e % WIDE < outputs)
                parts[(int64(part) * depth + e / WIDE) * outputs + output + e % WIDE] = total[e];
        sync_threads();
    }
}
