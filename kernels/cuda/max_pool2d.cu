// Largest entry of each window: y (images, out_h, out_w, channels), and which tap it was, in a byte (`winners`), or in
// four (`wide`) where a window has more than 255 taps; the other pointer is null.
#include "pool.cuh"

// As many bytes as a thread has channels, which it writes and reads together.
template <int width> struct alignas(width) Bytes { uint8 entry[width]; };

template <int width> void write_numbers(uint8* winners, int* wide, int64 at, const int (&number)[width]) {
    if (wide) {
        for (int j = 0; j < width; j++) wide[at + j] = number[j];
    } else {
        Bytes<width> bytes;
        for (int j = 0; j < width; j++) bytes.entry[j] = uint8(number[j]);
        *reinterpret_cast<Bytes<width>*>(winners + at) = bytes;
    }
}
template <int width> void read_numbers(int (&number)[width], const uint8* winners, const int* wide, int64 at) {
    if (wide) {
        for (int j = 0; j < width; j++) number[j] = wide[at + j];
    } else {
        const Bytes<width> bytes = *reinterpret_cast<const Bytes<width>*>(winners + at);
        for (int j = 0; j < width; j++) number[j] = bytes.entry[j];
    }
}

// Of equal entries the first wins, and a NaN wins over all but an earlier one. With `relu` y is max(0, the largest),
// and where that is 0 nothing has won, which is the number of taps.
template <int width>
void largest(int64 images, const Windows& w, bool relu, const T* x, T* y, uint8* winners, int* wide) {
    places<width>(images, w.out_h, w.out_w, w.channels, [&](int64 at, int64 image, int p, int q, int channel) {
        Acc best[width], v[width];
        int number[width];
        for (int j = 0; j < width; j++) {
            best[j] = -infinity();
            number[j] = -1;  // so that the first entry wins whatever it is
        }
        for_taps(w, image, p, q, channel, [&](int tap, int64 entry) {
            read(v, x + entry);
            for (int j = 0; j < width; j++) {
                const bool better = number[j] < 0 || v[j] > best[j] || (v[j] != v[j] && best[j] == best[j]);
                best[j] = better ? v[j] : best[j];
                number[j] = better ? tap : number[j];
            }
        });
        for (int j = 0; relu && j < width; j++) {
            number[j] = best[j] > 0 ? number[j] : w.window_h * w.window_w;
            best[j] = best[j] <= 0 ? Acc(0) : best[j];
        }
        write(y + at, best);
        write_numbers(winners, wide, at, number);
    });
}

FN_KERNEL(256) max_pool2d_forward(const T* x, int relu, T* y, uint8* winners, int* wide, int64 images, int height,
                                  int width, int channels, int window_h, int window_w, int stride_h, int stride_w,
                                  int pad_h, int pad_w, int out_h, int out_w) {
    const Windows w{height, width, channels, window_h, window_w, stride_h, stride_w, pad_h, pad_w, out_h, out_w};
    if (in_packs(channels, x, y)) largest<Pack::many>(images, w, relu, x, y, winners, wide);
    else largest<1>(images, w, relu, x, y, winners, wide);
}

// Each entry of dx looks at the windows that see it: no two threads write to one place.
template <int width>
void to_winners(int64 images, const Windows& w, const T* dy, const uint8* winners, const int* wide, T* dx) {
    places<width>(images, w.height, w.width, w.channels, [&](int64 at, int64 image, int row, int column, int channel) {
        Acc sum[width] = {}, g[width];
        int number[width];
        for_windows(w, image, row, column, channel, [&](int, int, int tap, int64 entry) {
            read(g, dy + entry);
            read_numbers(number, winners, wide, entry);
            for (int j = 0; j < width; j++) sum[j] += number[j] == tap ? g[j] : Acc(0);
        });
        write(dx + at, sum);
    });
}

FN_KERNEL(256) max_pool2d_backward(const T* dy, const uint8* winners, const int* wide, T* dx, int64 images, int height,
                                   int width, int channels, int window_h, int window_w, int stride_h, int stride_w,
                                   int pad_h, int pad_w, int out_h, int out_w) {
    const Windows w{height, width, channels, window_h, window_w, stride_h, stride_w, pad_h, pad_w, out_h, out_w};
    if (in_packs(channels, dy, dx)) to_winners<Pack::many>(images, w, dy, winners, wide, dx);
    else to_winners<1>(images, w, dy, winners, wide, dx);
}
