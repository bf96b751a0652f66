// The gradient of the weights for conv_taps.cu: dw (taps, channels, outputs) = sum over pixels of x at the tap times
// dy.
//
// 1.05 MFLOP for 16 KB of x and as much of dy, 32 FLOP a byte, mostly of the L2 cache; 16 FLOP a byte of shared memory.
// Predictions: no card has run this.
#include "tensor.cuh"

FN_TYPES(half, bf16);

// parts (P, taps, channels, outputs): part p is the sum over pixels p chunk to (p + 1) chunk of y. A block sums 64
// channels x 64 outputs of one tap, 128 pixels at a time while the next 128 are on their way; each of its four warps
// 32 x 32. Three blocks a multiprocessor.
FN_KERNEL(128) conv_taps_dw(const T* x, const T* dy, Acc* parts, int chunk, int images, int height, int width,
                            int channels, int out_h, int out_w, int outputs, int kernel_h, int kernel_w, int stride_h,
                            int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int groups) {
    const Windows at = {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                        pad_h, pad_w, dilation_h, dilation_w, groups};
    FN_DYNAMIC(unsigned char, memory);
    const Places place = {out_h, out_w};
    const Seen seen = {x, at};
    const int pixels = images * out_h * out_w, across = outputs / DEEP, down = channels / DEEP;
    const int taps = kernel_h * kernel_w, many = (pixels + chunk - 1) / chunk, lane = lane_id();
    const int side = warp_id() % 2 * 4, wing = warp_id() / 2 * 4;  // the warp's first chunks of x, of dy
    for (int64 tile = blockIdx.x; tile < int64(across) * down * taps * many; tile += gridDim.x) {
        const int output = int(tile % across) * DEEP, channel = int(tile / across % down) * DEEP;
        const int tap = int(tile / across / down % taps), part = int(tile / across / down / taps);
        const int begin = part * chunk, end = int(smaller(pixels, int64(begin) + chunk));
        auto load_tile = [&](int pixel) {
            unsigned char* to = memory + pixel / PIXELS % 2 * 2 * PIXEL_BYTES;
            gather_rows(to, channel, x, [&](int row) {
                return pixel + row < end ? seen(place(pixel + row), tap / kernel_w, tap % kernel_w) : nullptr;
            });
            gather_rows(to + PIXEL_BYTES, output, dy, [&](int row) {
                return pixel + row < end ? dy + int64(pixel + row) * outputs : nullptr;
            });
        };
        float sum[2][4][4] = {};
        load_tile(begin);
        cp_commit();
        for (int pixel = begin; pixel < end; pixel += PIXELS) {
            if (pixel + PIXELS < end) load_tile(pixel + PIXELS);
            cp_commit();
            cp_wait<1>();
            sync_threads();
            const unsigned char* rows = memory + pixel / PIXELS % 2 * 2 * PIXEL_BYTES;
            FN_UNROLL(1)
            for (int k = 0; k < PIXELS; k += 16) {
                uint32 a[2][4], b[2][4];
                for (int n = 0; n < 2; n++) {
                    ldsm4_trans(a[n], rows + placed(k + lane % 8 + lane / 16 * 8, side + 2 * n + lane / 8 % 2));
                    ldsm4_trans(b[n], rows + PIXEL_BYTES + placed(k + lane % 16, wing + 2 * n + lane / 16));
                }
                for (int n = 0; n < 4; n++) {
                    const uint32 right[2] = {b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]};
                    for (int m = 0; m < 2; m++) mma_16816(T(), sum[m][n], a[m], right);
                }
            }
            sync_threads();
        }
        cp_wait<0>();
        for (int m = 0; m < 2; m++)
            for (int n = 0; n < 4; n++)
                for (int h = 0; h < 4; h++) {
                    const int row = channel + side * 8 + m * 16 + lane / 4 + h / 2 * 8;
                    const int column = output + wing * 8 + n * 8 + lane % 4 * 2 + h % 2;
                    parts[((int64(part) * taps + tap) * channels + row) * outputs + column] = sum[m][n][h];
                }
    }
}
