// Softmax cross-entropy of a row of logits, the classes spread over the lanes of a warp.
#pragma once
#include "common.cuh"

// p = softmax(row). Lane 0 gets the row's loss: NaN where its label is no class, which nobody can raise for here.
template <class S> Acc softmax_row(const S* row, int64 label, Acc smoothing, Acc* p, int64 classes) {
    Acc top = -infinity();
    for (int64 k = lane_id(); k < classes; k += WARP) {
        Acc v = load(row + k);
        top = v > top || v != v ? v : top;
    }
    top = warp_max(top);
    Acc total = 0, sum_shifted = 0;
    for (int64 k = lane_id(); k < classes; k += WARP) {
        Acc shifted = load(row + k) - top;
        p[k] = exp(shifted);
        total += exp(shifted);
        sum_shifted += shifted;
    }
    total = warp_sum(total);
    sum_shifted = warp_sum(sum_shifted);
    for (int64 k = lane_id(); k < classes; k += WARP) p[k] /= total;
    if (lane_id() != 0) return 0;
    bool known = label >= 0 && label < classes;
    Acc at_label = known ? load(row + label) - top : not_a_number();
    return log(total) - (1 - smoothing) * at_label - smoothing * (sum_shifted / Acc(classes));
}

// What the loss of a row grows by with logit k, of probability p.
inline Acc softmax_slope(Acc p, int64 k, int64 label, Acc smoothing, int64 classes) {
    return p - smoothing / Acc(classes) - (k == label ? 1 - smoothing : Acc(0));
}
