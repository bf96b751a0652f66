// A matrix product in plain multiply-adds: any shapes and strides, sums in the order of k.
#pragma once
#include "common.cuh"

// A matrix by its entry (0, 0) and what a step along each dimension is; one of the two is 1.
template <class S> struct Matrix {
    S* entry;
    int64 row, column;
    S* at(int64 i, int64 j) const { return entry + i * row + j * column; }
    Matrix transposed() const { return {entry, column, row}; }
};
template <class S> Matrix<S> row_major(S* entry, int64 columns) { return {entry, columns, 1}; }

constexpr int TILE = 64, DEPTH = 16, PRODUCT_THREADS = 256;

// Entries (i, k) of a tile of TILE x DEPTH into tile[k][i], zeros outside the matrix. Neighbouring threads read
// neighbours in memory.
template <class S>
void load_tile(Acc (&tile)[DEPTH][TILE + 1], Matrix<S> m, int64 i0, int64 k0, int64 rows, int64 depth) {
    const int thread = int(threadIdx.x);
    const bool along_k = m.column == 1;
    int i = along_k ? thread / DEPTH : thread % TILE, k = along_k ? thread % DEPTH : thread / TILE;
    for (int n = 0; n < TILE * DEPTH; n += PRODUCT_THREADS) {
        tile[k][i] = i0 + i < rows && k0 + k < depth ? Acc(load(m.at(i0 + i, k0 + k))) : Acc(0);
        i += along_k ? PRODUCT_THREADS / DEPTH : 0;
        k += along_k ? 0 : PRODUCT_THREADS / TILE;
    }
}

// Adds the product of two tiles: a thread keeps 4x4 entries, sixteen rows and columns apart, so that a warp reads
// different banks.
inline void multiply_tiles(Acc (&sum)[4][4], const Acc (&a_tile)[DEPTH][TILE + 1],
                           const Acc (&b_tile)[DEPTH][TILE + 1]) {
    const int tx = int(threadIdx.x) % 16, ty = int(threadIdx.x) / 16;
    FN_UNROLL(4)
    for (int d = 0; d < DEPTH; d++) {
        Acc left[4], right[4];
        for (int r = 0; r < 4; r++) {
            left[r] = a_tile[d][ty + 16 * r];
            right[r] = b_tile[d][tx + 16 * r];
        }
        for (int r = 0; r < 4; r++)
            for (int s = 0; s < 4; s++) sum[r][s] += left[r] * right[s];
    }
}

// c (m, n) = finish(a (m, k) b (k, n), column). Blocks of PRODUCT_THREADS take the tiles of c in turn.
template <class A, class B, class C, class F>
void product(Matrix<A> a, Matrix<B> b, Matrix<C> c, int64 m, int64 n, int64 k, F finish) {
    FN_SHARED(Acc, a_tile, [DEPTH][TILE + 1]);
    FN_SHARED(Acc, b_tile, [DEPTH][TILE + 1]);
    const int tx = int(threadIdx.x) % 16, ty = int(threadIdx.x) / 16;
    const int64 across = (n + TILE - 1) / TILE, tiles = (m + TILE - 1) / TILE * across;
    for (int64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64 i0 = tile / across * TILE, j0 = tile % across * TILE;
        Acc sum[4][4] = {};
        for (int64 k0 = 0; k0 < k; k0 += DEPTH) {
            load_tile(a_tile, a, i0, k0, m, k);
            load_tile(b_tile, b.transposed(), j0, k0, n, k);
            sync_threads();
            multiply_tiles(sum, a_tile, b_tile);
            sync_threads();
        }
        for (int r = 0; r < 4; r++)
            for (int s = 0; s < 4; s++) {
                const int64 i = i0 + ty + 16 * r, j = j0 + tx + 16 * s;
                if (i < m && j < n) store(c.at(i, j), finish(sum[r][s], j));
            }
    }
}
