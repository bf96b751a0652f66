// Inverted dropout: entry e of a sample is scaled where word e of the sample's random words is `threshold` or more, and
// becomes 0 elsewhere. x and y are (n, count).
#include "philox.cuh"

// What one block of random words is for, in one access where its address allows.
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four { T entry[4]; };

FN_KERNEL(256) dropout_mask(const T* x, const int64* samples, T* y, int64 n, int64 count, uint32 threshold, Acc scale,
                            const double* epoch_at, double epoch, uint32 stream, uint32 key0, uint32 key1) {
    const uint32 now = uint32(number(epoch_at, epoch));
    const int64 blocks = (count + 3) / 4;
    const bool aligned = count % 4 == 0 && ((uint64(x) | uint64(y)) & (alignof(Four) - 1)) == 0;
    for (int64 i = first_thread(); i < n * blocks; i += all_threads()) {
        const Divided at = divided(i, blocks);
        const Words words = philox(uint32(at.remainder), uint32(samples[at.quotient]), now, stream, key0, key1);
        const int64 start = at.quotient * count + 4 * at.remainder, left = count - 4 * at.remainder;
        auto masked = [&](T* to, const T* from, int k) {
            store(to, words.word[k] >= threshold ? load(from) * scale : Acc(0));
        };
        if (aligned) {
            Four four = *reinterpret_cast<const Four*>(x + start);
            for (int k = 0; k < 4; k++) masked(&four.entry[k], &four.entry[k], k);
            *reinterpret_cast<Four*>(y + start) = four;
        } else {
            for (int k = 0; k < 4; k++)
                if (k < left) masked(y + start + k, x + start + k, k);
        }
    }
}
