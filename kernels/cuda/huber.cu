// Huber's loss: |c| (|r| - |c|/2) a term, where r = x - t and c is r clipped to [-delta, delta]; slopes c and -c.
#include "loss.cuh"

FN_KERNEL(256) huber_terms(const T* x, const Acc* dense, const int64* labels, Acc* sums, int64 size, int64 classes,
                           Acc delta) {
    sum_terms(x, {dense, labels, classes, 0}, sums, size, [=](Acc v, Acc t) {
        // Comparisons, not min() and max(): a NaN must stay one.
        const Acc distance = fabs(v - t), clipped = distance > delta ? delta : distance;
        return clipped * (distance - clipped / 2);
    });
}

FN_KERNEL(256) huber_slopes(const T* x, const Acc* dense, const int64* labels, const T* dy, Acc scale, int64 divisor,
                            T* dx, Acc* dt, int64 size, int64 classes, Acc delta) {
    write_slopes(x, {dense, labels, classes, 0}, dy, scale, divisor, dx, dt, size, [=](Acc v, Acc t) {
        const Acc r = v - t, clipped = r > delta ? delta : r < -delta ? -delta : r;
        return Slopes{clipped, -clipped};
    });
}
