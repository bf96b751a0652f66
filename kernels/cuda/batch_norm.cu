// Batch normalisation of x (rows, channels), alone or with what follows it.
//
//     y = x^ gamma + beta          y = max(0, x^ gamma + beta)          y = max(0, x^ gamma + beta + shortcut)
//
// Sums over the rows come in two steps: `part` (2, channels, chunks) has those of each chunk of rows, and then a block a
// channel adds them. Convolutions make such parts as well (conv3x3.cu), for a large batch thousands of chunks.
#include "norm.cuh"

// The sums of x - k and of its square, where k is the chunk's first row. That is a row of the chunk's own, so what
// cancels in the chunk's variance is little, however far from zero the mean lies.
template <int width> void shifted_sums(Rows r, const T* x, Acc* part) {
    column_sums<width, 2>(r, [=](const Tile& tile, Acc (&total)[2][width]) {
        Acc origin[width], v[width];
        read(origin, x + r.start(tile.chunk) * r.channels + tile.channel);
        FN_UNROLL(2)
        for (int64 at = tile.first; at < tile.stop; at += tile.step) {
            read(v, x + at);
            for (int j = 0; j < width; j++) {
                const Acc d = v[j] - origin[j];
                total[0][j] += d;
                total[1][j] += d * d;
            }
        }
    }, [=](int64 chunk, int channel, const Acc (&total)[2]) {
        const int64 chunks = r.chunks();
        for (int s = 0; s < 2; s++) part[(int64(s) * r.channels + channel) * chunks + chunk] = total[s];
    });
}

FN_KERNEL(256) batch_norm_sums(const T* x, Acc* part, int64 rows, int channels, int64 each) {
    const Rows r{rows, channels, each};
    if (in_packs(channels, x)) shifted_sums<Pack::many>(r, x, part);
    else shifted_sums<1>(r, x, part);
}

inline void keep(Acc* found, int channels, int64 c, Acc mean, Acc var, Acc gamma, Acc eps) {
    const Acc rstd = 1 / sqrt(var + eps);
    found[MEAN * channels + c] = mean;
    found[VAR * channels + c] = var;
    found[RSTD * channels + c] = rstd;
    found[SCALE * channels + c] = gamma * rstd;
}

// The chunks' means and sums of squares about them, put together in double.
FN_KERNEL(256) batch_norm_statistics(const T* x, const Acc* part, const Acc* gamma, Acc eps, Acc* found, int64 rows,
                                     int channels, int64 each) {
    const Rows r{rows, channels, each};
    const int64 chunks = r.chunks();
    for (int64 c = blockIdx.x; c < channels; c += gridDim.x) {
        const Acc *sums = part + c * chunks, *squares = sums + channels * chunks;
        double total = 0, around = 0;
        FN_UNROLL(2)
        for (int64 k = threadIdx.x; k < chunks; k += CHANNEL_THREADS)
            total += double(r.stop(k) - r.start(k)) * load(x + r.start(k) * channels + c) + sums[k];
        const double mean = block_sum(total) / double(rows);
        FN_UNROLL(1)
        for (int64 k = threadIdx.x; k < chunks; k += CHANNEL_THREADS) {
            const double count = double(r.stop(k) - r.start(k)), shift = sums[k] / count;
            const double off = load(x + r.start(k) * channels + c) + shift - mean;
            around += squares[k] - sums[k] * shift + count * off * off;
        }
        const double var = block_sum(around) / double(rows);
        if (threadIdx.x == 0) keep(found, channels, c, Acc(mean), Acc(var < 0 ? 0 : var), gamma[c], eps);
    }
}

// The same of statistics that are given. x is not read, it only says which type T is.
FN_KERNEL(256) batch_norm_given(const T* x, const Acc* mean, const Acc* var, const Acc* gamma, Acc eps, Acc* found,
                                int channels) {
    for (int64 c = first_thread(); c < channels; c += all_threads())
        keep(found, channels, c, mean[c], var[c], gamma[c], eps);
}

template <int width>
void normalise(Rows r, const T* x, const Acc* found, const Acc* beta, const T* shortcut, bool relu, T* y) {
    tiles<width>(r, [=](const Tile& tile) {
        if (!tile.inside) return;
        Acc mean[width], scale[width], shift[width], v[width], other[width];
        get(mean, found + MEAN * r.channels, tile.channel);
        get(scale, found + SCALE * r.channels, tile.channel);
        get(shift, beta, tile.channel);
        for (int64 at = tile.first; at < tile.stop; at += tile.step) {
            read(v, x + at);
            if (shortcut) read(other, shortcut + at);
            for (int j = 0; j < width; j++) {
                v[j] = fma(v[j] - mean[j], scale[j], shift[j]);
                if (shortcut) v[j] += other[j];
                if (relu && v[j] <= 0) v[j] = 0;  // a NaN stays one
            }
            write(y + at, v);
        }
    });
}

FN_KERNEL(256) batch_norm_normalise(const T* x, const Acc* found, const Acc* beta, const T* shortcut, int relu, T* y,
                                    int64 rows, int channels, int64 each) {
    const Rows r{rows, channels, each};
    if (in_packs(channels, x, shortcut, y)) normalise<Pack::many>(r, x, found, beta, shortcut, relu, y);
    else normalise<1>(r, x, found, beta, shortcut, relu, y);
}

// What passes dy on to the normalisation: everything, or only where y is positive; where y is not at hand but `beta`
// is, the instructions of `normalise` say where, so to the same bits.
template <int width> struct Gate {
    Acc mean[width], scale[width], shift[width];
    const Acc* beta;
    const T* y;
    Gate(Rows r, const Acc* found, const Acc* beta, const T* y, int channel) : shift{}, beta(beta), y(y) {
        get(mean, found + MEAN * r.channels, channel);
        get(scale, found + SCALE * r.channels, channel);
        if (beta) get(shift, beta, channel);
    }
    // g *= whether it passes; d = x - mean, or 0 without x.
    void operator()(Acc (&g)[width], Acc (&d)[width], const T* x, int64 at) const {
        Acc result[width] = {};
        if (x) read(d, x + at);
        if (y) read(result, y + at);
        for (int j = 0; j < width; j++) {
            d[j] = x ? d[j] - mean[j] : Acc(0);
            if (!y) result[j] = beta ? fma(d[j], scale[j], shift[j]) : Acc(1);
            g[j] = result[j] > 0 ? g[j] : Acc(0);
        }
    }
};

// The sums of dy, as far as it passes, and of dy (x - mean). With `passed` what passes is kept there.
template <int width>
void gradient_sums(Rows r, const T* dy, const T* x, const Acc* found, const Acc* beta, const T* y, T* passed,
                   Acc* part) {
    column_sums<width, 2>(r, [=](const Tile& tile, Acc (&total)[2][width]) {
        const Gate<width> gate(r, found, beta, y, tile.channel);
        Acc g[width], d[width] = {};
        for (int64 at = tile.first; at < tile.stop; at += tile.step) {
            read(g, dy + at);
            gate(g, d, x, at);
            if (passed) write(passed + at, g);
            for (int j = 0; j < width; j++) {
                total[0][j] += g[j];
                total[1][j] += g[j] * d[j];
            }
        }
    }, [=](int64 chunk, int channel, const Acc (&total)[2]) {
        const int64 chunks = r.chunks();
        for (int s = 0; s < 2; s++) part[(int64(s) * r.channels + channel) * chunks + chunk] = total[s];
    });
}

FN_KERNEL(256) batch_norm_gradient_sums(const T* dy, const T* x, const Acc* found, const Acc* beta, const T* y,
                                        T* passed, Acc* part, int64 rows, int channels, int64 each) {
    const Rows r{rows, channels, each};
    if (in_packs(channels, dy, x, y, passed))
        gradient_sums<Pack::many>(r, dy, x, found, beta, y, passed, part);
    else gradient_sums<1>(r, dy, x, found, beta, y, passed, part);
}

// The gradients of gamma and beta, each where it is wanted; and `others` (2, channels), those of the mean and of the
// variance where these were given, else the mean of dy and what dx has of x - mean. x only says which type T is.
FN_KERNEL(256) batch_norm_gradients(const T* x, const Acc* part, const Acc* found, int given, Acc* dgamma, Acc* dbeta,
                                    Acc* others, int64 rows, int channels, int64 each) {
    const int64 chunks = Rows{rows, channels, each}.chunks();
    for (int64 c = blockIdx.x; c < channels; c += gridDim.x) {
        const Acc *sums = part + c * chunks, *products = sums + channels * chunks;
        double sum = 0, product = 0;
        for (int64 k = threadIdx.x; k < chunks; k += CHANNEL_THREADS) {
            sum += sums[k];
            product += products[k];
        }
        sum = block_sum(sum);
        product = block_sum(product);
        if (threadIdx.x == 0) {
            const double rstd = found[RSTD * channels + c], scale = found[SCALE * channels + c];
            product *= rstd;
            if (dgamma) dgamma[c] = Acc(product);
            if (dbeta) dbeta[c] = Acc(sum);
            others[c] = Acc(given ? -scale * sum : sum / double(rows));
            others[channels + c] = Acc(given ? -scale * rstd * product / 2 : product / double(rows) * rstd);
        }
    }
}

// dx = scale (dy - mean of dy - slope (x - mean)), or scale dy without `others`, where the statistics were given;
// then x is needed only for the gate, and null where y or nothing is that.
template <int width>
void input_gradient(Rows r, const T* dy, const T* x, const Acc* found, const Acc* beta, const T* y,
                    const Acc* others, T* dx) {
    tiles<width>(r, [=](const Tile& tile) {
        if (!tile.inside) return;
        const Gate<width> gate(r, found, beta, y, tile.channel);
        Acc mean_dy[width] = {}, slope[width] = {}, g[width], d[width] = {};
        if (others) {
            get(mean_dy, others, tile.channel);
            get(slope, others + r.channels, tile.channel);
        }
        for (int64 at = tile.first; at < tile.stop; at += tile.step) {
            read(g, dy + at);
            gate(g, d, x, at);
            for (int j = 0; j < width; j++) g[j] = gate.scale[j] * (g[j] - mean_dy[j] - slope[j] * d[j]);
            write(dx + at, g);
        }
    });
}

FN_KERNEL(256) batch_norm_dx(const T* dy, const T* x, const Acc* found, const Acc* beta, const T* y,
                             const Acc* others, T* dx, int64 rows, int channels, int64 each) {
    const Rows r{rows, channels, each};
    if (in_packs(channels, dy, x, y, dx)) input_gradient<Pack::many>(r, dy, x, found, beta, y, others, dx);
    else input_gradient<1>(r, dy, x, found, beta, y, others, dx);
}
