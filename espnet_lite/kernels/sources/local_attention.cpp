// Self-attention within a window, fused: scores, softmax and mixed values of a block of queries stay
// in the first-level cache. See ../local_attention.py for what it computes.
//
// Everything is transposed so that a lane is a query: the scores of a key are a vector over queries,
// softmax runs down the vectors, and both products take one float of a key or value, read where it
// lies, times a vector of queries.

#include <cstdlib>

#include "lanes.h"

namespace {

// Two vectors of queries share what is read of keys and values; more would lie outside the window. The
// sums of ROWS keys (or values) × VECTORS stay in registers: 32 of them with AVX-512, else 16.
constexpr int VECTORS = 2;
constexpr int ROWS = LANES == 16 ? 8 : 6;
constexpr int BLOCK = VECTORS * LANES;  // queries
constexpr float HIDDEN = -3.0e38f;      // the score of a key that is not seen
constexpr float BARELY_SEEN = -1.0e38f;

struct Strided {  // floats from sequence to sequence, head to head, frame to frame
    int64_t batch, head, frame;
};

struct Sizes {
    int64_t batch, heads, frames, head_dim, window, global_tokens;
};

// out[row][·] (+)= Σ over `inner` of a[row · row_stride + i · inner_stride] · lanes[i][·]
template <int ROWS, bool ADDS>
inline void multiply_rows(const float* a, int64_t row_stride, int64_t inner_stride,
                          const Floats* lanes, int64_t inner, Floats* out) {
    Floats sums[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sums[row][v] = ADDS ? out[row * VECTORS + v] : Floats{};
    for (int64_t i = 0; i < inner; ++i) {
        const float* column = a + i * inner_stride;
        Floats right[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) right[v] = lanes[i * VECTORS + v];
#pragma GCC unroll 16
        for (int row = 0; row < ROWS; ++row) {
            const Floats left = all_lanes(column[row * row_stride]);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sums[row][v] += left * right[v];
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) out[row * VECTORS + v] = sums[row][v];
}

template <bool ADDS>
inline void multiply(const float* a, int64_t rows, int64_t row_stride, int64_t inner_stride,
                     const Floats* lanes, int64_t inner, Floats* out) {
    int64_t row = 0;
    for (; row + ROWS <= rows; row += ROWS)
        multiply_rows<ROWS, ADDS>(a + row * row_stride, row_stride, inner_stride, lanes, inner,
                                  out + row * VECTORS);
    for (; row + ROWS / 2 <= rows; row += ROWS / 2)
        multiply_rows<ROWS / 2, ADDS>(a + row * row_stride, row_stride, inner_stride, lanes, inner,
                                      out + row * VECTORS);
    for (; row < rows; ++row)
        multiply_rows<1, ADDS>(a + row * row_stride, row_stride, inner_stride, lanes, inner,
                               out + row * VECTORS);
}

// Turn `rows` rows (at most LANES) of `columns` floats into vectors over rows; missing rows are zero.
inline void rows_to_lanes(const float* from, int64_t rows, int64_t stride, int64_t columns,
                          float factor, Floats* to) {
    for (int64_t column = 0; column < columns; column += LANES) {
        const int64_t width = columns - column < LANES ? columns - column : LANES;
        Floats tile[LANES];
        for (int64_t row = 0; row < LANES; ++row) {
            tile[row] = Floats{};
            if (row >= rows) continue;
            const float* place = from + row * stride + column;
            if (width == LANES)
                tile[row] = load(place) * factor;
            else
                for (int64_t i = 0; i < width; ++i) tile[row][i] = place[i] * factor;
        }
        transpose(tile);
        for (int64_t i = 0; i < width; ++i) to[(column + i) * VECTORS] = tile[i];
    }
}

// The way back: vectors over rows into `rows` rows of `columns` floats.
inline void lanes_to_rows(const Floats* from, int64_t rows, int64_t stride, int64_t columns,
                          float* to) {
    for (int64_t column = 0; column < columns; column += LANES) {
        const int64_t width = columns - column < LANES ? columns - column : LANES;
        Floats tile[LANES];
        for (int64_t i = 0; i < LANES; ++i)
            tile[i] = i < width ? from[(column + i) * VECTORS] : Floats{};
        transpose(tile);
        for (int64_t row = 0; row < LANES && row < rows; ++row) {
            float* place = to + row * stride + column;
            if (width == LANES)
                store(place, tile[row]);
            else
                for (int64_t i = 0; i < width; ++i) place[i] = tile[row][i];
        }
    }
}

// Hide what the queries from `first` on do not see of the keys [begin, end), of which `scores` are.
inline void hide(Floats* scores, int64_t begin, int64_t end, int64_t first, const Sizes& sizes,
                 const uint8_t* key_valid) {
    for (int64_t key = begin; key < end; ++key, scores += VECTORS) {
        if (key_valid && !key_valid[key]) {
            for (int v = 0; v < VECTORS; ++v) scores[v] = all_lanes(HIDDEN);
            continue;
        }
        const int64_t from = key - sizes.window - first;  // the first and the last lane that sees
        const int64_t to = key + sizes.window - first;    // the key through its window
        if (key < sizes.global_tokens || (from <= 0 && to >= BLOCK - 1)) continue;
        for (int v = 0; v < VECTORS; ++v) {
            const Ints lane = LANE_NUMBERS + v * LANES;
            const Ints seen = ((lane >= (int32_t)from) & (lane <= (int32_t)to)) |
                              (lane < (int32_t)(sizes.global_tokens - first));
            scores[v] = seen ? scores[v] : all_lanes(HIDDEN);
        }
    }
}

// Turn the scores of all keys into e^(score − largest) and return in `inverse` 1 / their sums.
inline void softmax(Floats* scores, int64_t keys, Floats* inverse) {
    Floats largest[VECTORS], sums[VECTORS];
    for (int v = 0; v < VECTORS; ++v) largest[v] = all_lanes(HIDDEN), sums[v] = Floats{};
    for (int64_t key = 0; key < keys; ++key)
        for (int v = 0; v < VECTORS; ++v)
            largest[v] = maximum(scores[key * VECTORS + v], largest[v]);
    for (int64_t key = 0; key < keys; ++key)
        for (int v = 0; v < VECTORS; ++v) {
            Floats& score = scores[key * VECTORS + v];
            const Floats power = exp_of_nonpositive(score - largest[v]);
            score = score > BARELY_SEEN ? power : Floats{};
            sums[v] += score;
        }
    for (int v = 0; v < VECTORS; ++v)  // a query that sees nothing gets zeros
        inverse[v] = sums[v] > 0.0f ? 1.0f / sums[v] : Floats{};
}

// One block of queries of one head. `scratch` has room for head_dim + head_dim + all its keys.
inline void attend(const float* query, const float* key, const float* value, float* out,
                   const Strided (&strides)[4], const uint8_t* key_valid, int64_t first,
                   const Sizes& sizes, Floats* scratch) {
    const int64_t dim = sizes.head_dim, tokens = sizes.global_tokens;
    const int64_t count = sizes.frames - first < BLOCK ? sizes.frames - first : BLOCK;
    int64_t begin = first - sizes.window, end = first + count + sizes.window;
    if (first < tokens) begin = 0, end = sizes.frames;  // a query among them sees all
    if (begin < tokens) begin = tokens;
    if (end > sizes.frames) end = sizes.frames;
    const int64_t beside = end > begin ? end - begin : 0;  // keys that are no global ones
    Floats* queries = scratch;
    Floats* mixed = queries + dim * VECTORS;
    Floats* scores = mixed + dim * VECTORS;

    const float scale = 1.0f / __builtin_sqrtf((float)dim);
    for (int v = 0; v < VECTORS; ++v)
        rows_to_lanes(query + (first + v * LANES) * strides[0].frame, count - v * LANES,
                      strides[0].frame, dim, scale, queries + v);
    const int64_t key_step = strides[1].frame, value_step = strides[2].frame;
    multiply<false>(key, tokens, key_step, 1, queries, dim, scores);
    multiply<false>(key + begin * key_step, beside, key_step, 1, queries, dim,
                    scores + tokens * VECTORS);
    hide(scores, 0, tokens, first, sizes, key_valid);
    hide(scores + tokens * VECTORS, begin, begin + beside, first, sizes, key_valid);
    Floats inverse[VECTORS];
    softmax(scores, tokens + beside, inverse);
    multiply<false>(value, dim, 1, value_step, scores, tokens, mixed);
    multiply<true>(value + begin * value_step, dim, 1, value_step, scores + tokens * VECTORS,
                   beside, mixed);
    for (int64_t i = 0; i < dim; ++i)
        for (int v = 0; v < VECTORS; ++v) mixed[i * VECTORS + v] *= inverse[v];
    for (int v = 0; v < VECTORS; ++v)
        lanes_to_rows(mixed + v, count - v * LANES, strides[3].frame, dim,
                      out + (first + v * LANES) * strides[3].frame);
}

}  // namespace

// Fill `out`; return 0, or 1 where there is no memory for the scratch.
// Strides are in floats; the last dimension of each tensor is contiguous. global_tokens ≤ frames and
// window < frames. key_valid is (batch, frames), contiguous, or null.
KERNEL(local_attention)
(const float* query, const float* key, const float* value, float* out, const uint8_t* key_valid,
 const Strided* strides, const Sizes* sizes, int threads) {
    const Strided own_strides[4] = {strides[0], strides[1], strides[2], strides[3]};
    const Sizes own = *sizes;
    const int64_t blocks = (own.frames + BLOCK - 1) / BLOCK;
    const int64_t items = own.batch * own.heads * blocks;
    const int64_t near = BLOCK + 2 * own.window + own.global_tokens;
    const int64_t keys = own.global_tokens || near > own.frames ? own.frames : near;
    const size_t bytes = sizeof(Floats) * VECTORS * (size_t)(2 * own.head_dim + keys);
    int failed = 0;
    if (threads > items) threads = (int)items;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Floats* scratch = static_cast<Floats*>(std::aligned_alloc(sizeof(Floats), bytes));
        if (!scratch) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (int64_t item = 0; item < items; ++item) {
            if (!scratch) continue;
            const int64_t sequence = item / blocks, batch = sequence / own.heads;
            const int64_t head = sequence % own.heads;
            const Strided* s = own_strides;
            attend(query + batch * s[0].batch + head * s[0].head,
                   key + batch * s[1].batch + head * s[1].head,
                   value + batch * s[2].batch + head * s[2].head,
                   out + batch * s[3].batch + head * s[3].head, own_strides,
                   key_valid ? key_valid + batch * own.frames : nullptr, item % blocks * BLOCK, own,
                   scratch);
        }
        std::free(scratch);
    }
    return failed;
}
