// The last steps of a convolution's dw and db: sums over pixels come in parts, which are added in their order.
#include "common.cuh"

// parts (P, channels): part p is the sum of rows p chunk to (p + 1) chunk of dy (rows, channels). A block takes 32
// channels at a time: eight warps sum every eighth row each, and the first adds the eight sums in order.
FN_KERNEL(256) conv2d_db(const T* dy, Acc* parts, int chunk, int rows, int channels) {
    FN_SHARED(Acc, sums, [8][WARP]);
    const int across = (channels + WARP - 1) / WARP;
    const int64 tiles = int64(across) * ((rows + chunk - 1) / chunk);
    for (int64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int part = int(tile / across), channel = int(tile % across) * WARP + lane_id();
        const int end = int(smaller(rows, int64(part + 1) * chunk));
        Acc sum = 0;
        if (channel < channels)
            for (int row = part * chunk + warp_id(); row < end; row += 8)
                sum += load(dy + int64(row) * channels + channel);
        sums[warp_id()][lane_id()] = sum;
        sync_threads();
        if (warp_id() == 0 && channel < channels) {
            for (int r = 1; r < 8; r++) sum += sums[r][lane_id()];
            parts[int64(part) * channels + channel] = sum;
        }
        sync_threads();
    }
}

// sum (size,) = parts (many, size) added up. `like` only says which type T is.
FN_KERNEL(256) conv2d_sum(const T* like, const Acc* parts, Acc* sum, int many, int64 size) {
    for (int64 i = first_thread(); i < size; i += all_threads()) {
        Acc total = 0;
        FN_UNROLL(16)  // so many reads are under way: the threads are few and the parts far apart
        for (int p = 0; p < many; p++) total += parts[p * size + i];
        sum[i] = total;
    }
}
