// Soft-margin loss: log(1 + exp(-t x)) a term; slopes -t s(-t x) and -x s(-t x). Labels mean targets of -1 and 1.
#include "loss.cuh"

FN_KERNEL(256) soft_margin_terms(const T* x, const Acc* dense, const int64* labels, Acc* sums, int64 size,
                                 int64 classes) {
    sum_terms(x, {dense, labels, classes, -1}, sums, size, [](Acc v, Acc t) {
        return positive(-t * v) + softplus_tail(t * v);
    });
}

FN_KERNEL(256) soft_margin_slopes(const T* x, const Acc* dense, const int64* labels, const T* dy, Acc scale,
                                  int64 divisor, T* dx, Acc* dt, int64 size, int64 classes) {
    write_slopes(x, {dense, labels, classes, -1}, dy, scale, divisor, dx, dt, size, [](Acc v, Acc t) {
        const Acc slope = -sigmoid(-t * v);
        return Slopes{t * slope, v * slope};
    });
}
