// Squared error: (x - t)^2 a term; slopes 2 (x - t) and its negative.
#include "loss.cuh"

FN_KERNEL(256) mean_squared_error_terms(const T* x, const Acc* dense, const int64* labels, Acc* sums, int64 size,
                                        int64 classes) {
    sum_terms(x, {dense, labels, classes, 0}, sums, size, [](Acc v, Acc t) {
        return (v - t) * (v - t);
    });
}

FN_KERNEL(256) mean_squared_error_slopes(const T* x, const Acc* dense, const int64* labels, const T* dy, Acc scale,
                                         int64 divisor, T* dx, Acc* dt, int64 size, int64 classes) {
    write_slopes(x, {dense, labels, classes, 0}, dy, scale, divisor, dx, dt, size, [](Acc v, Acc t) {
        const Acc slope = 2 * (v - t);
        return Slopes{slope, -slope};
    });
}
