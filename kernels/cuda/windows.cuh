// Where the windows of a convolution stand, and divisions of 32 bits that are multiplications.
#pragma once
#include "common.cuh"

// x / by for 0 <= x < 2^31, exactly. Source: Granlund and Montgomery, "Division by invariant integers using
// multiplication", 1994. Made once a thread, used for every entry that is gathered.
struct Divider {
    uint32 by, factor, shift;
    Divider(int divisor) : by(uint32(divisor)), shift(31) {
        while ((1u << (shift - 31)) < by) shift++;
        factor = uint32(((uint64(1) << shift) + by - 1) / by);
    }
    int operator()(int x) const { return int(uint64(uint32(x)) * factor >> shift); }
};

// x (N, height, width, channels), y (N, out_h, out_w, outputs); tap (i, j) of output (p, q) sees the input at
// (p stride_h + i dilation_h - pad_h, q stride_w + j dilation_w - pad_w).
struct Windows {
    int height, width, channels, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
    int dilation_h, dilation_w, groups;
    int depth() const { return channels / groups; }      // channels in and out of a group
    int breadth() const { return outputs / groups; }
};

struct Pixel { int image, row, column; };

// Numbers of pixels as places in the images.
struct Places {
    Divider height, width;
    Pixel operator()(int number) const {
        const int line = width(number), image = height(line);
        return {image, line - image * int(height.by), number - line * int(width.by)};
    }
};

// What the windows see: the pixel of x under a tap of an output, null outside the image.
struct Seen {
    const T* x;
    Windows at;
    const T* operator()(Pixel out, int i, int j) const {
        const int row = out.row * at.stride_h + i * at.dilation_h - at.pad_h;
        const int column = out.column * at.stride_w + j * at.dilation_w - at.pad_w;
        if (uint32(row) >= uint32(at.height) || uint32(column) >= uint32(at.width)) return nullptr;
        return x + ((int64(out.image) * at.height + row) * at.width + column) * at.channels;
    }
};

// The reverse: the pixel of dy at the output whose tap sees an input pixel, null where there is none.
struct Sent {
    const T* dy;
    Windows at;
    Divider stride_h, stride_w;
    Sent(const T* dy, const Windows& at) : dy(dy), at(at), stride_h(at.stride_h), stride_w(at.stride_w) {}
    const T* operator()(Pixel in, int i, int j) const {
        const int row = in.row + at.pad_h - i * at.dilation_h, column = in.column + at.pad_w - j * at.dilation_w;
        if (row < 0 || column < 0) return nullptr;
        const int p = stride_h(row), q = stride_w(column);
        if (p * at.stride_h != row || q * at.stride_w != column || p >= at.out_h || q >= at.out_w) return nullptr;
        return dy + ((int64(in.image) * at.out_h + p) * at.out_w + q) * at.outputs;
    }
};

inline Acc entry_of(const T* pixel, int channel) { return pixel ? Acc(load(pixel + channel)) : Acc(0); }

// visit(pixel, channel) for all pixels x channels, spread over the threads of the grid, without divisions on the way.
template <class F> void for_each_channel(int pixels, int channels, F visit) {
    const int64 first = first_thread(), step = all_threads();
    const int step_pixels = int(step / channels), step_channels = int(step % channels);
    int channel = int(first % channels);
    for (int64 pixel = first / channels; pixel < pixels; pixel += step_pixels) {
        visit(int(pixel), channel);
        channel += step_channels;
        if (channel >= channels) {
            channel -= channels;
            pixel++;
        }
    }
}
