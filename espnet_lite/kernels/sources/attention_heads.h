// Self-attention whose two products multiply integers: codes of queries, keys and values, scores,
// softmax, codes of the probabilities, mixed values. What threads share and in which order is the
// caller's.
//
// Keys and values become panels (byte_products.h), of each head once; then a block of queries at a
// time has its scores in the cache. Codes of 1 to 8 bits are all multiplied as bytes: beside the
// softmax, what bits would save is little.
#pragma once

#include "byte_products.h"

namespace {

constexpr int BLOCK = 32 / TILE_ROWS * TILE_ROWS;  // queries
constexpr int32_t OFFSET = 128;                    // of keys and values in their panels
constexpr float HIDDEN = -3.0e38f;

struct Operand {
    const float* x;
    int64_t batch, head, frame;   // floats from one to the next
    const Quantizer* quantizers;  // of each head
    const float* bias;            // (heads, head_dim), added before; or null
};

struct Attention {
    Operand query, key, value, position_query, positions;  // positions.x is null without
    const Quantizer* probabilities;                         // of each head
    const float* rotation;      // (2, frames, head_dim / 2) for queries and keys, or null
    const uint8_t* key_valid;   // (batch, frames), or null
    float* out;
    int64_t out_batch, out_head, out_frame;
    int64_t batch, heads, frames, head_dim, window, global_tokens;
};

// A row of an operand as it is quantized: with its bias, turned by its position. `room` is for
// head_dim.
inline const float* prepared(const Operand& operand, int64_t batch, int64_t head, int64_t frame,
                             int64_t dim, const float* rotation, int64_t frames, float* room) {
    const float* x = operand.x + batch * operand.batch + head * operand.head + frame * operand.frame;
    if (operand.bias) {
        for (int64_t i = 0; i < dim; ++i) room[i] = x[i] + operand.bias[head * dim + i];
        x = room;
    }
    if (rotation) {
        const int64_t half = dim / 2;
        const float *cosine = rotation + frame * half, *sine = cosine + frames * half;
        for (int64_t i = 0; i < half; ++i) {
            const float first = x[i], second = x[half + i];
            room[i] = first * cosine[i] - second * sine[i];
            room[half + i] = second * cosine[i] + first * sine[i];
        }
        x = room;
    }
    return x;
}

// Codes of `count` rows, one column of the panels each; `scales` of each. Rows from `count` to a whole
// panel are 0. `codes` is room for PANEL rows.
inline void rows_to_columns(const Operand& operand, int64_t batch, int64_t head, int64_t count,
                            int64_t dim, const float* rotation, uint8_t* panels, float* scales,
                            int8_t* codes, float* room) {
    const int64_t depth = in_whole(dim, DEPTH);
    __builtin_memset(codes, 0, (size_t)(PANEL * depth));
    for (int64_t first = 0; first < count; first += PANEL, panels += PANEL * depth) {
        for (int64_t row = first; row < first + PANEL; ++row) {
            int8_t* of_row = codes + (row - first) * depth;
            scales[row] = 0.0f;
            if (row < count)
                quantize_row(prepared(operand, batch, head, row, dim, rotation, count, room), dim,
                             operand.quantizers[head], of_row, scales + row);
            else
                __builtin_memset(of_row, 0, (size_t)depth);
        }
#if defined(__AVX512F__)
        for (int64_t k = 0; k < depth; k += DEPTH) {  // 16 words of each row at a time
            Floats words[LANES];
#pragma GCC unroll 16
            for (int row = 0; row < PANEL; ++row)
                words[row] = (Floats)((Bits)load((const float*)(codes + row * depth + k)) ^ 0x80808080u);
            transpose(words);
#pragma GCC unroll 16
            for (int group = 0; group < PANEL; ++group)
                store((float*)(panels + k * PANEL + group * GROUP_BYTES), words[group]);
        }
#else
        for (int64_t row = 0; row < PANEL; ++row)
            for (int64_t k = 0; k < depth; k += 4) {
                uint32_t four;
                __builtin_memcpy(&four, codes + row * depth + k, 4);
                four ^= 0x80808080u;
                __builtin_memcpy(panels + k * PANEL + row * 4, &four, 4);
            }
#endif
    }
}

// Codes of the values as panels whose columns are channels and whose depth is frames, up to `depth`.
inline void rows_to_depth(const Operand& operand, int64_t batch, int64_t head, int64_t count,
                          int64_t dim, int64_t depth, uint8_t* panels, int8_t* codes) {
    const int64_t width = in_whole(dim, PANEL);
    __builtin_memset(codes, 0, (size_t)(4 * width));
    for (int64_t frame = 0; frame < depth; frame += 4) {
        for (int64_t i = 0; i < 4; ++i) {
            float scale;
            const float* x = operand.x + batch * operand.batch + head * operand.head;
            if (frame + i < count)
                quantize_row(x + (frame + i) * operand.frame, dim, operand.quantizers[head],
                             codes + i * width, &scale);
            else
                __builtin_memset(codes + i * width, 0, (size_t)width);
        }
        const uint8_t* row = reinterpret_cast<const uint8_t*>(codes);
        for (int64_t panel = 0; panel < width; panel += PANEL, row += PANEL) {
            uint32_t fours[PANEL];
            for (int i = 0; i < PANEL; ++i)
                fours[i] = ((uint32_t)row[i] | (uint32_t)row[width + i] << 8 |
                            (uint32_t)row[2 * width + i] << 16 | (uint32_t)row[3 * width + i] << 24) ^
                           0x80808080u;
            __builtin_memcpy(panels + panel * depth + frame * PANEL, fours, sizeof fours);
        }
    }
}

// out[row][·] = (sums − term of the row) · (scale of the row · scales of the columns) of BLOCK rows by
// panels from `first` on; columns of `out` begin with that panel.
inline void products(const int8_t* codes, int64_t depth, const uint8_t* panels, int64_t first,
                     int64_t end, const float* row_scales, const int32_t* terms,
                     const float* column_scales, float* out, int64_t out_stride) {
    alignas(64) int32_t sums[TILE_ROWS * SUM_STRIDE];
    const int64_t panel_bytes = depth * PANEL;
    for (int64_t panel = first; panel < end; panel += SUM_PANELS) {
        const int64_t here = end - panel < SUM_PANELS ? end - panel : SUM_PANELS;
        for (int64_t row = 0; row < BLOCK; row += TILE_ROWS) {
            multiply_panels<8>(here, codes + row * depth, depth, panels + panel * panel_bytes,
                               panel_bytes, depth, sums);
            for (int64_t column = 0; column < here * PANEL; column += LANES) {
                const Floats scale = load(column_scales + panel * PANEL + column);
                float* to = out + row * out_stride + (panel - first) * PANEL + column;
                for (int64_t r = 0; r < TILE_ROWS; ++r, to += out_stride) {
                    Ints sum;
                    __builtin_memcpy(&sum, sums + r * SUM_STRIDE + column, sizeof sum);
                    store(to, __builtin_convertvector(sum - terms[row + r], Floats) *
                                  (scale * row_scales[row + r]));
                }
            }
        }
    }
}

struct Span {
    int64_t begin, end;  // keys
};

// Scores of a span, in units of log 2, to 2^(score − largest), the sum of which is returned.
inline float powers(float* scores, Span span, float largest) {
    Floats sums{};
    int64_t key = span.begin;
    for (; key + LANES <= span.end; key += LANES) {
        const Floats power = exp2_of_nonpositive(load(scores + key) - largest);
        store(scores + key, power);
        sums += power;
    }
    float sum = sum_of(sums);
    if (key < span.end) {
        const Floats power = exp2_of_nonpositive(load_some(scores + key, span.end - key) - largest);
        store_some(scores + key, power, span.end - key);
        for (int64_t i = 0; key + i < span.end; ++i) sum += power[i];
    }
    return sum;
}

// The same for probabilities whose scale is that of their row: the largest power is 1 and has the code
// 127, so that codes need not wait for the sum. The sum of the codes is added to `code_sum`.
inline float powers_and_codes(const float* scores, Span span, float largest, int8_t* codes,
                              int32_t* code_sum) {
    Floats sums{};
    Ints code_sums{};
    int64_t key = span.begin;
#if defined(__AVX512BW__)
    for (; key + 4 * LANES <= span.end; key += 4 * LANES) {
        Ints lanes[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const Floats power = exp2_of_nonpositive(load(scores + key + i * LANES) - largest);
            lanes[i] = rounded(power * 127.0f);
            sums += power;
        }
        const __m512i bytes = as_bytes(lanes[0], lanes[1], lanes[2], lanes[3]);
        code_sums = add_bytes(code_sums, bytes);
        _mm512_storeu_si512(codes + key, bytes);
    }
#endif
    for (; key + LANES <= span.end; key += LANES) {
        const Floats power = exp2_of_nonpositive(load(scores + key) - largest);
        const Ints lanes = rounded(power * 127.0f);
        sums += power;
        code_sums += lanes;
        *reinterpret_cast<ByteLanes*>(codes + key) = __builtin_convertvector(lanes, ByteLanes);
    }
    float sum = sum_of(sums);
    *code_sum += sum_of(code_sums);
    if (key < span.end) {
        const Floats power = exp2_of_nonpositive(load_some(scores + key, span.end - key) - largest);
        const Ints lanes = rounded(power * 127.0f);
        for (int64_t i = 0; key + i < span.end; ++i) {
            sum += power[i];
            *code_sum += lanes[i];
            codes[key + i] = (int8_t)lanes[i];
        }
    }
    return sum;
}

// Codes of the probabilities power / sum, and the sum of the codes.
template <int KIND>
inline int32_t codes_of_probabilities(const float* powers, Span span, float inverse,
                                      const Quantizer& quantizer, int8_t* codes) {
    const Divisor by(KIND == LSQ ? quantizer.scale : 1.0f);
    Ints sums{};
    int32_t sum = 0;
    for (int64_t key = span.begin; key < span.end; key += LANES) {
        const int64_t left = span.end - key;
        const Floats power = load_some(powers + key, left);
        const Floats probability = power > 1e-37f ? power * inverse : Floats{};
        const Ints lanes = codes_of<KIND>(probability, quantizer, by);
        if (left >= LANES) {
            sums += lanes;
            *reinterpret_cast<ByteLanes*>(codes + key) = __builtin_convertvector(lanes, ByteLanes);
        } else {
            for (int64_t i = 0; i < left; ++i) sum += lanes[i], codes[key + i] = (int8_t)lanes[i];
        }
    }
    return sum + sum_of(sums);
}

inline int32_t codes_of_probabilities(const float* powers, Span span, float inverse,
                                      const Quantizer& quantizer, int8_t* codes) {
    switch (quantizer.kind) {
        case LSQ: return codes_of_probabilities<LSQ>(powers, span, inverse, quantizer, codes);
        case SIGN: return codes_of_probabilities<SIGN>(powers, span, inverse, quantizer, codes);
        default: return codes_of_probabilities<BINARY>(powers, span, inverse, quantizer, codes);
    }
}

// The largest of a span of scores, to each of which the same of `more` is added first, unless it is
// null.
template <bool HAS_MORE>
inline float largest_in(float* scores, const float* more, Span span) {
    Floats largest = all_lanes(HIDDEN);
    int64_t key = span.begin;
    for (; key + LANES <= span.end; key += LANES) {
        Floats lanes = load(scores + key);
        if constexpr (HAS_MORE) {
            lanes += load(more + key);
            store(scores + key, lanes);
        }
        largest = maximum(lanes, largest);
    }
    float found = largest_of(largest);
    for (; key < span.end; ++key) {
        if constexpr (HAS_MORE) scores[key] += more[key];
        found = scores[key] > found ? scores[key] : found;
    }
    return found;
}

// Memory of a thread.
struct Room {
    int8_t* query_codes;     // BLOCK rows of the depth of a head, and no fewer than PANEL
    int8_t* codes;           // BLOCK rows of `key_depth`
    int8_t* value_codes;     // four rows of the width of a head
    float *scores, *by_distance, *row;
    int64_t key_depth, score_stride, distance_stride;
};

struct Panels {
    const uint8_t *keys, *values, *positions;
    const float *key_scales, *position_scales, *ones;  // ones: scales of the values' columns
    int64_t value_depth;
};

// Codes of a block of queries; their scales have the 1 / √head_dim of the scores, and what makes a
// power of 2 of one of e.
inline void codes_of_queries(const Attention& a, const Operand& operand, int64_t batch, int64_t head,
                             int64_t first, int64_t count, const float* rotation, const Room& room,
                             float* scales, int32_t* terms) {
    const int64_t depth = in_whole(a.head_dim, DEPTH);
    constexpr float LOG2_E = 1.44269504088896341f;
    const float scale = LOG2_E / __builtin_sqrtf((float)a.head_dim);
    for (int64_t row = 0; row < BLOCK; ++row) {
        int8_t* codes = room.query_codes + row * depth;
        __builtin_memset(codes, 0, (size_t)depth);
        scales[row] = 0.0f;
        terms[row] = 0;
        if (row >= count) continue;
        const float* x = prepared(operand, batch, head, first + row, a.head_dim, rotation, a.frames,
                                  room.row);
        terms[row] = OFFSET * quantize_row(x, a.head_dim, operand.quantizers[head], codes,
                                           scales + row);
        scales[row] *= scale;
    }
}

// One block of queries of one head. Keys from `begin` to `end` are scored; `begin` is a multiple of
// PANEL, and scores and codes start there.
inline void attend(const Attention& a, int64_t batch, int64_t head, int64_t first,
                   const Panels& panels, const Room& room) {
    const int64_t count = a.frames - first < BLOCK ? a.frames - first : BLOCK;
    const int64_t depth = in_whole(a.head_dim, DEPTH);
    const bool sees_all = a.global_tokens > 0 || a.window >= a.frames - 1;
    const int64_t seen_end = first + count + a.window;
    const int64_t begin = sees_all || first < a.window ? 0 : (first - a.window) / PANEL * PANEL;
    const int64_t end = sees_all || seen_end > a.frames ? a.frames : seen_end;
    const int64_t keys = end - begin;
    float scales[BLOCK];
    int32_t terms[BLOCK];
    codes_of_queries(a, a.query, batch, head, first, count, a.rotation, room, scales, terms);
    products(room.query_codes, depth, panels.keys, begin / PANEL, in_whole(end, PANEL) / PANEL,
             scales, terms, panels.key_scales, room.scores, room.score_stride);
    const int64_t nearest = a.frames - first - count + begin;  // the distance of the last row's first
    if (a.positions.x) {
        codes_of_queries(a, a.position_query, batch, head, first, count, nullptr, room, scales,
                         terms);
        const int64_t farthest = nearest + keys + count - 1;  // behind the last one
        products(room.query_codes, depth, panels.positions, nearest / PANEL,
                 in_whole(farthest, PANEL) / PANEL, scales, terms, panels.position_scales,
                 room.by_distance, room.distance_stride);
    }
    const uint8_t* valid = a.key_valid ? a.key_valid + batch * a.frames + begin : nullptr;
    const int64_t value_depth = in_whole(keys, DEPTH);
    const Quantizer& quantizer = a.probabilities[head];
    for (int64_t row = 0; row < BLOCK; ++row) {
        int8_t* codes = room.codes + row * room.key_depth;
        __builtin_memset(codes, 0, (size_t)value_depth);
        scales[row] = 0.0f;
        terms[row] = 0;
        if (row >= count) continue;
        float* scores = room.scores + row * room.score_stride;
        const int64_t frame = first + row;
        Span spans[2] = {{0, a.global_tokens < end ? a.global_tokens : end}, {0, keys}};
        if (!(frame < a.global_tokens || a.window >= a.frames - 1)) {
            spans[1].begin = frame - a.window > begin ? frame - a.window - begin : 0;
            spans[1].end = frame + a.window + 1 < end ? frame + a.window + 1 - begin : keys;
        }
        if (spans[1].begin < spans[0].end) spans[1].begin = spans[0].end;
        float largest = HIDDEN;
        for (const Span& span : spans) {
            if (span.begin >= span.end) continue;
            if (valid)
                for (int64_t key = span.begin; key < span.end; ++key)
                    scores[key] = valid[key] ? scores[key] : HIDDEN;
            const float* by_distance = room.by_distance + row * room.distance_stride +
                                       (nearest % PANEL + count - 1 - row);
            const float found = a.positions.x ? largest_in<true>(scores, by_distance, span)
                                              : largest_in<false>(scores, nullptr, span);
            largest = found > largest ? found : largest;
        }
        if (!(largest > HIDDEN)) continue;  // it sees no key: zeros
        float sum = 0.0f;
        int32_t code_sum = 0;
        const bool is_absmax = quantizer.kind == ABSMAX;
        for (const Span& span : spans)
            if (span.begin < span.end)
                sum += is_absmax ? powers_and_codes(scores, span, largest, codes, &code_sum)
                                 : powers(scores, span, largest);
        const float inverse = 1.0f / sum;
        scales[row] = is_absmax ? inverse / 127.0f : quantizer.scale;
        for (const Span& span : spans)
            if (!is_absmax && span.begin < span.end)
                code_sum += codes_of_probabilities(scores, span, inverse, quantizer, codes);
        terms[row] = OFFSET * code_sum;
    }
        const int64_t width = in_whole(a.head_dim, PANEL);
    alignas(64) int32_t sums[TILE_ROWS * SUM_STRIDE];
    const int64_t panel_bytes = panels.value_depth * PANEL;
    for (int64_t panel = 0; panel < width / PANEL; panel += SUM_PANELS) {
        const int64_t left = width / PANEL - panel, here = left < SUM_PANELS ? left : SUM_PANELS;
        for (int64_t row = 0; row < count; row += TILE_ROWS) {
            multiply_panels<8>(here, room.codes + row * room.key_depth, room.key_depth,
                               panels.values + panel * panel_bytes + begin * PANEL, panel_bytes,
                               value_depth, sums);
            for (int64_t r = row; r < row + TILE_ROWS && r < count; ++r) {
                float* out = a.out + batch * a.out_batch + head * a.out_head +
                             (first + r) * a.out_frame + panel * PANEL;
                const float worth = scales[r] * a.value.quantizers[head].scale;
                for (int64_t column = 0; column < here * PANEL; column += LANES) {
                    const int64_t there = a.head_dim - panel * PANEL - column;
                    if (there <= 0) break;
                    Ints sum;
                    __builtin_memcpy(&sum, sums + (r - row) * SUM_STRIDE + column, sizeof sum);
                    store_some(out + column,
                               __builtin_convertvector(sum - terms[r], Floats) * worth, there);
                }
            }
        }
    }
}

constexpr int CODED_ROWS = BLOCK > PANEL ? BLOCK : PANEL;  // rows of a head that have codes at a time

// An attention, and where its panels and the rooms of threads lie in one piece of memory. What
// there is to do is in two parts: all of `prepare`, then all of `mix`, each item by any thread.
struct Plan {
    Attention a;
    int64_t depth, width, whole, distances, value_depth, sequences, blocks;
    int64_t key_bytes, value_bytes, sequence_bytes, position_bytes;  // of a sequence, of a head
    int64_t code_bytes, room_bytes;                                  // of a thread
    Room sizes;

    explicit Plan(const Attention& attention) : a(attention) {
        const bool has_positions = a.positions.x != nullptr;
        depth = in_whole(a.head_dim, DEPTH);
        width = in_whole(a.head_dim, PANEL);
        whole = in_whole(a.frames, PANEL);
        distances = in_whole(2 * a.frames - 1, PANEL);
        value_depth = in_whole(a.frames, DEPTH) + DEPTH;
        sequences = a.batch * a.heads;
        blocks = (a.frames + BLOCK - 1) / BLOCK;
        key_bytes = whole * depth;
        value_bytes = value_depth * width;
        sequence_bytes = in_whole(key_bytes + value_bytes + 4 * whole, 64);
        position_bytes = has_positions ? in_whole(distances * depth + 4 * distances, 64) : 0;
        sizes = {};
        sizes.key_depth = in_whole(a.frames, DEPTH);
        sizes.score_stride = whole + SUM_STRIDE;
        sizes.distance_stride = has_positions ? whole + 2 * PANEL + BLOCK + SUM_STRIDE : 0;
        code_bytes = CODED_ROWS * depth + BLOCK * sizes.key_depth + 4 * in_whole(width, 64);
        room_bytes = in_whole(
            code_bytes + 4 * (BLOCK * (sizes.score_stride + sizes.distance_stride) + 2 * depth), 64);
    }
    int64_t bytes(int threads) const {
        return sequences * sequence_bytes + a.heads * position_bytes + threads * room_bytes;
    }
    Room room(uint8_t* memory, int thread) const {
        uint8_t* own = memory + sequences * sequence_bytes + a.heads * position_bytes +
                       thread * room_bytes;
        Room room = sizes;
        room.query_codes = reinterpret_cast<int8_t*>(own);
        room.codes = room.query_codes + CODED_ROWS * depth;
        room.value_codes = room.codes + BLOCK * sizes.key_depth;
        room.scores = reinterpret_cast<float*>(own + code_bytes);
        room.by_distance = room.scores + BLOCK * sizes.score_stride;
        room.row = room.by_distance + BLOCK * sizes.distance_stride;
        return room;
    }
    // Panels of keys and values of each sequence, then of the positions of each head.
    int64_t to_prepare() const { return sequences + (a.positions.x ? a.heads : 0); }
    void prepare(uint8_t* memory, int64_t item, const Room& room) const {
        if (item >= sequences) {
            const int64_t head = item - sequences;
            uint8_t* panels = memory + sequences * sequence_bytes + head * position_bytes;
            rows_to_columns(a.positions, 0, head, 2 * a.frames - 1, a.head_dim, nullptr, panels,
                            reinterpret_cast<float*>(panels + distances * depth),
                            room.query_codes, room.row);
            return;
        }
        uint8_t* panels = memory + item * sequence_bytes;
        rows_to_columns(a.key, item / a.heads, item % a.heads, a.frames, a.head_dim, a.rotation,
                        panels, reinterpret_cast<float*>(panels + key_bytes + value_bytes),
                        room.query_codes, room.row);
        rows_to_depth(a.value, item / a.heads, item % a.heads, a.frames, a.head_dim, value_depth,
                      panels + key_bytes, room.value_codes);
    }
    // Blocks of queries.
    int64_t to_mix() const { return sequences * blocks; }
    void mix(const uint8_t* memory, int64_t item, const Room& room) const {
        const int64_t sequence = item / blocks, head = sequence % a.heads;
        const uint8_t* of_sequence = memory + sequence * sequence_bytes;
        const uint8_t* of_head = memory + sequences * sequence_bytes + head * position_bytes;
        Panels panels = {};
        panels.keys = of_sequence;
        panels.values = of_sequence + key_bytes;
        panels.key_scales = reinterpret_cast<const float*>(of_sequence + key_bytes + value_bytes);
        panels.positions = of_head;
        panels.position_scales = reinterpret_cast<const float*>(of_head + distances * depth);
        panels.value_depth = value_depth;
        attend(a, sequence / a.heads, head, item % blocks * BLOCK, panels, room);
    }
};

}  // namespace
