// How kernels go over arrays with the channels last: a thread takes `width` neighbouring channels of a place, sixteen
// bytes of T where every place begins on such a boundary, else one channel.
#pragma once
#include "common.cuh"

constexpr int CHANNEL_THREADS = 256;

// Whether sixteen bytes can be taken at a time from all of these (null pointers aside). The same in all threads.
template <class... P> bool in_packs(int channels, const P*... x) {
    return channels % Pack::many == 0 && ((uint64(x) | ...) & (sizeof(Pack) - 1)) == 0;
}

inline void unpack(Acc (&v)[Pack::many], const Pack& pack) {
    for (int j = 0; j < Pack::many; j++) v[j] = load(&pack.entry[j]);
}
inline Pack packed(const Acc (&v)[Pack::many]) {
    Pack pack;
    for (int j = 0; j < Pack::many; j++) store(&pack.entry[j], v[j]);
    return pack;
}
template <int width> void read(Acc (&v)[width], const T* from) {
    if constexpr (width == 1) v[0] = load(from);
    else unpack(v, Pack{ld128(from)});
}
template <int width> void write(T* to, const Acc (&v)[width]) {
    if constexpr (width == 1) store(to, v[0]);
    else st128(to, packed(v).bits);
}

// index modulo size, with index divided by size. 64-bit divisions are slow, and mostly there is no need for them.
inline int split(uint64& index, int size) {
    const uint64 whole = index;
    index = whole >> 32 ? whole / uint32(size) : uint64(uint32(whole) / uint32(size));
    return int(whole - index * uint32(size));
}

// f(entry, image, row, column, channel) for each place of (images, height, breadth, channels), `width` channels at a
// time.
template <int width, class F> void places(int64 images, int height, int breadth, int channels, F f) {
    const int64 items = images * height * breadth * (channels / width);
    for (int64 i = first_thread(); i < items; i += all_threads()) {
        uint64 rest = uint64(i);
        const int channel = split(rest, channels / width) * width;
        const int column = split(rest, breadth), row = split(rest, height);
        f(i * width, int64(rest), row, column, channel);
    }
}

// An array (rows, channels), cut into chunks of `each` rows.
struct Rows {
    int64 rows;
    int channels;
    int64 each;
    int64 chunks() const { return (rows + each - 1) / each; }
    int64 start(int64 chunk) const { return chunk * each; }
    int64 stop(int64 chunk) const { return smaller(rows, start(chunk) + each); }
};

// What a block has at a time: a chunk of rows, and up to 32 threads' channels. A thread has its channels from `channel`
// on, none unless `inside`, in entries first, first + step, ... below stop; `across` threads have a row between them.
struct Tile {
    int64 chunk, first, stop, step;
    int across, channel;
    bool inside;
};

// f(tile) for each tile of x, by all threads of the block.
template <int width, class F> void tiles(Rows x, F f) {
    const int units = x.channels / width;
    int across = 1;
    while (across < units && across < WARP) across *= 2;
    const int64 groups = (units + across - 1) / across, all = x.chunks() * groups;
    for (int64 i = blockIdx.x; i < all; i += gridDim.x) {
        const int64 chunk = i / groups;
        const int unit = int(i % groups) * across + int(threadIdx.x) % across;
        const int64 row = x.start(chunk) + int(threadIdx.x) / across;
        f(Tile{chunk, row * x.channels + unit * width, x.stop(chunk) * x.channels,
               int64(CHANNEL_THREADS / across) * x.channels, across, unit * width, unit < units});
    }
}

// The sum of what the threads of a block have, in every thread, always added in the same order.
inline double block_sum(double x) {
    FN_SHARED(double, sums, [CHANNEL_THREADS / WARP]);
    x = warp_sum(x);
    sync_threads();  // nobody reads those of the last sum any more
    if (lane_id() == 0) sums[warp_id()] = x;
    sync_threads();
    x = 0;
    for (int w = 0; w < CHANNEL_THREADS / WARP; w++) x += sums[w];
    return x;
}

// For each chunk and channel the sums over the rows: each(tile, total) adds up a thread's own entries, and
// finish(chunk, channel, total) gets those of the threads together, added in order.
template <int width, int many, class Each, class Finish> void column_sums(Rows x, Each each, Finish finish) {
    FN_SHARED(Acc, part, [many][width][CHANNEL_THREADS]);
    tiles<width>(x, [&](const Tile& tile) {
        const int thread = int(threadIdx.x);
        Acc own[many][width] = {};
        if (tile.inside) each(tile, own);
        for (int s = 0; s < many; s++)
            for (int j = 0; j < width; j++) part[s][j][thread] = own[s][j];
        sync_threads();
        // Thread (j, u) takes entry j of what the threads with the channels of thread u have.
        const int u = thread % tile.across, j = thread / tile.across;
        if (tile.inside && j < width) {
            Acc total[many] = {};
            for (int other = u; other < CHANNEL_THREADS; other += tile.across)
                for (int s = 0; s < many; s++) total[s] += part[s][j][other];
            finish(tile.chunk, tile.channel + j, total);
        }
        sync_threads();
    });
}
