// y = activation(Σ codes · weights · scales + bias), of floats, with the input quantized on the way:
// (LayerNorm of a row, codes of it), then products of integers, then what follows a Linear, all in one
// parallel region. See ../lowbit_linear.py for what it computes.

#include <cstdlib>
#include <omp.h>

#include "bit_products.h"
#include "byte_products.h"
#include "layer_norm.h"

namespace {

constexpr int64_t CACHED_BYTES = 24576;

struct Weights {
    const void* panels;            // byte_products.h, or bit_products.h where `is_bits`
    const float* scale;            // of each output, padded to whole panels
    const float* bias;             // the same
    const int32_t* column_terms;   // added to the integer sums, or null
    int64_t inputs, panel_count;
    int64_t results;               // columns of the output; with GLU two columns make one
    int32_t bits, offset, is_bits, activation;
    Quantizer quantizer;
};

struct Rows {
    const float* x;
    int64_t x_stride, count;
    float* out;
    int64_t out_stride;
    const float* residual;  // added to factor · result, or null
    int64_t residual_stride;
    float factor;
};

// A block of integer sums: `panels` panels from the number `panel` on, `count` rows from `row` on.
struct Sums {
    const int32_t* sums;
    int64_t stride, panel, panels, row, count;
};

// The reals that the sums of LANES columns stand for; `part` of the panel `which` of the block.
struct Reals {
    Floats scale, bias;
    Ints more;
    const int32_t* sums;
    int64_t stride;
    bool is_doubled;

    Reals(const Sums& block, const Weights& weights, int64_t which, int part, bool is_doubled)
        : is_doubled(is_doubled) {
        const int64_t at = (block.panel + which) * PANEL + part * LANES;
        scale = load(weights.scale + at);
        bias = load(weights.bias + at);
        more = Ints{};
        if (weights.column_terms)
            __builtin_memcpy(&more, weights.column_terms + at, sizeof more);
        sums = block.sums + which * PANEL + part * LANES;
        stride = block.stride;
    }
    Floats of_row(int64_t row, float row_scale, int32_t term) const {
        Ints sum;
        __builtin_memcpy(&sum, sums + row * stride, sizeof sum);
        if (is_doubled) sum += sum;
        const Ints whole = sum + (more - term);
        return __builtin_convertvector(whole, Floats) * (scale * row_scale) + bias;
    }
};

// What becomes of a block of integer sums. `is_doubled` for weights kept as one bit, which stand for
// 2 · bit − 1.
template <int ACTIVATION>
inline void finish(const Sums& block, const Weights& weights, const Rows& rows, const float* scales,
                   const int32_t* terms, bool is_doubled) {
    constexpr int STEP = ACTIVATION == GLU ? 2 : 1;
    for (int64_t which = 0; which < block.panels; which += STEP)
        for (int part = 0; part < PANEL / LANES; ++part) {
            const int64_t column = (block.panel + which) / STEP * PANEL + part * LANES;
            const int64_t left = weights.results - column;
            if (left <= 0) break;
            const Reals reals(block, weights, which, part, is_doubled);
            const Reals gates(block, weights, which + STEP - 1, part, is_doubled);
            float* out = rows.out + block.row * rows.out_stride + column;
            const float* before = rows.residual + block.row * rows.residual_stride + column;
            for (int64_t row = 0; row < block.count; ++row) {
                const float scale = scales[block.row + row];
                const int32_t term = terms[block.row + row];
                Floats y = reals.of_row(row, scale, term);
                if constexpr (ACTIVATION == GLU) y *= sigmoid(gates.of_row(row, scale, term));
                else y = activated(y, ACTIVATION);
                if (rows.residual)
                    y = load_some(before + row * rows.residual_stride, left) + y * rows.factor;
                store_some(out + row * rows.out_stride, y, left);
            }
        }
}

__attribute__((noinline)) void finish(const Sums& block, const Weights& weights, const Rows& rows,
                                      const float* scales, const int32_t* terms, bool is_doubled) {
    switch (weights.activation) {
        case RELU: return finish<RELU>(block, weights, rows, scales, terms, is_doubled);
        case SWISH: return finish<SWISH>(block, weights, rows, scales, terms, is_doubled);
        case GELU: return finish<GELU>(block, weights, rows, scales, terms, is_doubled);
        case GLU: return finish<GLU>(block, weights, rows, scales, terms, is_doubled);
        default: return finish<LINEAR>(block, weights, rows, scales, terms, is_doubled);
    }
}

// Bring the lines of the output that will be written into the cache meanwhile.
inline void expect_stores(const Rows& rows, int64_t first, int64_t count, int64_t column,
                          int64_t columns) {
    const int64_t end = first + count < rows.count ? first + count : rows.count;
    for (int64_t row = first; row < end; ++row)
        for (int64_t i = 0; i < columns; i += 16)
            __builtin_prefetch(rows.out + row * rows.out_stride + column + i, 1);
}

struct Range {
    int64_t first_panel, end_panel, first_row, end_row;
};

// Products of bytes of a range; `room` is for its unpacked panels.
template <int BITS>
inline void multiply_bytes(const Range& range, const Weights& weights, const Rows& rows,
                           const int8_t* codes, const float* scales, const int32_t* terms,
                           int64_t depth, uint8_t* room) {
    const int64_t panel_bytes = depth * PANEL, packed_bytes = panel_bytes * BITS / 8;
    const int64_t panels = range.end_panel - range.first_panel;
    const uint8_t* unpacked =
        static_cast<const uint8_t*>(weights.panels) + range.first_panel * packed_bytes;
    if (BITS != 8) {
        unpack(unpacked, BITS, panels * depth / 4, room);
        unpacked = room;
    }
    alignas(64) int32_t sums[TILE_ROWS * SUM_STRIDE];
    for (int64_t row = range.first_row; row < range.end_row; row += TILE_ROWS)
        for (int64_t panel = 0; panel < panels; panel += SUM_PANELS) {
            const int64_t here = panels - panel < SUM_PANELS ? panels - panel : SUM_PANELS;
            expect_stores(rows, row, TILE_ROWS, (range.first_panel + panel) * PANEL, here * PANEL);
            multiply_panels<BITS>(here, codes + row * depth, depth, unpacked + panel * panel_bytes,
                                  panel_bytes, depth, sums);
            const int64_t left = range.end_row - row;
            finish({sums, SUM_STRIDE, range.first_panel + panel, here, row,
                    left < TILE_ROWS ? left : TILE_ROWS},
                   weights, rows, scales, terms, BITS == 1);
        }
}

// Products of bits of a range. A row has its first plane, then its second.
inline void multiply_bits(const Range& range, const Weights& weights, const Rows& rows,
                          const uint32_t* planes, const float* scales, const int32_t* terms,
                          int64_t words) {
    const bool has_two = weights.quantizer.kind == LSQ, is_sign = weights.quantizer.kind == SIGN;
    const int64_t stride = has_two ? 2 * words : words, panel_words = words * BIT_PANEL;
    const uint32_t worth = (uint32_t)(weights.quantizer.low < 0.0f ? -2 : 2);
    const uint32_t* panels = static_cast<const uint32_t*>(weights.panels);
    Counts ones[BIT_TILE_ROWS * BIT_TILE_PANELS], second[BIT_TILE_ROWS * BIT_TILE_PANELS];
    for (int64_t panel = range.first_panel; panel < range.end_panel; panel += BIT_TILE_PANELS) {
        const int64_t here = range.end_panel - panel < BIT_TILE_PANELS ? range.end_panel - panel
                                                                       : BIT_TILE_PANELS;
        const uint32_t* of_panel = panels + panel * panel_words;
        for (int64_t row = range.first_row; row < range.end_row; row += BIT_TILE_ROWS) {
            const int64_t count =
                range.end_row - row < BIT_TILE_ROWS ? range.end_row - row : BIT_TILE_ROWS;
            const uint32_t* plane = planes + row * stride;
            if (is_sign)
                count_panels<true>(count, here, plane, stride, of_panel, panel_words, words, ones);
            else
                count_panels<false>(count, here, plane, stride, of_panel, panel_words, words, ones);
            if (has_two) {
                count_panels<false>(count, here, plane + words, stride, of_panel, panel_words, words,
                                    second);
                for (int64_t r = 0; r < count; ++r)
                    for (int64_t p = 0; p < here; ++p)
                        ones[r * BIT_TILE_PANELS + p] += worth * second[r * BIT_TILE_PANELS + p];
            }
            finish({(const int32_t*)ones, BIT_TILE_PANELS * BIT_PANEL, panel, here, row, count},
                   weights, rows, scales, terms, true);
        }
    }
}

inline void multiply(const Range& range, const Weights& weights, const Rows& rows,
                     const uint8_t* codes, const float* scales, const int32_t* terms, int64_t depth,
                     uint8_t* room) {
    if (weights.is_bits)
        return multiply_bits(range, weights, rows, (const uint32_t*)codes, scales, terms,
                             depth / WORD);
    const int8_t* bytes = (const int8_t*)codes;
    switch (weights.bits) {
        case 1: return multiply_bytes<1>(range, weights, rows, bytes, scales, terms, depth, room);
        case 2: return multiply_bytes<2>(range, weights, rows, bytes, scales, terms, depth, room);
        case 4: return multiply_bytes<4>(range, weights, rows, bytes, scales, terms, depth, room);
        default: return multiply_bytes<8>(range, weights, rows, bytes, scales, terms, depth, room);
    }
}

inline int64_t in_whole(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

}  // namespace

// Fill rows->out; return 0, or 1 where there is no memory for the codes.
KERNEL(lowbit_linear)
(const Weights* weights_given, const Norm* norm_given, const Rows* rows_given, int threads) {
    const Weights weights = *weights_given;
    const Norm norm = *norm_given;
    const Rows rows = *rows_given;
    const int64_t depth = in_whole(weights.inputs, weights.is_bits ? WORD : DEPTH);
    const bool has_two = weights.is_bits && weights.quantizer.kind == LSQ;
    const int64_t code_bytes = weights.is_bits ? depth / 8 * (has_two ? 2 : 1) : depth;
    const int64_t padded = in_whole(rows.count, TILE_ROWS);

    // A range: so many panels that they fit beside some rows into the first-level cache of 32 KB.
    const int64_t panels = weights.panel_count;
    const int64_t unit = weights.is_bits ? BIT_TILE_PANELS : SUM_PANELS;
    const int64_t unpacked = weights.is_bits ? depth / 8 * PANEL : depth * PANEL;  // bytes of a panel
    int64_t at_once = CACHED_BYTES / unpacked / unit * unit;
    const int64_t fair = in_whole((panels + 4 * threads - 1) / (4 * threads), unit);
    if (at_once > fair) at_once = fair;
    if (at_once < unit) at_once = unit;
    const int64_t column_ranges = (panels + at_once - 1) / at_once;
    const int64_t wanted = (4 * threads + column_ranges - 1) / column_ranges;
    const int64_t rows_at_once =
        threads > 1 ? in_whole((rows.count + wanted - 1) / wanted, TILE_ROWS) : padded;
    const int64_t row_ranges = (rows.count + rows_at_once - 1) / rows_at_once;

    const int64_t room_bytes = in_whole(at_once * unpacked, 64), row_bytes = in_whole(4 * depth, 64);
    const int64_t all_codes = in_whole(padded * code_bytes, 64), numbers = in_whole(4 * padded, 64);
    uint8_t* codes = static_cast<uint8_t*>(std::aligned_alloc(
        64, (size_t)(all_codes + 2 * numbers + threads * (room_bytes + row_bytes))));
    if (!codes) return 1;
    float* scales = reinterpret_cast<float*>(codes + all_codes);
    int32_t* terms = reinterpret_cast<int32_t*>(codes + all_codes + numbers);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const int thread = threads > 1 ? omp_get_thread_num() : 0;
        uint8_t* room = codes + all_codes + 2 * numbers + thread * (room_bytes + row_bytes);
        float* normalized = reinterpret_cast<float*>(room + room_bytes);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < padded; ++row) {
            uint8_t* of_row = codes + row * code_bytes;
            if (row >= rows.count) {
                __builtin_memset(of_row, 0, (size_t)code_bytes);
                continue;
            }
            const float* x = rows.x + row * rows.x_stride;
            if (norm.weight) {
                normalize(x, weights.inputs, norm, normalized);
                x = normalized;
            }
            if (weights.is_bits) {
                const int32_t sum = bits_of_row(x, weights.inputs, weights.quantizer,
                                                reinterpret_cast<uint32_t*>(of_row), depth / WORD);
                scales[row] = weights.quantizer.scale;
                terms[row] = weights.quantizer.kind == SIGN ? -(int32_t)weights.inputs : sum;
            } else {
                int8_t* bytes = reinterpret_cast<int8_t*>(of_row);
                terms[row] = weights.offset * quantize_row(x, weights.inputs, weights.quantizer,
                                                           bytes, scales + row);
                __builtin_memset(bytes + weights.inputs, 0, (size_t)(depth - weights.inputs));
            }
        }
        Tiles tiles;
        (void)tiles;
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < column_ranges * row_ranges; ++i) {
            const int64_t panel = i / row_ranges * at_once, row = i % row_ranges * rows_at_once;
            const Range range = {panel, panel + at_once < panels ? panel + at_once : panels, row,
                                 row + rows_at_once < rows.count ? row + rows_at_once : rows.count};
            multiply(range, weights, rows, codes, scales, terms, depth, room);
        }
    }
    std::free(codes);
    return 0;
}
