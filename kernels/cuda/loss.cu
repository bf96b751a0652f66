// The last step of every loss: loss = sum of n sums / divisor, by one block in an order fixed by n.
#include "loss.cuh"

FN_KERNEL(256) loss_mean(const Acc* sums, T* loss, int64 n, int64 divisor) {
    Acc sum = 0;
    for (int64 i = threadIdx.x; i < n; i += blockDim.x) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) store(loss, sum / Acc(divisor));
}
