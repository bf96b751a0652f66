// What the updates share: numbers that may change from one replay of a recorded launch to the next, the regularization
// (`fastnet.functions._update` has its meaning), the loop over the vectors. A rate that is NaN is that of a step whose
// update is to be left out: nothing is written then.
#pragma once
#include "common.cuh"

// 1 - beta^t to the last digits. The logarithm of a beta of 0 is -infinity.
inline double one_minus_power(double log_beta, double t) { return -expm1(t * log_beta); }

// w[i] = step(i, w[i] after decoupled decay, g[i] with the gradients of the penalties at the w before it) for all i.
template <class Step>
void update(double rate, T decay, T l1, double shrink, int64 penalised, T* w, const T* g, int64 size, Step step) {
    if (rate != rate) return;
    const T shrinking = T(rate * shrink);
    FN_UNROLL(1)  // else the roots of Adadelta spill
    for (int64 i = first_thread(); i < size; i += all_threads()) {
        T kept = w[i], slope = g[i];
        if (i < penalised) {
            slope += decay * kept;
            if (kept > 0) slope += l1;
            else if (kept < 0) slope -= l1;
            kept -= shrinking * kept;
        }
        w[i] = step(i, kept, slope);
    }
}
