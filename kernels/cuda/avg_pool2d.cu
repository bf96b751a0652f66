// Mean of each window: y = sum of what it sees / how many entries count, dx = the sum of the windows' dy by the same.
#include "pool.cuh"

// One by how many entries count in window (p, q): those of the image, and the zeros that `pad` adds.
inline Acc weight(const Windows& w, int p, int q) {
    const int rows = w.height + 2 * w.pad_h - p * w.stride_h, columns = w.width + 2 * w.pad_w - q * w.stride_w;
    return 1 / (Acc(rows < w.window_h ? rows : w.window_h) * Acc(columns < w.window_w ? columns : w.window_w));
}

template <int width> void means(int64 images, const Windows& w, const T* x, T* y) {
    places<width>(images, w.out_h, w.out_w, w.channels, [&](int64 at, int64 image, int p, int q, int channel) {
        Acc sum[width] = {}, v[width];
        for_taps(w, image, p, q, channel, [&](int, int64 entry) {
            read(v, x + entry);
            for (int j = 0; j < width; j++) sum[j] += v[j];
        });
        const Acc share = weight(w, p, q);
        for (int j = 0; j < width; j++) sum[j] *= share;
        write(y + at, sum);
    });
}

FN_KERNEL(256) avg_pool2d_forward(const T* x, T* y, int64 images, int height, int width, int channels, int window_h,
                                  int window_w, int stride_h, int stride_w, int pad_h, int pad_w, int out_h,
                                  int out_w) {
    const Windows w{height, width, channels, window_h, window_w, stride_h, stride_w, pad_h, pad_w, out_h, out_w};
    if (in_packs(channels, x, y)) means<Pack::many>(images, w, x, y);
    else means<1>(images, w, x, y);
}

template <int width> void to_all(int64 images, const Windows& w, const T* dy, T* dx) {
    places<width>(images, w.height, w.width, w.channels, [&](int64 at, int64 image, int row, int column, int channel) {
        Acc sum[width] = {}, g[width];
        for_windows(w, image, row, column, channel, [&](int p, int q, int, int64 entry) {
            const Acc share = weight(w, p, q);
            read(g, dy + entry);
            for (int j = 0; j < width; j++) sum[j] += share * g[j];
        });
        write(dx + at, sum);
    });
}

FN_KERNEL(256) avg_pool2d_backward(const T* dy, T* dx, int64 images, int height, int width, int channels, int window_h,
                                   int window_w, int stride_h, int stride_w, int pad_h, int pad_w, int out_h,
                                   int out_w) {
    const Windows w{height, width, channels, window_h, window_w, stride_h, stride_w, pad_h, pad_w, out_h, out_w};
    if (in_packs(channels, dy, dx)) to_all<Pack::many>(images, w, dy, dx);
    else to_all<1>(images, w, dy, dx);
}
