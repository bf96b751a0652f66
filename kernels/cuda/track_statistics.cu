// Running mean and variance, moved towards those of a batch.
#include "common.cuh"

FN_TYPES(float, double);

FN_KERNEL(256) track_statistics(T* running_mean, T* running_var, const T* mean, const T* var, T decay, T of_mean,
                                T of_var, int64 channels) {
    for (int64 c = first_thread(); c < channels; c += all_threads()) {
        running_mean[c] = running_mean[c] * decay + of_mean * mean[c];
        running_var[c] = running_var[c] * decay + of_var * var[c];
    }
}
