// What the 3x3 convolutions on tensor cores share: pixels in shared memory, which all nine taps are read from. Stride
// 1, padding 1; channels in multiples of 64, 16 bits each.
//
// Pixels are numbered through the batch, so that a tile of them is any range of numbers, and what its windows see is
// the range that begins `width + 1` earlier and ends as much later: one stretch of memory, whatever the size of the
// images. Tap (i, j) of pixel m sees number m + (i - 1) width + j - 1 if that lies in the same image; else, as padding,
// zeros.
#pragma once
#include "norm.cuh"
#include "tensor.cuh"

constexpr int TAPS = 9;

// Bit 3 i + j says whether tap (i, j) of a pixel lies inside its image. Of what is no pixel no tap does.
struct TapsInside {
    Divider height, width;
    int pixels;
    uint32 operator()(int number) const {
        if (number >= pixels) return 0;
        const int line = width(number), column = number - line * int(width.by);
        const int row = line - height(line) * int(height.by);
        const uint32 rows = (row > 0 ? 0007 : 0) | 0070 | (row + 1 < int(height.by) ? 0700 : 0);
        const uint32 columns = (column > 0 ? 0111 : 0) | 0222 | (column + 1 < int(width.by) ? 0444 : 0);
        return rows & columns;
    }
};

// Rows `first` to `first + count` of 64 channels each into shared memory, where each is `stride` entries from the next.
// Rows that are no pixel are left as they are, for no tap reads them, or with CLEAR set to zero.
template <int THREADS, bool CLEAR>
void load_rows(unsigned char* to, const T* from, int first, int count, int pixels, int stride) {
    const int chunk = int(threadIdx.x) % CHUNKS;
    int row = int(threadIdx.x) / CHUNKS;
    to += placed(row, chunk);  // the chunk's place is the same in all rows of this thread
    FN_UNROLL(2)
    for (; row < count; row += THREADS / CHUNKS, to += THREADS * 16) {
        const bool exists = uint32(first + row) < uint32(pixels);
        if (CLEAR || exists) cp_async16(to, from + int64(exists ? first + row : 0) * stride + chunk * 8, exists);
    }
}

// What load_rows has brought, when it is there, changed where it lies: change(the two entries of a lane's channels) for
// each row that is a pixel. A lane has the same two channels of every row, so it holds few numbers that belong to them.
template <int THREADS, class F> void change_rows(unsigned char* rows, int first, int count, int pixels, F change) {
    const int lane = lane_id();
    FN_UNROLL(4)
    for (int row = warp_id(); row < count; row += THREADS / WARP)
        if (uint32(first + row) < uint32(pixels)) {
            Two* const two = reinterpret_cast<Two*>(rows + placed(row, lane / 4)) + lane % 4;
            Acc v[2] = {load(two->entry), load(two->entry + 1)};
            change(v);
            Two changed;
            for (int e = 0; e < 2; e++) store(changed.entry + e, v[e]);
            *two = changed;
        }
}
