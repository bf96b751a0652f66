// Cross-entropy of binary decisions: max(x, 0) - t x + log(1 + exp(-|x|)) a term; slopes s(x) - t and -x.
#include "loss.cuh"

FN_KERNEL(256) sigmoid_cross_entropy_terms(const T* x, const Acc* dense, const int64* labels, Acc* sums, int64 size,
                                           int64 classes) {
    sum_terms(x, {dense, labels, classes, 0}, sums, size, [](Acc v, Acc t) {
        // The difference first: where the two are nearly equal the logarithm is all of the loss.
        return (positive(v) - t * v) + softplus_tail(v);
    });
}

FN_KERNEL(256) sigmoid_cross_entropy_slopes(const T* x, const Acc* dense, const int64* labels, const T* dy, Acc scale,
                                            int64 divisor, T* dx, Acc* dt, int64 size, int64 classes) {
    write_slopes(x, {dense, labels, classes, 0}, dy, scale, divisor, dx, dt, size, [](Acc v, Acc t) {
        return Slopes{sigmoid(v) - t, -v};
    });
}
