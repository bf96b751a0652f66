// Philox's rounds on their own: words (n, 4) from counters (n, 4) and keys (n, 2).
#include "philox.cuh"

FN_TYPES(float);

FN_KERNEL(32) rounds(const uint32* counter, const uint32* key, uint32* words, int64 n) {
    for (int64 i = first_thread(); i < n; i += all_threads()) {
        const uint32 *c = counter + 4 * i, *k = key + 2 * i;
        const Words made = philox(c[0], c[1], c[2], c[3], k[0], k[1]);
        for (int j = 0; j < 4; j++) words[4 * i + j] = made.word[j];
    }
}
