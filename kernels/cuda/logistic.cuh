// The logistic function and its integral, without overflow: the exponential sees no positive number.
#pragma once
#include "elementwise.cuh"

// 1 / (1 + exp(-x)), accurate on both sides.
inline Acc sigmoid(Acc x) {
    const Acc decay = exp(-fabs(x));
    return (x < 0 ? decay : Acc(1)) / (1 + decay);
}
// log(1 + exp(x)) is positive(x) + softplus_tail(x). In this order a NaN stays one.
inline Acc positive(Acc x) { return x < 0 ? Acc(0) : x; }
inline Acc softplus_tail(Acc x) { return log1p(exp(-fabs(x))); }
