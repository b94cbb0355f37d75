// What becomes of rows of floats in a Linear that multiplies integers: (LayerNorm of a row, codes
// of it), products of integers, and what follows a Linear. One thread computes; which rows and
// columns, its caller says.
#pragma once

#include "bit_products.h"
#include "byte_products.h"
#include "layer_norm.h"

namespace {

constexpr int64_t CACHED_BYTES = 24576;

struct True {
    static constexpr bool value = true;
};
struct False {
    static constexpr bool value = false;
};

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

// What makes reals of the sums of LANES columns.
struct Columns {
    Floats scale, bias;
    Ints more;

    Columns(const Weights& weights, int64_t at) : more{} {
        scale = load(weights.scale + at);
        bias = load(weights.bias + at);
        if (weights.column_terms)
            __builtin_memcpy(&more, weights.column_terms + at, sizeof more);
    }
    // `is_doubled` for weights kept as one bit, which stand for 2 · bit − 1.
    template <bool IS_DOUBLED>
    Floats reals(const int32_t* sums, float row_scale, int32_t term) const {
        Ints sum;
        __builtin_memcpy(&sum, sums, sizeof sum);
        if constexpr (IS_DOUBLED) sum += sum;
        return __builtin_convertvector(sum + (more - term), Floats) * (scale * row_scale) + bias;
    }
};

// What becomes of LANES columns, or the first `left` of them. All of it by value: a store of floats may
// change whatever is in memory, as far as the compiler knows.
template <int ACTIVATION, bool IS_DOUBLED, bool HAS_RESIDUAL>
inline void finish_columns(Columns columns, Columns gates, const int32_t* sums,
                           const int32_t* gate_sums, int64_t stride, int64_t count,
                           const float* scales, const int32_t* terms, const float* before,
                           int64_t before_stride, float factor, float* out, int64_t out_stride,
                           int64_t left) {
    for (int64_t row = 0; row < count; ++row) {
        const float scale = scales[row];
        const int32_t term = terms[row];
        Floats y = columns.reals<IS_DOUBLED>(sums + row * stride, scale, term);
        if constexpr (ACTIVATION == GLU)
            y *= sigmoid(gates.reals<IS_DOUBLED>(gate_sums + row * stride, scale, term));
        else
            y = activated(y, ACTIVATION);
        if constexpr (HAS_RESIDUAL) y = load_some(before + row * before_stride, left) + y * factor;
        store_some(out + row * out_stride, y, left);
    }
}

// What becomes of a block of integer sums.
template <int ACTIVATION>
inline void finish(const Sums& block, const Weights& weights, const Rows& rows, const float* scales,
                   const int32_t* terms, bool is_doubled) {
    constexpr int STEP = ACTIVATION == GLU ? 2 : 1;
    for (int64_t which = 0; which < block.panels; which += STEP)
        for (int part = 0; part < PANEL / LANES; ++part) {
            const int64_t column = (block.panel + which) / STEP * PANEL + part * LANES;
            const int64_t left = weights.results - column, gate = which + STEP - 1;
            if (left <= 0) break;
            const float* before =
                rows.residual ? rows.residual + block.row * rows.residual_stride + column : nullptr;
            const auto finish_all = [&](auto doubled, auto residual) {
                const int64_t at = block.panel * PANEL + part * LANES;
                finish_columns<ACTIVATION, decltype(doubled)::value, decltype(residual)::value>(
                    Columns(weights, at + which * PANEL), Columns(weights, at + gate * PANEL),
                    block.sums + which * PANEL + part * LANES,
                    block.sums + gate * PANEL + part * LANES, block.stride, block.count,
                    scales + block.row, terms + block.row,
                    before, rows.residual_stride,
                    rows.factor, rows.out + block.row * rows.out_stride + column, rows.out_stride,
                    left);
            };
            if (rows.residual)
                is_doubled ? finish_all(True{}, True{}) : finish_all(False{}, True{});
            else
                is_doubled ? finish_all(True{}, False{}) : finish_all(False{}, False{});
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

// How the codes of a row lie in memory, and how much of the weights is multiplied at a time.
struct Layout {
    int64_t depth, code_bytes;         // inputs filled up to whole words; bytes of a row's codes
    int64_t unit, at_once;             // panels: taken together; at a time
    int64_t unpacked, room_bytes;      // bytes of a panel where it is multiplied, and of `at_once`
    int64_t row_bytes;                 // of a row of floats

    explicit Layout(const Weights& weights) {
        depth = in_whole(weights.inputs, weights.is_bits ? WORD : DEPTH);
        const bool has_two = weights.is_bits && weights.quantizer.kind == LSQ;
        code_bytes = weights.is_bits ? depth / 8 * (has_two ? 2 : 1) : depth;
        // So many panels that they fit beside some rows into the first-level cache of 32 KB.
        unit = weights.is_bits ? BIT_TILE_PANELS : SUM_PANELS;
        unpacked = weights.is_bits ? depth / 8 * PANEL : depth * PANEL;
        at_once = CACHED_BYTES / unpacked / unit * unit;
        if (at_once < unit) at_once = unit;
        room_bytes = in_whole(at_once * unpacked, 64);
        row_bytes = in_whole(4 * depth, 64);
    }
};

// Codes of one row, their scale, and what is taken from its sums; `normalized` is room for the row.
inline void codes_of_input(const float* x, const Weights& weights, const Norm& norm,
                           const Layout& layout, uint8_t* codes, float* scale, int32_t* term,
                           float* normalized) {
    if (norm.weight) {
        normalize(x, weights.inputs, norm, normalized);
        x = normalized;
    }
    if (weights.is_bits) {
        const int32_t sum = bits_of_row(x, weights.inputs, weights.quantizer,
                                        reinterpret_cast<uint32_t*>(codes), layout.depth / WORD);
        *scale = weights.quantizer.scale;
        *term = weights.quantizer.kind == SIGN ? -(int32_t)weights.inputs : sum;
    } else {
        int8_t* bytes = reinterpret_cast<int8_t*>(codes);
        *term = weights.offset * quantize_row(x, weights.inputs, weights.quantizer, bytes, scale);
        __builtin_memset(bytes + weights.inputs, 0, (size_t)(layout.depth - weights.inputs));
    }
}

}  // namespace
