// Mean softmax cross-entropy: a warp a row of the logits x (n, classes), the row's classes spread over its lanes.
#include "common.cuh"

// p = softmax(x); losses[i] is the loss of row i: NaN where its label is no class, which nobody can raise for here.
FN_KERNEL(256) softmax_cross_entropy_rows(const T* x, const int64* labels, Acc smoothing, Acc* p, Acc* losses, int64 n,
                                          int64 classes) {
    for (int64 i = first_warp(); i < n; i += all_warps()) {
        const T* row = x + i * classes;
        Acc top = -infinity();
        for (int64 k = lane_id(); k < classes; k += WARP) {
            Acc v = load(row + k);
            top = v > top || v != v ? v : top;
        }
        top = warp_max(top);
        Acc total = 0, sum_shifted = 0;
        for (int64 k = lane_id(); k < classes; k += WARP) {
            Acc shifted = load(row + k) - top;
            p[i * classes + k] = exp(shifted);
            total += exp(shifted);
            sum_shifted += shifted;
        }
        total = warp_sum(total);
        sum_shifted = warp_sum(sum_shifted);
        for (int64 k = lane_id(); k < classes; k += WARP) p[i * classes + k] /= total;
        if (lane_id() == 0) {
            bool known = labels[i] >= 0 && labels[i] < classes;
            Acc at_label = known ? load(row + labels[i]) - top : not_a_number();
            losses[i] = log(total) - (1 - smoothing) * at_label - smoothing * (sum_shifted / Acc(classes));
        }
    }
}

// dx = dy (p - t) / n. dy is the number where it points to, or `scale` where it is null.
FN_KERNEL(256) softmax_cross_entropy_backward(const Acc* p, const int64* labels, const T* dy, Acc scale, Acc smoothing,
                                              T* dx, int64 n, int64 classes) {
    const Acc factor = (dy ? load(dy) : scale) / Acc(n), rest = smoothing / Acc(classes);
    for (int64 i = first_thread(); i < n * classes; i += all_threads()) {
        bool here = i % classes == labels[i / classes];
        store(dx + i, factor * (p[i] - rest - (here ? 1 - smoothing : Acc(0))));
    }
}
