// Images of a data set, cut, turned and standardized on load as `fastnet.functions.augment_batch` does, to the bit.
#pragma once
#include "philox.cuh"
#include "windows.cuh"

constexpr uint32 AUGMENT = 4;  // Philox's stream

// A whole number below n for a random word.
inline int below(int n, uint32 word) { return int(uint64(word) * uint32(n) >> 32); }

// What a sample has of its image (null where its index is none): H x W pixels whose first is at (top, left), perhaps
// outside, and which are then mirrored and turned.
struct Cut {
    const uint8* image;
    int top, left, mirrored, turned;
};

// images (stored, height, width, channels); mean and scale (height, width, channels).
struct Stored {
    const uint8* images;
    const Acc *mean, *scale;
    int64 stored;
    int height, width, channels;

    const uint8* image(int64 index) const {
        return index < 0 || index >= stored ? nullptr : images + index * height * width * channels;
    }

    // The standardized entry of what was cut out, in row i and column j.
    Acc entry(const Cut& cut, int i, int j, int c) const {
        const int row = (cut.turned ? height - 1 - i : i) + cut.top;
        const int column = (cut.mirrored ? width - 1 - j : j) + cut.left;
        Acc level = cut.image ? 0 : not_a_number();
        if (cut.image && uint32(row) < uint32(height) && uint32(column) < uint32(width))
            level = cut.image[(row * width + column) * channels + c];
        return standardized(level, i, j, c);
    }

    Acc standardized(Acc level, int i, int j, int c) const {
        const int at = (i * width + j) * channels + c;
        return (level - mean[at]) * scale[at];
    }
};

// The first words of a sample, and which crop and flips they say.
struct Drawn {
    Words words;
    Drawn(int64 sample, uint32 epoch, uint32 key0, uint32 key1)
        : words(philox(0, uint32(sample), epoch, AUGMENT, key0, key1)) {}
    Cut cut(const uint8* image, int pad, int horizontal, int vertical) const {
        return {image, below(2 * pad + 1, words.word[0]) - pad, below(2 * pad + 1, words.word[1]) - pad,
                horizontal && words.word[2] >> 31, vertical && words.word[3] >> 31};
    }
};
