// A Transformer decoder for one token more of every hypothesis of a beam search: all its blocks in one call
// and one parallel region, in fp32. See ../decoder_step.py for what it computes and how weights lie.
//
// A step of few hypotheses waits for the weights to come from memory. They lie in the order in which they are
// read: matrices in panels of PANEL columns, each product reads its own once, whatever the number of rows.
// Keys and values of the encoder's frames are panels too, read once for all hypotheses of an utterance. Of
// the tokens so far a hypothesis visits only its own.

#include <omp.h>

#include "layer_norm.h"

namespace {

constexpr int PANEL = 32;  // columns side by side
constexpr int VECTORS = PANEL / LANES;
// Rows whose sums stay in registers: 32 of them with AVX-512, else 16.
constexpr int ROWS = LANES == 16 ? 14 : LANES == 8 ? 3 : 2;
constexpr int64_t DEPTH = 256;  // inputs at a time: 32 KB of a panel, in the first-level cache
constexpr int LINE = 16;        // floats that come from memory together
// Inputs that a panel is asked for ahead: from the second-level cache, and from beyond it.
constexpr int NEAR = 12, FAR = 80;

struct Sizes {
    int64_t utterances, beam, dim, heads, feed_forward, layers, vocab;
    int64_t frames;       // of the encoder, all utterances padded to them
    int64_t nodes, room;  // tokens of a hypothesis so far, the newest included; nodes of a pool
    int64_t activation;   // codes.h
    int64_t scratch;      // floats for each thread
};

struct Input {
    const float* weights;
    const float *embedding, *position;  // (vocab, dim), (dim,)
    const int64_t* tokens;              // (utterances, beam)
    const int64_t* ancestors;           // (utterances, beam, nodes): nodes of the pool, the newest last
    const float *keys, *values;         // of the encoder's frames, in panels
    const int64_t* lengths;             // (utterances,) frames
    float scale, epsilon;               // of embeddings; of every LayerNorm
};

struct Room {
    float* pool;  // (layers, 2, utterances, heads, room, head_dim): keys and values of the tokens
    float *x, *joint, *mixed, *hidden, *logits;  // rows padded to whole panels
    float *normed, *scratch;                     // of each thread
    float* out;  // (utterances, beam, vocab): log-probabilities
};

inline int64_t padded(int64_t columns) { return (columns + PANEL - 1) / PANEL * PANEL; }

struct Linear {
    const float *bias, *panels;  // panels: (columns / PANEL, inputs, PANEL)
    int64_t inputs, columns;
};

// Reads the weights in their order.
struct Reader {
    const float* at;

    Norm norm(int64_t dim, float epsilon) {
        const Norm read{at, at + padded(dim), epsilon};
        at += 2 * padded(dim);
        return read;
    }
    Linear linear(int64_t inputs, int64_t columns) {
        const Linear read{at, at + padded(columns), inputs, columns};
        at += (1 + inputs) * padded(columns);
        return read;
    }
};

struct Rows {
    float* at;
    int64_t stride;
};

// out[row] += a[row] · panel for COUNT rows.
template <int COUNT>
inline void add_block(const float* a, int64_t a_stride, const float* panel, int64_t inputs, float* out,
                      int64_t out_stride) {
    Floats sums[COUNT][VECTORS];
#pragma GCC unroll 16
    for (int row = 0; row < COUNT; ++row)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) sums[row][v] = load(out + row * out_stride + v * LANES);
    for (int64_t i = 0; i < inputs; ++i) {
        Floats right[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) right[v] = load(panel + i * PANEL + v * LANES);
#pragma GCC unroll 8
        for (int column = 0; column < PANEL; column += LINE) {
            __builtin_prefetch(panel + (i + NEAR) * PANEL + column, 0, 3);
            __builtin_prefetch(panel + (i + FAR) * PANEL + column, 0, 2);
        }
#pragma GCC unroll 16
        for (int row = 0; row < COUNT; ++row) {
            const Floats left = all_lanes(a[row * a_stride + i]);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) sums[row][v] += left * right[v];
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < COUNT; ++row)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) store(out + row * out_stride + v * LANES, sums[row][v]);
}

template <int COUNT = ROWS>
inline void add_rows(int64_t count, const float* a, int64_t a_stride, const float* panel,
                     int64_t inputs, float* out, int64_t out_stride) {
    if constexpr (COUNT > 1)
        if (count < COUNT)
            return add_rows<COUNT - 1>(count, a, a_stride, panel, inputs, out, out_stride);
    add_block<COUNT>(a, a_stride, panel, inputs, out, out_stride);
}

// out += a · panel for all rows, in blocks of nearly the same number of them.
__attribute__((noinline)) void add_panel(const float* a, int64_t a_stride, int64_t rows,
                                         const float* panel, int64_t inputs, float* out,
                                         int64_t out_stride) {
    const int64_t blocks = (rows + ROWS - 1) / ROWS;
    for (int64_t first = 0; first < inputs; first += DEPTH) {
        const int64_t depth = inputs - first < DEPTH ? inputs - first : DEPTH;
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t row = rows * block / blocks;
            add_rows(rows * (block + 1) / blocks - row, a + row * a_stride + first, a_stride,
                     panel + first * PANEL, depth, out + row * out_stride, out_stride);
        }
    }
}

// out = activation(a · W + b), or out += that where `adds`; the team shares the panels.
inline void multiply(Rows a, int64_t rows, const Linear& linear, Rows out, bool adds,
                     int32_t activation) {
#pragma omp for schedule(static)
    for (int64_t column = 0; column < linear.columns; column += PANEL) {
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t i = column; i < column + PANEL; i += LANES) {
                float* to = out.at + row * out.stride + i;
                const Floats bias = load(linear.bias + i);
                store(to, adds ? load(to) + bias : bias);
            }
        add_panel(a.at, a.stride, rows, linear.panels + column * linear.inputs, linear.inputs,
                  out.at + column, out.stride);
        if (activation == LINEAR) continue;
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t i = column; i < column + PANEL; i += LANES) {
                float* to = out.at + row * out.stride + i;
                store(to, activated(load(to), activation));
            }
    }
}

// Done by each thread for itself, which takes less time than to wait for the others.
inline void normalize_rows(Rows x, int64_t rows, int64_t dim, const Norm& norm, Rows to) {
    for (int64_t row = 0; row < rows; ++row)
        normalize(x.at + row * x.stride, dim, norm, to.at + row * to.stride);
}

inline float largest_of_row(const float* row, int64_t count) {
    Floats largest = all_lanes(row[0]);
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) largest = maximum(load(row + i), largest);
    float found = largest_of(largest);
    for (; i < count; ++i) found = row[i] > found ? row[i] : found;
    return found;
}

// Return Σ e^(x − largest), which `to`, where it is not null, gets one by one.
inline float powers_of_row(const float* row, int64_t count, float largest, float* to) {
    Floats sums{};
    float rest = 0.0f;
    for (int64_t i = 0; i < count; i += LANES) {
        const Floats powers = exp_of_nonpositive(load_some(row + i, count - i) - largest);
        if (to) store_some(to + i, powers, count - i);
        if (i + LANES <= count)
            sums += powers;
        else
            for (int64_t j = 0; i + j < count; ++j) rest += powers[j];
    }
    return sum_of(sums) + rest;
}

inline void softmax(float* row, int64_t count) {
    const float sum = powers_of_row(row, count, largest_of_row(row, count), row);
    const float inverse = 1.0f / sum;
    for (int64_t i = 0; i < count; ++i) row[i] *= inverse;
}

inline float dot(const float* a, const float* b, int64_t count) {
    Floats sums{};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) sums += load(a + i) * load(b + i);
    float sum = sum_of(sums);
    for (; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

// One head of one hypothesis reads its tokens so far. `joint` is its query, key and value, `dim` apart.
inline void attend_tokens(const float* joint, int64_t dim, int64_t head_dim, float* keys, float* values,
                          const int64_t* nodes, int64_t count, float* mixed, float* scratch) {
    const int64_t newest = nodes[count - 1] * head_dim;
    for (int64_t i = 0; i < head_dim; ++i) {
        keys[newest + i] = joint[dim + i];
        values[newest + i] = joint[2 * dim + i];
    }
    for (int64_t n = 0; n < count; ++n) scratch[n] = dot(joint, keys + nodes[n] * head_dim, head_dim);
    softmax(scratch, count);
    for (int64_t i = 0; i < head_dim; i += LANES) {
        Floats sums{};
        for (int64_t n = 0; n < count; ++n)
            sums += load_some(values + nodes[n] * head_dim + i, head_dim - i) * scratch[n];
        store_some(mixed + i, sums, head_dim - i);
    }
}

// One head of all hypotheses of an utterance reads the encoder's frames, `length` of `frames`.
inline void attend_frames(const float* query, int64_t stride, int64_t rows, int64_t head_dim,
                          const float* keys, const float* values, int64_t frames, int64_t length,
                          float* mixed, int64_t mixed_stride, float* scratch) {
    const int64_t width = padded(frames), out_width = padded(head_dim);
    float* out = scratch + rows * width;
    __builtin_memset(scratch, 0, sizeof(float) * (size_t)(rows * (width + out_width)));
    for (int64_t frame = 0; frame < length; frame += PANEL)
        add_panel(query, stride, rows, keys + frame * head_dim, head_dim, scratch + frame, width);
    for (int64_t row = 0; row < rows; ++row) softmax(scratch + row * width, length);
    for (int64_t i = 0; i < head_dim; i += PANEL)
        add_panel(scratch, width, rows, values + i * frames, length, out + i, out_width);
    for (int64_t row = 0; row < rows; ++row)
        __builtin_memcpy(mixed + row * mixed_stride, out + row * out_width,
                         sizeof(float) * (size_t)head_dim);
}

inline void log_softmax(const float* logits, int64_t count, float* out) {
    const float largest = largest_of_row(logits, count);
    const float sum = powers_of_row(logits, count, largest, nullptr);
    const float all = largest + __builtin_logf(sum);
    for (int64_t i = 0; i < count; ++i) out[i] = logits[i] - all;
}

// Called by every thread of a team.
void run(const Input& input, const Sizes& sizes, const Room& room, int thread) {
    const int64_t dim = sizes.dim, heads = sizes.heads, head_dim = dim / heads, beam = sizes.beam;
    const int64_t rows = sizes.utterances * beam, feed_forward = sizes.feed_forward;
    const Rows x{room.x, padded(dim)}, mixed{room.mixed, padded(dim)};
    const Rows normed{room.normed + thread * rows * padded(dim), padded(dim)};
    const Rows joint{room.joint, padded(3 * dim)};
    const Rows hidden{room.hidden, padded(feed_forward)}, logits{room.logits, padded(sizes.vocab)};
    float* scratch = room.scratch + thread * sizes.scratch;
    Reader weights{input.weights};
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const float* token = input.embedding + input.tokens[row] * dim;
        for (int64_t i = 0; i < dim; ++i)
            x.at[row * x.stride + i] = token[i] * input.scale + input.position[i];
    }
    for (int64_t layer = 0; layer < sizes.layers; ++layer) {
        normalize_rows(x, rows, dim, weights.norm(dim, input.epsilon), normed);
        multiply(normed, rows, weights.linear(dim, 3 * dim), joint, false, LINEAR);
        const int64_t pools = sizes.utterances * heads, of_pool = sizes.room * head_dim;
#pragma omp for schedule(static)
        for (int64_t item = 0; item < rows * heads; ++item) {
            const int64_t row = item / heads, head = item % heads;
            float* keys = room.pool + (2 * layer * pools + row / beam * heads + head) * of_pool;
            attend_tokens(joint.at + row * joint.stride + head * head_dim, dim, head_dim, keys,
                          keys + pools * of_pool, input.ancestors + row * sizes.nodes, sizes.nodes,
                          mixed.at + row * mixed.stride + head * head_dim, scratch);
        }
        multiply(mixed, rows, weights.linear(dim, dim), x, true, LINEAR);
        normalize_rows(x, rows, dim, weights.norm(dim, input.epsilon), normed);
        multiply(normed, rows, weights.linear(dim, dim), joint, false, LINEAR);
        const int64_t of_keys = padded(sizes.frames) * head_dim;
        const int64_t of_values = padded(head_dim) * sizes.frames;
#pragma omp for schedule(static)
        for (int64_t item = 0; item < sizes.utterances * heads; ++item) {
            const int64_t utterance = item / heads, column = item % heads * head_dim;
            attend_frames(joint.at + utterance * beam * joint.stride + column, joint.stride, beam,
                          head_dim, input.keys + (layer * pools + item) * of_keys,
                          input.values + (layer * pools + item) * of_values, sizes.frames,
                          input.lengths[utterance],
                          mixed.at + utterance * beam * mixed.stride + column, mixed.stride,
                          scratch);
        }
        multiply(mixed, rows, weights.linear(dim, dim), x, true, LINEAR);
        normalize_rows(x, rows, dim, weights.norm(dim, input.epsilon), normed);
        multiply(normed, rows, weights.linear(dim, feed_forward), hidden, false,
                 (int32_t)sizes.activation);
        multiply(hidden, rows, weights.linear(feed_forward, dim), x, true, LINEAR);
    }
    normalize_rows(x, rows, dim, weights.norm(dim, input.epsilon), normed);
    multiply(normed, rows, weights.linear(dim, sizes.vocab), logits, false, LINEAR);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row)
        log_softmax(logits.at + row * logits.stride, sizes.vocab, room.out + row * sizes.vocab);
}

}  // namespace

KERNEL(decoder_step)(const Input* input, const Sizes* sizes, const Room* room, int threads) {
    const Input own_input = *input;
    const Sizes own_sizes = *sizes;
    const Room own_room = *room;
#pragma omp parallel num_threads(threads) if (threads > 1)
    run(own_input, own_sizes, own_room, threads > 1 ? omp_get_thread_num() : 0);
    return 0;
}
