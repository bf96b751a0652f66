// The end of a classifier, one launch each way: x (n, places, channels) is averaged over its places, goes through w
// (channels, classes) and b, and into the mean softmax cross-entropy.
#include "channels.cuh"
#include "softmax.cuh"

constexpr int TOGETHER = 8;  // logits whose sums a lane keeps at a time

// A warp an image. A lane reads again only those means that it wrote itself.
template <int width>
void image_rows(const T* x, const Acc* w, const Acc* b, const int64* labels, Acc smoothing, Acc* means, Acc* logits,
                Acc* p, Acc* losses, int64 n, int64 places, int channels, int classes) {
    for (int64 i = first_warp(); i < n; i += all_warps()) {
        const T* image = x + i * places * channels;
        Acc* mean = means + i * channels;
        for (int c = lane_id() * width; c < channels; c += WARP * width) {
            Acc total[width] = {}, v[width];
            FN_UNROLL(4)
            for (int64 place = 0; place < places; place++) {
                read(v, image + place * channels + c);
                for (int j = 0; j < width; j++) total[j] += v[j];
            }
            for (int j = 0; j < width; j++) mean[c + j] = total[j] / Acc(places);
        }
        Acc* row = logits + i * classes;
        for (int k0 = 0; k0 < classes; k0 += TOGETHER) {
            Acc sum[TOGETHER] = {};
            for (int c = lane_id() * width; c < channels; c += WARP * width)
                for (int j = 0; j < width; j++)
                    for (int k = 0; k < TOGETHER; k++)
                        if (k0 + k < classes) sum[k] += mean[c + j] * w[int64(c + j) * classes + k0 + k];
            for (int k = 0; k < TOGETHER; k++) {
                const Acc z = warp_sum(sum[k]);
                if (lane_id() == k && k0 + k < classes) row[k0 + k] = b ? z + b[k0 + k] : z;
            }
        }
        sync_warp();
        const Acc loss = softmax_row(row, labels[i], smoothing, p + i * classes, classes);
        if (lane_id() == 0) losses[i] = loss;
    }
}

FN_KERNEL(32) pooled_softmax_cross_entropy_rows(const T* x, const Acc* w, const Acc* b, const int64* labels,
                                                Acc smoothing, Acc* means, Acc* logits, Acc* p, Acc* losses, int64 n,
                                                int64 places, int channels, int classes) {
    if (in_packs(channels, x))
        image_rows<Pack::many>(x, w, b, labels, smoothing, means, logits, p, losses, n, places, channels, classes);
    else image_rows<1>(x, w, b, labels, smoothing, means, logits, p, losses, n, places, channels, classes);
}

// The gradients of the logits, but for a factor that all have.
struct Slopes {
    const Acc* p;
    const int64* labels;
    Acc smoothing;
    int classes;
    Acc operator()(int64 image, int k) const {
        return softmax_slope(p[image * classes + k], k, labels[image], smoothing, classes);
    }
};

template <int width>
void image_gradients(Rows r, Slopes slopes, const Acc* w, Acc factor, T* dx) {
    tiles<width>(r, [=](const Tile& tile) {
        if (!tile.inside || tile.first >= tile.stop) return;
        Acc share[width] = {};
        for (int k = 0; k < slopes.classes; k++) {
            const Acc slope = slopes(tile.chunk, k);
            for (int j = 0; j < width; j++) share[j] += slope * w[int64(tile.channel + j) * slopes.classes + k];
        }
        for (int j = 0; j < width; j++) share[j] *= factor / Acc(r.each);
        for (int64 at = tile.first; at < tile.stop; at += tile.step) write(dx + at, share);
    });
}

// dx, dw, db and the mean loss, each where it is wanted, from dy: the number where it points to, or `scale` where it is
// null. x is not read, it only says which type T is.
//
// The first blocks write dx. The last ones add up what is summed over the images, 32 of the entries of dw, db and the
// loss at a time, in that order: eight warps sum every eighth image each, and the first adds the eight sums in order.
FN_KERNEL(256) pooled_softmax_cross_entropy_gradients(const T* x, const Acc* w, const int64* labels, Acc smoothing,
                                                      const Acc* means, const Acc* p, const Acc* losses, const Acc* dy,
                                                      Acc scale, T* dx, Acc* dw, Acc* db, Acc* loss, int64 n,
                                                      int64 places, int channels, int classes) {
    FN_SHARED(Acc, sums, [8][WARP]);
    const Slopes slopes{p, labels, smoothing, classes};
    const Acc factor = (dy ? *dy : scale) / Acc(n);
    if (dx) {
        const Rows r{n * places, channels, places};
        if (in_packs(channels, dx)) image_gradients<Pack::many>(r, slopes, w, factor, dx);
        else image_gradients<1>(r, slopes, w, factor, dx);
    }
    const int64 of_w = int64(channels) * classes, entries = of_w + classes + 1;
    for (int64 job = gridDim.x - 1 - blockIdx.x; job * WARP < entries; job += gridDim.x) {
        const int64 entry = job * WARP + lane_id();
        const Divided place = divided(entry, classes);
        const int k = int(place.remainder);
        Acc* const to = entry < of_w ? dw : entry < of_w + classes ? db : loss;
        Acc sum = 0;
        if (to && entry < entries)
            for (int64 i = warp_id(); i < n; i += 8)
                sum += entry == entries - 1 ? losses[i]
                                            : slopes(i, k) * (entry < of_w ? means[i * channels + place.quotient] : 1);
        sums[warp_id()][lane_id()] = sum;
        sync_threads();
        if (warp_id() == 0 && to && entry < entries) {
            for (int other = 1; other < 8; other++) sum += sums[other][lane_id()];
            if (entry < of_w) dw[entry] = factor * sum;
            else if (entry < of_w + classes) db[k] = factor * sum;
            else *loss = sum / Acc(n);
        }
        sync_threads();
    }
}
