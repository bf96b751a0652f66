// What the kernels around a batch normalisation share: what is known of its channels, ReLU of it, its gradient.
#pragma once
#include "channels.cuh"

// `found` (4, channels): the mean, the variance, rstd = 1/sqrt(variance + eps) and scale = gamma rstd.
enum Found { MEAN, VAR, RSTD, SCALE };

template <int width> void get(Acc (&v)[width], const Acc* from, int channel) {
    for (int j = 0; j < width; j++) v[j] = from[channel + j];
}

// max(0, batch normalisation) of `width` channels from number `channel` on, as max(0, scale x + shift): half the numbers
// to hold in registers. Even where the mean is 30 standard deviations the rounding of `shift` is far below that to T.
template <int width> struct NormReLU {
    Acc mean[width], scale[width], shift[width];
    NormReLU(const Acc* found, const Acc* beta, int channels, int channel) {
        get(mean, found + MEAN * channels, channel);
        get(scale, found + SCALE * channels, channel);
        get(shift, beta, channel);
        for (int j = 0; j < width; j++) shift[j] = fma(-mean[j], scale[j], shift[j]);
    }
    void operator()(Acc (&x)[width]) const {
        for (int j = 0; j < width; j++) {
            const Acc y = fma(x[j], scale[j], shift[j]);
            x[j] = y <= 0 ? Acc(0) : y;  // a NaN stays one
        }
    }
    // g where x passes, by the same instructions, else 0; and x - mean.
    void back(Acc (&g)[width], Acc (&x)[width]) const {
        for (int j = 0; j < width; j++) {
            g[j] = fma(x[j], scale[j], shift[j]) > 0 ? g[j] : Acc(0);
            x[j] -= mean[j];
        }
    }
};
