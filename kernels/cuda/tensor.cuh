// What the convolutions on tensor cores share: rows of 64 channels of 16 bits in shared memory, the weights of a tap,
// and a warp's product of the two.
#pragma once
#include "windows.cuh"

constexpr int DEEP = 64, ROW = 2 * DEEP;  // channels and bytes of a row in shared memory
constexpr int CHUNKS = ROW / 16;

// Where a chunk of 16 bytes of a row lies: eight neighbouring rows have the same chunk in eight different places, so
// that ldmatrix reads them without bank conflicts, and asynchronous copies write them so.
inline int placed(int row, int chunk) { return row * ROW + ((chunk ^ (row & 7)) << 4); }

constexpr int PIXELS = 128, PIXEL_BYTES = PIXELS * ROW;  // what gather_rows makes

// Rows of the 64 channels from number `channel` on of the pixels that find(row) returns, zeros where that is null; by
// 128 threads.
template <class F> void gather_rows(unsigned char* to, int channel, const T* anything, F find) {
    const int chunk = int(threadIdx.x) % CHUNKS;
    FN_UNROLL(1)
    for (int row = int(threadIdx.x) / CHUNKS; row < PIXELS; row += 128 / CHUNKS) {
        const T* pixel = find(row);
        cp_async16(to + placed(row, chunk), pixel ? pixel + channel + chunk * 8 : anything, pixel != nullptr);
    }
}

struct alignas(4) Two { T entry[2]; };

// A tile of a product: four warps, of which ACROSS side by side share their rows, and each computes 64 rows x WIDE
// outputs. The weights of a tap lie in memory as (depth, breadth) or, REVERSED, as (breadth, depth), and so do 64 x
// BREADTH of them in shared memory, in rows of BREADTH or of 64.
template <int ACROSS, int WIDE, bool REVERSED> struct TensorTile {
    static constexpr int THREADS = 128, ROWS = 4 / ACROSS * 64, BREADTH = ACROSS * WIDE, SLAB = DEEP * BREADTH * 2;
    static constexpr int LINE = WIDE * 2, MANY = WIDE / 8;  // bytes and chunks of a row's outputs, of one warp
    float sum[4][MANY][4] = {};

    static int across() { return warp_id() % ACROSS; }
    static int down() { return warp_id() / ACROSS * 64; }

    // 64 channels of tap number `tap` for BREADTH outputs, by asynchronous copies.
    static void load_weights(unsigned char* to, const T* w, int tap, int channel, int output, int depth, int breadth) {
        constexpr int many = (REVERSED ? DEEP : BREADTH) / 8;  // chunks of a row
        constexpr int together = THREADS / many;               // rows at a time
        const int row = int(threadIdx.x) / many, chunk = int(threadIdx.x) % many;
        const int64 at = REVERSED ? (int64(tap) * breadth + output + row) * depth + channel
                                  : (int64(tap) * depth + channel + row) * breadth + output;
        const T* from = w + at + chunk * 8;
        to += row * many * 16 + ((chunk ^ (row & 7)) << 4);  // the same place in all rows of this thread, 8 or 16 apart
        for (int n = 0; n < SLAB / 16 / THREADS; n++, from += int64(together) * (REVERSED ? depth : breadth))
            cp_async16(to + n * THREADS * 16, from);
    }

    // Adds 64 channels. row[m] is where the first chunk of the lane's row in fragment m is, from `memory` on.
    void multiply(const unsigned char* memory, const int (&row)[4], const unsigned char* slab) {
        const int lane = lane_id();
        FN_UNROLL(2)
        for (int k = 0; k < DEEP / 16; k++) {
            uint32 a[4][4];
            for (int m = 0; m < 4; m++) ldsm4(a[m], memory + (row[m] ^ k << 5));
            for (int n = 0; n < WIDE / 16; n++) {
                uint32 v[4];
                if (REVERSED) {
                    const int line = across() * WIDE + n * 16 + lane / 16 * 8 + lane % 8;
                    ldsm4(v, slab + placed(line, 2 * k + lane / 8 % 2));
                } else {
                    const int line = k * 16 + lane % 16, chunk = (across() * WIDE + n * 16) / 8 + lane / 16;
                    ldsm4_trans(v, slab + line * BREADTH * 2 + ((chunk ^ (line & 7)) << 4));
                }
                const uint32 left[2] = {v[0], v[1]}, right[2] = {v[2], v[3]};
                for (int m = 0; m < 4; m++) {
                    mma_16816(T(), sum[m][2 * n], a[m], left);
                    mma_16816(T(), sum[m][2 * n + 1], a[m], right);
                }
            }
        }
    }

    // Which chunk of a row's outputs, of those from number `output` on, this lane writes.
    static int column(int output) { return output + across() * WIDE + lane_id() % MANY * 8; }

    // Where chunk n of a line of a warp's 64 stands behind the first of them, as `round` leaves them.
    static int staged(int line, int n) { return line * LINE + ((n ^ line % MANY) << 4); }

    // The sums and b, if that is given, rounded, into `scratch`, ROWS x BREADTH entries of shared memory.
    void round(unsigned char* scratch, const Acc* b, int output) const {
        const int lane = lane_id(), first = output + across() * WIDE;
        unsigned char* out = scratch + warp_id() * 64 * LINE;
        FN_UNROLL(MANY)
        for (int n = 0; n < MANY; n++) {
            const int column = first + n * 8 + lane % 4 * 2;
            const Acc bias[2] = {b ? b[column] : 0, b ? b[column + 1] : 0};
            for (int m = 0; m < 4; m++)
                for (int h = 0; h < 2; h++) {
                    const int line = m * 16 + h * 8 + lane / 4;
                    Two two;
                    for (int e = 0; e < 2; e++) store(two.entry + e, sum[m][n][2 * h + e] + bias[e]);
                    *reinterpret_cast<Two*>(out + staged(line, n) + lane % 4 * 4) = two;
                }
        }
    }

    // The chunk of what `round` made that is this lane's, of the tile's first row.
    static Pack first_row(const unsigned char* scratch) {
        return Pack{ld128(scratch + across() * 64 * LINE + (lane_id() % MANY << 4))};
    }

    // What `round` made goes out, a warp writing whole lines, after each(chunk, where it goes) has had a look at it;
    // target(row) is where a row's outputs begin, or null.
    template <class F, class E> static void write(const unsigned char* scratch, int output, F target, E each) {
        const unsigned char* out = scratch + warp_id() * 64 * LINE;
        FN_UNROLL(2)
        for (int n = lane_id(); n < 64 * MANY; n += WARP) {
            const int line = n / MANY, chunk = n % MANY;
            if (T* to = target(down() + line)) {
                Pack pack{ld128(out + staged(line, chunk))};
                each(pack, to + column(output));
                st128(to + column(output), pack.bits);
            }
        }
    }

    // Adds up what the lanes have for their columns, those with the same ones in the order of their numbers, and gives
    // finish(s, column, sum) each sum. `scratch` is 2 x ROWS / 64 x BREADTH sums of shared memory.
    template <class F> static void add_columns(Acc (&total)[2][8], Acc* scratch, F finish) {
        for (int s = 0; s < 2; s++)
            for (int j = 0; j < 8; j++) {
                for (int mask = MANY; mask < WARP; mask *= 2) total[s][j] += shfl_xor(total[s][j], mask);
                if (lane_id() < MANY)
                    scratch[(s * ROWS + down()) / 64 * BREADTH + column(0) + j] = total[s][j];
            }
        sync_threads();
        for (int i = int(threadIdx.x); i < 2 * BREADTH; i += THREADS) {
            const int s = i / BREADTH, c = i % BREADTH;
            Acc sum = 0;
            for (int k = 0; k < ROWS / 64; k++) sum += scratch[(s * ROWS / 64 + k) * BREADTH + c];
            finish(s, c, sum);
        }
    }
};
