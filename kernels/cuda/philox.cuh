// Random bits by Philox4x32-10 (Salmon et al., 2011): the counter is (block, sample, epoch, stream), the key the seed.
#pragma once
#include "common.cuh"

struct Words { uint32 word[4]; };

inline Words philox(uint32 block, uint32 sample, uint32 epoch, uint32 stream, uint32 key0, uint32 key1) {
    uint32 c0 = block, c1 = sample, c2 = epoch, c3 = stream;
    for (int round = 0; round < 10; round++) {
        const uint64 first = uint64(c0) * 0xD2511F53u, second = uint64(c2) * 0xCD9E8D57u;
        c0 = uint32(second >> 32) ^ c1 ^ key0;
        c1 = uint32(second);
        c2 = uint32(first >> 32) ^ c3 ^ key1;
        c3 = uint32(first);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}
