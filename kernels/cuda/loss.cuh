// What the losses of independent logits share. x is (n, classes) in one vector; targets are as dense, or labels.
#pragma once
#include "logistic.cuh"

// The target of entry i. A label stands for a row of `off` with 1 in its column; one that is no class, which nobody can
// raise for here, makes the whole row NaN.
struct Targets {
    const Acc* dense;
    const int64* labels;
    int64 classes;
    Acc off;
    Acc at(int64 i) const {
        if (dense) return dense[i];
        const Divided place = divided(i, classes);
        const int64 label = labels[place.quotient];
        if (label < 0 || label >= classes) return not_a_number();
        return label == place.remainder ? Acc(1) : off;
    }
};

// The sum over the block's 256 threads, in the first of them.
inline Acc block_sum(Acc sum) {
    FN_SHARED(Acc, part, [256 / WARP]);
    sum = warp_sum(sum);
    if (lane_id() == 0) part[warp_id()] = sum;
    sync_threads();
    if (threadIdx.x == 0)
        for (int w = 1; w < 256 / WARP; w++) sum += part[w];
    return sum;
}

// sums[block] = the sum of term(x, t) over the entries of the block: which ones, the size of the grid says.
template <class F> void sum_terms(const T* x, Targets targets, Acc* sums, int64 size, F term) {
    Acc sum = 0;
    FN_UNROLL(1)  // by four, as the compiler would, it spills
    for (int64 i = first_thread(); i < size; i += all_threads()) sum += term(load(x + i), targets.at(i));
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

struct Slopes { Acc x, target; };  // of one term

// dx and dt, each where it is wanted, from dy: the number where it points to, or `scale` where it is null.
template <class F>
void write_slopes(const T* x, Targets targets, const T* dy, Acc scale, int64 divisor, T* dx, Acc* dt, int64 size,
                  F slopes) {
    const Acc factor = (dy ? load(dy) : scale) / Acc(divisor);
    for (int64 i = first_thread(); i < size; i += all_threads()) {
        const Slopes found = slopes(load(x + i), targets.at(i));
        if (dx) store(dx + i, found.x * factor);
        if (dt) dt[i] = found.target * factor;
    }
}
