// Linear layer: y = x w + b, dx = dy w^T, dw = x^T dy, db = sum_n dy_n. x, y: (n, in), (n, out) of T; w, b of Acc.
#include "product.cuh"

FN_KERNEL(256) linear_forward(const T* x, const Acc* w, const Acc* b, T* y, int64 n, int64 in, int64 out) {
    product(row_major(x, in), row_major(w, out), row_major(y, out), n, out, in,
            [=](Acc sum, int64 j) { return b ? sum + b[j] : sum; });
}

FN_KERNEL(256) linear_dx(const T* dy, const Acc* w, T* dx, int64 n, int64 in, int64 out) {
    product(row_major(dy, out), row_major(w, out).transposed(), row_major(dx, in), n, in, out,
            [](Acc sum, int64) { return sum; });
}

FN_KERNEL(256) linear_dw(const T* x, const T* dy, Acc* dw, int64 n, int64 in, int64 out) {
    product(row_major(x, in).transposed(), row_major(dy, out), row_major(dw, out), in, out, n,
            [](Acc sum, int64) { return sum; });
}

// A block takes 32 columns at a time: eight warps sum every eighth row each, and the first adds the eight sums in order.
FN_KERNEL(256) linear_db(const T* dy, Acc* db, int64 n, int64 out) {
    FN_SHARED(Acc, part, [8][WARP]);
    for (int64 j0 = int64(blockIdx.x) * WARP; j0 < out; j0 += int64(gridDim.x) * WARP) {
        const int64 j = j0 + lane_id();
        Acc sum = 0;
        if (j < out)
            for (int64 i = warp_id(); i < n; i += 8) sum += load(dy + i * out + j);
        part[warp_id()][lane_id()] = sum;
        sync_threads();
        if (warp_id() == 0 && j < out) {
            for (int r = 1; r < 8; r++) sum += part[r][lane_id()];
            db[j] = sum;
        }
        sync_threads();
    }
}
