// LayerNorm of a row of floats.
#pragma once

#include "codes.h"

namespace {

struct Norm {
    const float *weight, *bias;  // of each column; null: none
    float epsilon;               // of LayerNorm; below 0 the row is only scaled and shifted
};

// Normalize a row of floats into `to`.
inline void normalize(const float* x, int64_t count, const Norm& norm, float* to) {
    int64_t i = 0;
    if (norm.epsilon < 0.0f) {
        for (; i < count; ++i) to[i] = norm.bias[i] + x[i] * norm.weight[i];
        return;
    }
    Floats sums{};
    for (; i + LANES <= count; i += LANES) sums += load(x + i);
    float mean = sum_of(sums);
    for (; i < count; ++i) mean += x[i];
    mean /= (float)count;
    Floats squares{};
    for (i = 0; i + LANES <= count; i += LANES) {
        const Floats distance = load(x + i) - mean;
        squares += distance * distance;
    }
    float variance = sum_of(squares);
    for (; i < count; ++i) variance += (x[i] - mean) * (x[i] - mean);
    variance /= (float)count;
    const float inverse = 1.0f / __builtin_sqrtf(variance + norm.epsilon);
    for (i = 0; i + LANES <= count; i += LANES)
        store(to + i, (load(x + i) - mean) * inverse * load(norm.weight + i) + load(norm.bias + i));
    for (; i < count; ++i) to[i] = (x[i] - mean) * inverse * norm.weight[i] + norm.bias[i];
}

}  // namespace
