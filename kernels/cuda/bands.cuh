// What the convolutions that read a data set share: rows of an augmented image in shared memory, each pixel standardized
// once, with the border of zeros that their windows see.
#pragma once
#include "augment.cuh"

constexpr int CUT = 4;  // numbers of a sample: its image (-1: none), top, left, and flips as bits

// The bands of a batch are numbered: `band` rows of y are one, and so is what is left of an image.
struct Bands {
    Stored source;
    const int* cuts;
    Windows at;
    int images, band;

    int many() const { return (at.out_h + band - 1) / band; }  // of an image
    int count() const { return images * many(); }
    int rows_of(int number) const { return int(smaller(band, at.out_h - number % many() * band)); }
    int pixels_of(int number) const { return rows_of(number) * at.out_w; }
    int64 first_pixel(int number) const {
        return (int64(number / many()) * at.out_h + number % many() * band) * at.out_w;
    }

    // Entries in shared memory: of a row, of the step to the next window, of a tap and channel.
    int line() const { return (at.width + 2 * at.pad_w) * at.channels; }
    int window(Pixel out) const { return out.row * at.stride_h * line() + out.column * at.stride_w * at.channels; }
    int depth() const { return at.kernel_h * at.kernel_w * at.channels; }
    int offset(int k) const {
        const int tap = k / at.channels, i = tap / at.kernel_w, j = tap % at.kernel_w;
        return i * at.dilation_h * line() + j * at.dilation_w * at.channels + k % at.channels;
    }

    // All that a band's windows see, by the threads of the block, who meet before it is read.
    void load_band(T* x, int number) const {
        const Divider width = at.width + 2 * at.pad_w, channels = at.channels;
        const int* numbers = cuts + number / many() * CUT;
        const Cut cut = {numbers[0] < 0 ? nullptr : source.image(numbers[0]), numbers[1], numbers[2], numbers[3] & 1,
                         numbers[3] >> 1};
        const int top = number % many() * band * at.stride_h - at.pad_h;
        const int rows = (rows_of(number) - 1) * at.stride_h + (at.kernel_h - 1) * at.dilation_h + 1;
        FN_UNROLL(2)
        for (int k = int(threadIdx.x); k < rows * line(); k += int(blockDim.x)) {
            const int pixel = channels(k), row = width(pixel), i = top + row;
            const int j = pixel - row * int(width.by) - at.pad_w;
            const bool inside = uint32(i) < uint32(at.height) && uint32(j) < uint32(at.width);
            store(x + k, inside ? source.entry(cut, i, j, k - pixel * at.channels) : Acc(0));
        }
    }
};
