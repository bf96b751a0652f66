// Products of 64x64 tiles whose entries are gathered on load (implicit GEMM), in plain multiply-adds.
#pragma once
#include "product.cuh"
#include "windows.cuh"

// Entries (i, k) of a tile into tile[k][i], zeros outside the matrix; neighbouring threads ask for neighbours along the
// depth, or along the rows.
template <bool ALONG_DEPTH, class F>
void gather_tile(Acc (&tile)[DEPTH][TILE + 1], F entry, int i0, int k0, int rows, int depth) {
    const int thread = int(threadIdx.x);
    FN_UNROLL(4)
    for (int n = 0; n < TILE * DEPTH / PRODUCT_THREADS; n++) {
        const int i = ALONG_DEPTH ? thread / DEPTH + n * (PRODUCT_THREADS / DEPTH) : thread % TILE;
        const int k = ALONG_DEPTH ? thread % DEPTH : thread / TILE + n * (PRODUCT_THREADS / TILE);
        tile[k][i] = i0 + i < rows && k0 + k < depth ? entry(i0 + i, k0 + k) : Acc(0);
    }
}

// Which tile a block works on: first row and column, group, part of the depth.
struct Tile { int row, column, group, part; };

// take(tile, sums over k of a(i, k) b(j, k)) for all tiles of i < rows and j < columns, in every group and every part
// of the depth, of `chunk` each. A thread has the sums of four rows and four columns, both 16 apart; some may lie outside.
template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH, class A, class B, class F>
void gathered_sums(A a, B b, F take, int rows, int columns, int depth, int groups, int chunk) {
    FN_SHARED(Acc, a_tile, [DEPTH][TILE + 1]);
    FN_SHARED(Acc, b_tile, [DEPTH][TILE + 1]);
    const int across = (columns + TILE - 1) / TILE, down = (rows + TILE - 1) / TILE;
    const int parts = (depth + chunk - 1) / chunk;
    const int64 tiles = int64(across) * down * groups * parts;
    for (int64 number = blockIdx.x; number < tiles; number += gridDim.x) {
        // Tiles of the same rows come one after the other, so that what they gather is still in the cache.
        const int64 above = number / across, beside = above / down;
        const Tile tile = {int(above % down) * TILE, int(number % across) * TILE, int(beside % groups),
                           int(beside / groups)};
        const int end = int(smaller(depth, int64(tile.part + 1) * chunk));
        Acc sum[4][4] = {};
        for (int k0 = tile.part * chunk; k0 < end; k0 += DEPTH) {
            auto left = [&](int i, int k) { return a(tile, i, k); };
            auto right = [&](int j, int k) { return b(tile, j, k); };
            gather_tile<A_ALONG_DEPTH>(a_tile, left, tile.row, k0, rows, end);
            gather_tile<B_ALONG_DEPTH>(b_tile, right, tile.column, k0, columns, end);
            sync_threads();
            multiply_tiles(sum, a_tile, b_tile);
            sync_threads();
        }
        take(tile, sum);
    }
}

// finish(i, j, tile, sum) for each of those sums.
template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH, class A, class B, class F>
void gathered_product(A a, B b, F finish, int rows, int columns, int depth, int groups, int chunk) {
    gathered_sums<A_ALONG_DEPTH, B_ALONG_DEPTH>(a, b, [&](const Tile& tile, const Acc (&sum)[4][4]) {
        const int tx = int(threadIdx.x) % 16, ty = int(threadIdx.x) / 16;
        for (int r = 0; r < 4; r++)
            for (int s = 0; s < 4; s++) {
                const int i = tile.row + ty + 16 * r, j = tile.column + tx + 16 * s;
                if (i < rows && j < columns) finish(i, j, tile, sum[r][s]);
            }
    }, rows, columns, depth, groups, chunk);
}

// The tap (i, j) and the channel that an entry of the depth stands for.
struct Entry { int i, j, channel; };
struct Taps {
    Divider channels, width;
    Entry operator()(int k) const {
        const int tap = channels(k), i = width(tap);
        return {i, tap - i * int(width.by), k - tap * int(channels.by)};
    }
};
