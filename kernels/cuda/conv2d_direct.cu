// Convolution with few channels in a group: a thread per entry of y and dx, which sums over the taps; for dw a lane per
// entry and the pixels of y cut into parts. Neighbouring threads are neighbouring channels.
#include "windows.cuh"

FN_KERNEL(256) conv2d_direct_forward(const T* x, const Acc* w, const Acc* b, T* y, int images, int height, int width,
                                     int channels, int out_h, int out_w, int outputs, int kernel_h, int kernel_w,
                                     int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w,
                                     int groups) {
    const Windows at = {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                        pad_h, pad_w, dilation_h, dilation_w, groups};
    const Places place = {out_h, out_w};
    const Seen seen = {x, at};
    const int depth = at.depth();
    const Divider breadth = at.breadth();
    for_each_channel(images * out_h * out_w, outputs, [&](int number, int k) {
        const Pixel out = place(number);
        const int first = breadth(k) * depth;
        const Acc* tap = w + k;
        Acc sum = 0;
        for (int i = 0; i < kernel_h; i++)
            for (int j = 0; j < kernel_w; j++, tap += int64(depth) * outputs)
                if (const T* pixel = seen(out, i, j))
                    for (int c = 0; c < depth; c++) sum += load(pixel + first + c) * tap[int64(c) * outputs];
        store(y + int64(number) * outputs + k, b ? sum + b[k] : sum);
    });
}

FN_KERNEL(256) conv2d_direct_dx(const T* dy, const Acc* w, T* dx, int images, int height, int width, int channels,
                                int out_h, int out_w, int outputs, int kernel_h, int kernel_w, int stride_h,
                                int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int groups) {
    const Windows at = {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                        pad_h, pad_w, dilation_h, dilation_w, groups};
    const Places place = {height, width};
    const Sent sent = {dy, at};
    const int depth = at.depth(), breadth = at.breadth();
    const Divider group_of = depth;
    for_each_channel(images * height * width, channels, [&](int number, int channel) {
        const Pixel in = place(number);
        const int group = group_of(channel), first = group * breadth;
        const Acc* tap = w + int64(channel - group * depth) * outputs + first;
        Acc sum = 0;
        for (int i = 0; i < kernel_h; i++)
            for (int j = 0; j < kernel_w; j++, tap += int64(depth) * outputs)
                if (const T* pixel = sent(in, i, j))
                    for (int k = 0; k < breadth; k++) sum += load(pixel + first + k) * tap[k];
        store(dx + int64(number) * channels + channel, sum);
    });
}

// parts (P, taps, channels in, outputs): part p is the sum over pixels p chunk to (p + 1) chunk of y. A block takes 32
// entries at a time: eight warps sum every eighth pixel each, and the first adds the eight sums in order.
FN_KERNEL(256) conv2d_direct_dw(const T* x, const T* dy, Acc* parts, int chunk, int images, int height, int width,
                                int channels, int out_h, int out_w, int outputs, int kernel_h, int kernel_w,
                                int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w,
                                int groups) {
    FN_SHARED(Acc, sums, [8][WARP]);
    const Windows at = {height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w,
                        pad_h, pad_w, dilation_h, dilation_w, groups};
    const Places place = {out_h, out_w};
    const Seen seen = {x, at};
    const int pixels = images * out_h * out_w, size = kernel_h * kernel_w * at.depth() * outputs;
    const int across = (size + WARP - 1) / WARP;
    const int64 tiles = int64(across) * ((pixels + chunk - 1) / chunk);
    for (int64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int part = int(tile / across), entry = int(tile % across) * WARP + lane_id();
        const int k = entry % outputs, tap = entry / outputs / at.depth(), i = tap / kernel_w, j = tap % kernel_w;
        const int channel = k / at.breadth() * at.depth() + entry / outputs % at.depth();
        const int end = int(smaller(pixels, int64(part + 1) * chunk));
        Acc sum = 0;
        if (entry < size)
            for (int pixel = part * chunk + warp_id(); pixel < end; pixel += 8)
                sum += entry_of(seen(place(pixel), i, j), channel) * load(dy + int64(pixel) * outputs + k);
        sums[warp_id()][lane_id()] = sum;
        sync_threads();
        if (warp_id() == 0 && entry < size) {
            for (int r = 1; r < 8; r++) sum += sums[r][lane_id()];
            parts[int64(part) * size + entry] = sum;
        }
        sync_threads();
    }
}
