// Whether a step may change the model, and the sums of the steps: `fastnet.functions.judge_step` has the rules.
#include "loss.cuh"

FN_TYPES(float, double);

enum { STEP, EPOCH, GIVEN };
enum { HALTED, LOSS, LOSSES, CORRECT, SCALE, GOOD, SKIPPED, UPDATES, DECAY, NUMBERS };

// hits[i] = whether the first of the largest logits of row i is its label's; a warp a row.
FN_KERNEL(256) judge_hits(const T* logits, const int64* labels, uint8* hits, int64 n, int64 classes) {
    for (int64 i = first_warp(); i < n; i += all_warps()) {
        const T* row = logits + i * classes;
        T top = -infinity();
        int64 place = classes;
        for (int64 k = lane_id(); k < classes; k += WARP)
            if (row[k] > top || place == classes) top = row[k], place = k;
        for (int mask = WARP / 2; mask; mask /= 2) {
            const T other = shfl_xor(top, mask);
            const int64 its = shfl_xor(place, mask);
            // A lane without a column has nothing to say.
            if (its < classes && (place == classes || other > top || (other == top && its < place)))
                top = other, place = its;
        }
        if (lane_id() == 0) hits[i] = place == labels[i];
    }
}

// By one block; hits may be null. Whole numbers are exact in float64, and so are the sums of hits in Acc.
FN_KERNEL(256) judge_step(const T* loss, const uint8* hits, int64 n, const double* given, double* control,
                          int64 numbers, uint32* overflow, T* scale, int64 patience, double least) {
    Acc correct = 0;
    for (int64 i = threadIdx.x; hits && i < n; i += blockDim.x) correct += hits[i];
    correct = block_sum(correct);
    if (threadIdx.x != 0) return;
    const double value = *loss, step = given[STEP];
    if (control[HALTED] < 0) {
        control[LOSS] = value;
        if (!(fabs(value) < double(infinity()))) control[HALTED] = step;
    }
    bool whole = control[HALTED] < 0;
    if (whole) {
        control[LOSSES] += value * double(n);
        control[CORRECT] += correct;
        if (overflow) {
            whole = *overflow == 0;
            control[GOOD] = whole ? control[GOOD] + 1 : 0;
            if (!whole) {
                control[SCALE] /= 2;
                control[SKIPPED] += 1;
                if (control[SCALE] < least) control[HALTED] = step;
            } else if (control[GOOD] == double(patience)) {
                control[SCALE] *= 2;
                control[GOOD] = 0;
            }
        }
        control[UPDATES] = step - control[SKIPPED];
    }
    for (int64 i = 0; i < numbers; i++) control[NUMBERS + i] = whole ? given[GIVEN + i] : double(not_a_number());
    if (control[HALTED] >= 0) control[DECAY] = not_a_number();
    if (overflow) {
        *overflow = 0;
        *scale = T(control[SCALE]);
    }
}
