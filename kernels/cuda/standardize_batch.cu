// Images gathered and standardized: y (n, height, width, channels). An index that is no image makes its sample NaN.
#include "augment.cuh"

FN_KERNEL(256) standardize_batch_run(const uint8* images, const int64* indices, const Acc* mean, const Acc* scale, T* y,
                                     int64 n, int64 stored, int height, int width, int channels) {
    const int64 size = int64(height) * width * channels;
    for (int64 k = first_thread(); k < n * size; k += all_threads()) {
        const Divided at = divided(k, size);
        const int64 index = indices[at.quotient];
        const Acc level = index < 0 || index >= stored ? not_a_number() : Acc(images[index * size + at.remainder]);
        store(y + k, (level - mean[at.remainder]) * scale[at.remainder]);
    }
}
