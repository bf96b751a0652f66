// Mean softmax cross-entropy: a warp a row of the logits x (n, classes).
#include "softmax.cuh"

// p = softmax(x); losses[i] is the loss of row i.
FN_KERNEL(256) softmax_cross_entropy_rows(const T* x, const int64* labels, Acc smoothing, Acc* p, Acc* losses, int64 n,
                                          int64 classes) {
    for (int64 i = first_warp(); i < n; i += all_warps()) {
        const Acc loss = softmax_row(x + i * classes, labels[i], smoothing, p + i * classes, classes);
        if (lane_id() == 0) losses[i] = loss;
    }
}

// dx = dy (p - t) / n. dy is the number where it points to, or `scale` where it is null.
FN_KERNEL(256) softmax_cross_entropy_backward(const Acc* p, const int64* labels, const T* dy, Acc scale, Acc smoothing,
                                              T* dx, int64 n, int64 classes) {
    const Acc factor = (dy ? load(dy) : scale) / Acc(n);
    for (int64 i = first_thread(); i < n * classes; i += all_threads())
        store(dx + i, factor * softmax_slope(p[i], i % classes, labels[i / classes], smoothing, classes));
}
