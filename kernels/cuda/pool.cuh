// Windows that slide over images (images, height, width, channels), for pooling.
#pragma once
#include "channels.cuh"

struct Windows {
    int height, width, channels, window_h, window_w, stride_h, stride_w, pad_h, pad_w, out_h, out_w;
};

// first..stop-1.
struct Range { int first, stop; };

// The taps of a window that starts at place `start` which lie inside 0..length-1.
inline Range inside(int start, int size, int length) {
    return {start < 0 ? -start : 0, size < length - start ? size : length - start};
}

// The windows that see a place, which is `at` entries behind the first window's first.
inline Range seeing(int at, int size, int stride, int windows) {
    const int stop = at / stride + 1;
    return {at < size ? 0 : (at - size) / stride + 1, stop < windows ? stop : windows};
}

// f(tap, entry of x) for the taps of window (p, q) of an image that lie inside, row by row.
template <class F> void for_taps(const Windows& w, int64 image, int p, int q, int channel, F f) {
    const int top = p * w.stride_h - w.pad_h, left = q * w.stride_w - w.pad_w;
    const Range rows = inside(top, w.window_h, w.height), columns = inside(left, w.window_w, w.width);
    for (int i = rows.first; i < rows.stop; i++)
        for (int j = columns.first; j < columns.stop; j++)
            f(i * w.window_w + j, ((image * w.height + top + i) * w.width + left + j) * w.channels + channel);
}

// f(p, q, tap, entry of y) for the windows that see place (row, column) of an image, and by which tap.
template <class F> void for_windows(const Windows& w, int64 image, int row, int column, int channel, F f) {
    const Range rows = seeing(row + w.pad_h, w.window_h, w.stride_h, w.out_h);
    const Range columns = seeing(column + w.pad_w, w.window_w, w.stride_w, w.out_w);
    for (int p = rows.first; p < rows.stop; p++)
        for (int q = columns.first; q < columns.stop; q++) {
            const int i = row + w.pad_h - p * w.stride_h, j = column + w.pad_w - q * w.stride_w;
            f(p, q, i * w.window_w + j, ((image * w.out_h + p) * w.out_w + q) * w.channels + channel);
        }
}
