// Random words, row by row for the samples given: words (n, count).
#include "philox.cuh"

FN_TYPES(float);  // of which there are none here

// A thread makes four words of a row at a time.
FN_KERNEL(256) philox_words(const int64* samples, uint32* words, int64 n, int64 count, uint32 epoch, uint32 stream,
                            uint32 key0, uint32 key1) {
    const int64 blocks = (count + 3) / 4;
    for (int64 i = first_thread(); i < n * blocks; i += all_threads()) {
        const Divided at = divided(i, blocks);
        const Words made = philox(uint32(at.remainder), uint32(samples[at.quotient]), epoch, stream, key0, key1);
        const int64 start = at.quotient * count + 4 * at.remainder, left = count - 4 * at.remainder;
        for (int k = 0; k < 4; k++)
            if (k < left) words[start + k] = made.word[k];
    }
}
