// Gaussian error linear unit: y = x P, dx = dy (P + x P'), with P exact or in Hendrycks' tanh form.
#include "logistic.cuh"

// From here on P is 0 or 1 and P' is 0, in double too; powers of what lies beyond could overflow. A NaN stays one.
inline Acc bounded(Acc x) { return x > 40 ? Acc(40) : x < -40 ? Acc(-40) : x; }

constexpr double SCALE = 0.79788456080286535588, CUBIC = 0.044715;  // sqrt(2/pi)
constexpr double ROOT_HALF = 0.70710678118654752440, DENSITY = 0.39894228040143267794;  // sqrt(1/2), 1/sqrt(2 pi)

inline Acc exact(Acc x) { return Acc(0.5) * (1 + erf(x * Acc(ROOT_HALF))); }
// (1 + tanh u)/2 is the logistic function of 2u, which loses no digits where P is small.
inline Acc by_tanh(Acc x) { return sigmoid(Acc(2 * SCALE) * (x + Acc(CUBIC) * x * x * x)); }

FN_KERNEL(256) gelu_forward(const T* x, T* y, int64 size) {
    elementwise([](Acc v) { return v * exact(bounded(v)); }, size, y, x);
}

FN_KERNEL(256) gelu_backward(const T* dy, const T* x, T* dx, int64 size) {
    elementwise([](Acc slope, Acc v) {
        const Acc b = bounded(v);
        return slope * (exact(b) + b * (Acc(DENSITY) * exp(Acc(-0.5) * b * b)));
    }, size, dx, dy, x);
}

FN_KERNEL(256) gelu_tanh_forward(const T* x, T* y, int64 size) {
    elementwise([](Acc v) { return v * by_tanh(bounded(v)); }, size, y, x);
}

FN_KERNEL(256) gelu_tanh_backward(const T* dy, const T* x, T* dx, int64 size) {
    elementwise([](Acc slope, Acc v) {
        const Acc b = bounded(v), p = by_tanh(b);
        return slope * (p + b * (p * (1 - p) * Acc(2 * SCALE) * (1 + Acc(3 * CUBIC) * b * b)));
    }, size, dx, dy, x);
}
