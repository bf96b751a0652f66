// Images gathered, augmented and standardized as in `fastnet.functions.augment_batch`: y (n, height, width, channels). A
// block takes a sample, and its first thread draws.
#include "augment.cuh"

constexpr int ATTEMPTS = 10, FIRST_ATTEMPT = 8, TERMS = 8;
constexpr double LOG_ASPECT = 0x1.269621134db91p-2, FRACTION = 0x1p-32;  // log(4/3)

// The square that is hidden: `cutout` pixels a side from (top, left) on.
struct Hidden {
    int cutout, top, left;
    bool operator()(int i, int j) const {
        return uint32(i - top) < uint32(cutout) && uint32(j - left) < uint32(cutout);
    }
};

// What is cut out of an image: `tall` x `wide` pixels, which are resized where those are not the image's.
struct Plan {
    Cut cut;
    int tall, wide;
    Hidden hidden;
};

// y_b = cutout(entry(plan_b, i, j, c)) for every sample b; draw(b) makes its plan.
template <class D, class F> void augmented(T* y, int n, const Stored& stored, D draw, F entry) {
    FN_SHARED(Plan, shared, [1]);
    const Divider channels = stored.channels, width = stored.width;
    const int size = stored.height * stored.width * stored.channels;
    for (int b = int(blockIdx.x); b < n; b += int(gridDim.x)) {
        if (threadIdx.x == 0) shared[0] = draw(b);
        sync_threads();
        const Plan plan = shared[0];
        for (int k = int(threadIdx.x); k < size; k += int(blockDim.x)) {
            const int pixel = channels(k), i = width(pixel), j = pixel - i * stored.width;
            store(y + int64(b) * size + k,
                  plan.hidden(i, j) ? Acc(0) : entry(plan, i, j, k - pixel * stored.channels));
        }
        sync_threads();
    }
}

inline Hidden hidden_square(int cutout, int height, int width, int64 sample, uint32 epoch, uint32 key0, uint32 key1) {
    if (cutout == 0) return {0, 0, 0};
    const Words words = philox(1, uint32(sample), epoch, AUGMENT, key0, key1);
    return {cutout, below(height, words.word[0]) - cutout / 2, below(width, words.word[1]) - cutout / 2};
}

FN_KERNEL(256) augment_batch_crop(const uint8* images, const int64* indices, const int64* samples, const Acc* mean,
                                  const Acc* scale, T* y, int n, int64 stored, int height, int width, int channels,
                                  uint32 epoch, uint32 key0, uint32 key1, int horizontal, int vertical, int cutout,
                                  int pad) {
    const Stored source = {images, mean, scale, stored, height, width, channels};
    augmented(y, n, source,
              [&](int b) {
                  const Drawn drawn(samples[b], epoch, key0, key1);
                  return Plan{drawn.cut(source.image(indices[b]), pad, horizontal, vertical), height, width,
                              hidden_square(cutout, height, width, samples[b], epoch, key0, key1)};
              },
              [&](const Plan& plan, int i, int j, int c) { return source.entry(plan.cut, i, j, c); });
}

// Top, left, height and width of the first attempt that fits; (tall, wide) in the middle where none does.
inline void draw_rectangle(Plan& plan, int height, int width, int64 sample, uint32 epoch, uint32 key0, uint32 key1,
                           double lo, double hi, int tall, int wide) {
    plan.cut.top = (height - tall) / 2;
    plan.cut.left = (width - wide) / 2;
    plan.tall = tall;
    plan.wide = wide;
    for (int k = 0; k < ATTEMPTS; k++) {
        const Words words = philox(FIRST_ATTEMPT / 4 + k, uint32(sample), epoch, AUGMENT, key0, key1);
        const double part = lo + rounded_product(hi - lo, words.word[0] * FRACTION);
        const double side = sqrt(rounded_product(height * width, part));
        const double half = rounded_product(LOG_ASPECT, rounded_product(words.word[1], FRACTION) - 0.5);
        double root = 1;
        for (int term = TERMS; term > 0; term--) root = 1 + rounded_product(half, root) / term;
        const double h = rint(side / root), w = rint(rounded_product(side, root));
        if (h >= 1 && h <= height && w >= 1 && w <= width) {
            plan.tall = int(h);
            plan.wide = int(w);
            plan.cut.top = below(height - plan.tall + 1, words.word[2]);
            plan.cut.left = below(width - plan.wide + 1, words.word[3]);
            return;
        }
    }
}

// The two pixels of `length` between which a place of the result lies, and how far on.
struct Between {
    int first, second;
    Acc part;
    Between(int place, int length, int size) {
        const double on = rounded_product(place + 0.5, double(length) / size) - 0.5, at = on > 0 ? on : 0;
        first = int(at);
        second = first + 1 < length ? first + 1 : length - 1;
        part = Acc(at - first);
    }
    Acc operator()(Acc a, Acc b) const { return a + rounded_product(b - a, part); }
};

FN_KERNEL(256) augment_batch_resize(const uint8* images, const int64* indices, const int64* samples, const Acc* mean,
                                    const Acc* scale, T* y, int n, int64 stored, int height, int width, int channels,
                                    uint32 epoch, uint32 key0, uint32 key1, int horizontal, int vertical, int cutout,
                                    double lo, double hi, int tall, int wide) {
    const Stored source = {images, mean, scale, stored, height, width, channels};
    augmented(y, n, source,
              [&](int b) {
                  const Drawn drawn(samples[b], epoch, key0, key1);
                  Plan plan = {drawn.cut(source.image(indices[b]), 0, horizontal, vertical), height, width,
                               hidden_square(cutout, height, width, samples[b], epoch, key0, key1)};
                  draw_rectangle(plan, height, width, samples[b], epoch, key0, key1, lo, hi, tall, wide);
                  return plan;
              },
              [&](const Plan& plan, int i, int j, int c) {
                  const Cut& cut = plan.cut;
                  if (!cut.image) return source.standardized(not_a_number(), i, j, c);
                  const Between down(cut.turned ? height - 1 - i : i, plan.tall, height);
                  const Between along(cut.mirrored ? width - 1 - j : j, plan.wide, width);
                  auto level = [&](int row, int column) {
                      return Acc(cut.image[((cut.top + row) * width + cut.left + column) * channels + c]);
                  };
                  const Acc first = down(level(down.first, along.first), level(down.second, along.first));
                  const Acc last = down(level(down.first, along.second), level(down.second, along.second));
                  return source.standardized(along(first, last), i, j, c);
              });
}
