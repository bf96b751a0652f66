// Mean over all places of each channel: x (n, places, channels), y (n, channels). An image is a chunk of rows.
#include "channels.cuh"

template <int width> void means(Rows r, const T* x, T* y) {
    column_sums<width, 1>(r, [=](const Tile& tile, Acc (&total)[1][width]) {
        Acc v[width];
        for (int64 at = tile.first; at < tile.stop; at += tile.step) {
            read(v, x + at);
            for (int j = 0; j < width; j++) total[0][j] += v[j];
        }
    }, [=](int64 image, int channel, const Acc (&total)[1]) {
        store(y + image * r.channels + channel, total[0] / Acc(r.each));
    });
}

FN_KERNEL(256) global_avg_pool_forward(const T* x, T* y, int64 n, int64 places, int channels) {
    const Rows r{n * places, channels, places};
    if (in_packs(channels, x)) means<Pack::many>(r, x, y);
    else means<1>(r, x, y);
}

template <int width> void shares(Rows r, const T* dy, T* dx) {
    tiles<width>(r, [=](const Tile& tile) {
        if (!tile.inside) return;
        Acc share[width];
        read(share, dy + tile.chunk * r.channels + tile.channel);
        for (int j = 0; j < width; j++) share[j] /= Acc(r.each);
        for (int64 at = tile.first; at < tile.stop; at += tile.step) write(dx + at, share);
    });
}

FN_KERNEL(256) global_avg_pool_backward(const T* dy, T* dx, int64 n, int64 places, int channels) {
    const Rows r{n * places, channels, places};
    if (in_packs(channels, dy, dx)) shares<Pack::many>(r, dy, dx);
    else shares<1>(r, dy, dx);
}
