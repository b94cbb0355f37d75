// Self-attention of integers, all of it in one parallel region. See ../lowbit_attention.py for what it
// computes.

#include <cstdlib>
#include <omp.h>

#include "attention_heads.h"

// Fill out; return 0, or 1 where there is no memory.
KERNEL(lowbit_attention)(const Attention* given, int threads) {
    const Plan plan(*given);
    uint8_t* memory =
        static_cast<uint8_t*>(std::aligned_alloc(64, (size_t)in_whole(plan.bytes(threads), 64)));
    if (!memory) return 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const Room room = plan.room(memory, threads > 1 ? omp_get_thread_num() : 0);
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < plan.to_prepare(); ++item) plan.prepare(memory, item, room);
        Tiles tiles;
        (void)tiles;
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < plan.to_mix(); ++item) plan.mix(memory, item, room);
    }
    std::free(memory);
    return 0;
}
