// Convolution over time, each channel for itself, of integers, all of it in one parallel region. See
// ../lowbit_depthwise.py for what it computes.

#include <cstdlib>
#include <omp.h>

#include "depthwise_frames.h"

// Fill frames->out; return 0, or 1 where there is no memory for the codes.
KERNEL(lowbit_depthwise)(const Depthwise* layer_given, const Frames* frames_given, int threads) {
    const Depthwise layer = *layer_given;
    const Frames frames = *frames_given;
    const Shape shape(layer, frames);
    uint8_t* memory = static_cast<uint8_t*>(std::aligned_alloc(64, (size_t)(threads * shape.bytes)));
    if (!memory) return 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const int thread = threads > 1 ? omp_get_thread_num() : 0;
        Ints* fours = reinterpret_cast<Ints*>(memory + thread * shape.bytes);
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < frames.batch * shape.blocks; ++item)
            convolve(layer, frames, item / shape.blocks, item % shape.blocks * LANES, shape.rows,
                     fours);
    }
    std::free(memory);
    return 0;
}
