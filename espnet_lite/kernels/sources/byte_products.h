// Products of bytes: signed codes in rows × unsigned weights in panels of 16 columns.
//
// A panel has for each 4 inputs ("group") 64 bytes: of column 0 the weights of these four, of column 1,
// … This is what VPDPBUSD takes (16 sums of four products) and what a tile of AMX is loaded from. A
// weight w is kept as w + offset, so that Σ (w + offset) · x − offset · Σ x is the product wanted; with
// unsigned weights the codes can be the operand that is broadcast from memory.
//
// Weights of 1, 2 or 4 bits are kept packed: of each 64 bytes there are `bits` words of 64 bits, and the
// bytes 8 l … 8 l + 7 are in word l mod bits, shifted left by bits · (l div bits).
#pragma once

#include "codes.h"

namespace {

constexpr int PANEL = 16;        // columns
constexpr int GROUP_BYTES = 64;  // of a panel, for 4 inputs
constexpr int DEPTH = 64;        // inputs are padded to a multiple of it: 16 groups

// Rows and panels of a product whose sums stay in registers (amx: in tiles).
#if defined(__AMX_INT8__)
constexpr int TILE_ROWS = 32, TILE_PANELS = 2;
#elif defined(__AVX512VNNI__)
constexpr int TILE_ROWS = 6, TILE_PANELS = 4;
#elif defined(__AVX512BW__)
constexpr int TILE_ROWS = 6, TILE_PANELS = 2;
#else
constexpr int TILE_ROWS = 4, TILE_PANELS = 1;
#endif
// Sums are written for so many panels side by side: two at least, which a GLU needs together.
constexpr int SUM_PANELS = TILE_PANELS < 2 ? 2 : TILE_PANELS;
constexpr int SUM_STRIDE = SUM_PANELS * PANEL;

// Unpack `groups` groups of a panel. `from` has 8 · BITS bytes for each.
template <int BITS>
inline void unpack_groups(const uint8_t* from, int64_t groups, uint8_t* to) {
    constexpr uint64_t MASK = ((1u << BITS) - 1) * 0x0101010101010101ull;
#if defined(__AVX512F__)
    const __m512i mask = _mm512_set1_epi64((int64_t)MASK);
    const __m512i lane = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    constexpr int LOG_BITS = BITS == 4 ? 2 : BITS - 1;
    const __m512i shifts = _mm512_slli_epi64(_mm512_srli_epi64(lane, LOG_BITS), LOG_BITS);
    for (int64_t group = 0; group < groups; ++group, from += 8 * BITS, to += GROUP_BYTES) {
        __m512i words;
        if constexpr (BITS == 1) {
            int64_t word;
            __builtin_memcpy(&word, from, sizeof word);
            words = _mm512_set1_epi64(word);
        } else if constexpr (BITS == 2) {
            words = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)from));
        } else {
            words = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)from));
        }
        _mm512_storeu_si512(to, _mm512_and_si512(_mm512_srlv_epi64(words, shifts), mask));
    }
#else
    for (int64_t group = 0; group < groups; ++group, from += 8 * BITS, to += GROUP_BYTES) {
        uint64_t word[BITS];
        __builtin_memcpy(word, from, sizeof word);
#pragma GCC unroll 8
        for (int l = 0; l < 8; ++l) {
            const uint64_t bytes = word[l % BITS] >> (BITS * (l / BITS)) & MASK;
            __builtin_memcpy(to + 8 * l, &bytes, 8);
        }
    }
#endif
}

inline void unpack(const uint8_t* from, int bits, int64_t groups, uint8_t* to) {
    switch (bits) {
        case 1: return unpack_groups<1>(from, groups, to);
        case 2: return unpack_groups<2>(from, groups, to);
        default: return unpack_groups<4>(from, groups, to);
    }
}

#if defined(__AMX_INT8__)

// Tiles are 16 rows of 64 bytes. A thread that multiplies makes one of these.
struct Tiles {
    Tiles() {
        struct alignas(64) {
            uint8_t palette, start_row, reserved[14];
            uint16_t row_bytes[16];
            uint8_t rows[16];
        } shape = {};
        shape.palette = 1;
        for (int tile = 0; tile < 8; ++tile) shape.row_bytes[tile] = 64, shape.rows[tile] = 16;
        _tile_loadconfig(&shape);
    }
    ~Tiles() { _tile_release(); }
};

// sums[row][column] of TILE_ROWS rows and PANELS panels; rows of `sums` are SUM_STRIDE long. Panels are `panel_bytes` apart.
template <int PANELS, int BITS>
inline void multiply_tile(const int8_t* codes, int64_t stride, const uint8_t* panels,
                          int64_t panel_bytes, int64_t depth, int32_t* sums) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < depth; k += DEPTH) {
        _tile_loadd(4, codes + k, stride);
        _tile_loadd(5, codes + 16 * stride + k, stride);
        _tile_loadd(6, panels + k * PANEL, 64);
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(2, 5, 6);
        if constexpr (PANELS == 2) {
            _tile_loadd(7, panels + panel_bytes + k * PANEL, 64);
            _tile_dpbsud(1, 4, 7);
            _tile_dpbsud(3, 5, 7);
        }
    }
    _tile_stored(0, sums, 4 * SUM_STRIDE);
    _tile_stored(2, sums + 16 * SUM_STRIDE, 4 * SUM_STRIDE);
    if constexpr (PANELS == 2) {
        _tile_stored(1, sums + PANEL, 4 * SUM_STRIDE);
        _tile_stored(3, sums + 16 * SUM_STRIDE + PANEL, 4 * SUM_STRIDE);
    }
}

#else

struct Tiles {};  // there is nothing to be set up

#if defined(__AVX512VNNI__)

// As inline assembly: with the intrinsic, GCC 12 keeps the sums in memory, at half the speed.
inline __m512i add_products(__m512i sums, __m512i weights, __m512i codes) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(weights), "v"(codes));
    return sums;
}

template <int PANELS, int BITS>
inline void multiply_tile(const int8_t* codes, int64_t stride, const uint8_t* panels,
                          int64_t panel_bytes, int64_t depth, int32_t* sums) {
    __m512i sum[TILE_ROWS][PANELS];
#pragma GCC unroll 8
    for (int row = 0; row < TILE_ROWS; ++row)
#pragma GCC unroll 4
        for (int panel = 0; panel < PANELS; ++panel) sum[row][panel] = _mm512_setzero_si512();
    for (int64_t k = 0; k < depth; k += 4) {
        __m512i weights[PANELS];
#pragma GCC unroll 4
        for (int panel = 0; panel < PANELS; ++panel)
            weights[panel] = _mm512_loadu_si512(panels + panel * panel_bytes + k * PANEL);
#pragma GCC unroll 8
        for (int row = 0; row < TILE_ROWS; ++row) {
            int32_t four;
            __builtin_memcpy(&four, codes + row * stride + k, 4);
            const __m512i code = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (int panel = 0; panel < PANELS; ++panel)
                sum[row][panel] = add_products(sum[row][panel], weights[panel], code);
        }
    }
#pragma GCC unroll 8
    for (int row = 0; row < TILE_ROWS; ++row)
#pragma GCC unroll 4
        for (int panel = 0; panel < PANELS; ++panel)
            _mm512_storeu_si512(sums + row * SUM_STRIDE + panel * PANEL, sum[row][panel]);
}

#elif defined(__AVX2__)

// Without VNNI: VPMADDUBSW adds two products to 16 bits and saturates. That never happens here: codes
// are −128 … 127, and two products with weights of 7 bits are at most 2 · 127 · 128; those of 8 bits
// are split into their lowest seven bits and the highest.
#if defined(__AVX512BW__)
typedef __m512i Register;
inline Register load_bytes(const uint8_t* from) { return _mm512_loadu_si512(from); }
inline Register all_fours(int32_t four) { return _mm512_set1_epi32(four); }
inline Register all_words(int16_t word) { return _mm512_set1_epi16(word); }
inline Register both(Register a, Register b) { return _mm512_and_si512(a, b); }
inline Register pairs(Register weights, Register codes) {
    return _mm512_maddubs_epi16(weights, codes);
}
inline Register add_words(Register a, Register b) { return _mm512_add_epi16(a, b); }
inline Register widened(Register words) { return _mm512_madd_epi16(words, all_words(1)); }
inline Register add_sums(Register a, Register b) { return _mm512_add_epi32(a, b); }
inline void store_sums(int32_t* to, Register sums) { _mm512_storeu_si512(to, sums); }
#else
typedef __m256i Register;
inline Register load_bytes(const uint8_t* from) { return _mm256_loadu_si256((const __m256i*)from); }
inline Register all_fours(int32_t four) { return _mm256_set1_epi32(four); }
inline Register all_words(int16_t word) { return _mm256_set1_epi16(word); }
inline Register both(Register a, Register b) { return _mm256_and_si256(a, b); }
inline Register pairs(Register weights, Register codes) {
    return _mm256_maddubs_epi16(weights, codes);
}
inline Register add_words(Register a, Register b) { return _mm256_add_epi16(a, b); }
inline Register widened(Register words) { return _mm256_madd_epi16(words, all_words(1)); }
inline Register add_sums(Register a, Register b) { return _mm256_add_epi32(a, b); }
inline void store_sums(int32_t* to, Register sums) { _mm256_storeu_si256((__m256i*)to, sums); }
#endif

constexpr int PARTS = GROUP_BYTES / (int)sizeof(Register);  // registers of a group

// Four products with weights of 8 bits, in 32 bits.
inline Register wide_products(Register weights, Register codes) {
    const Register low = pairs(both(weights, all_words(0x7f7f)), codes);
    const Register high = pairs(both(weights, all_words((int16_t)0x8080)), codes);
    return add_sums(widened(low), widened(high));
}

template <int PANELS, int BITS>
inline void multiply_tile(const int8_t* codes, int64_t stride, const uint8_t* panels,
                          int64_t panel_bytes, int64_t depth, int32_t* sums) {
    // Groups whose pairs of products fit into 16 bits: 2 · 128 · (2^BITS − 1) each.
    constexpr int GROUPS = BITS == 8 ? DEPTH / 4 : 127 / ((1 << BITS) - 1);
    constexpr int COLUMNS = PANELS * PARTS;
    Register sum[TILE_ROWS][COLUMNS];
#pragma GCC unroll 8
    for (int row = 0; row < TILE_ROWS; ++row)
#pragma GCC unroll 4
        for (int column = 0; column < COLUMNS; ++column) sum[row][column] = Register{};
    for (int64_t start = 0; start < depth; start += 4 * GROUPS) {
        const int64_t end = start + 4 * GROUPS < depth ? start + 4 * GROUPS : depth;
        Register words[TILE_ROWS][COLUMNS];
#pragma GCC unroll 8
        for (int row = 0; row < TILE_ROWS; ++row)
#pragma GCC unroll 4
            for (int column = 0; column < COLUMNS; ++column)
                words[row][column] = BITS == 8 ? sum[row][column] : Register{};
        for (int64_t k = start; k < end; k += 4) {
            Register weights[COLUMNS];
#pragma GCC unroll 4
            for (int column = 0; column < COLUMNS; ++column)
                weights[column] = load_bytes(panels + column / PARTS * panel_bytes + k * PANEL +
                                             column % PARTS * sizeof(Register));
#pragma GCC unroll 8
            for (int row = 0; row < TILE_ROWS; ++row) {
                int32_t four;
                __builtin_memcpy(&four, codes + row * stride + k, 4);
                const Register code = all_fours(four);
#pragma GCC unroll 4
                for (int column = 0; column < COLUMNS; ++column) {
                    Register& total = words[row][column];
                    total = BITS == 8 ? add_sums(total, wide_products(weights[column], code))
                                      : add_words(total, pairs(weights[column], code));
                }
            }
        }
#pragma GCC unroll 8
        for (int row = 0; row < TILE_ROWS; ++row)
#pragma GCC unroll 4
            for (int column = 0; column < COLUMNS; ++column)
                sum[row][column] = BITS == 8
                                       ? words[row][column]
                                       : add_sums(sum[row][column], widened(words[row][column]));
    }
#pragma GCC unroll 8
    for (int row = 0; row < TILE_ROWS; ++row)
#pragma GCC unroll 4
        for (int column = 0; column < COLUMNS; ++column)
            store_sums(sums + row * SUM_STRIDE + column * (PANEL / PARTS), sum[row][column]);
}

#else

template <int PANELS, int BITS>
inline void multiply_tile(const int8_t* codes, int64_t stride, const uint8_t* panels,
                          int64_t panel_bytes, int64_t depth, int32_t* sums) {
    for (int row = 0; row < TILE_ROWS; ++row)
        for (int panel = 0; panel < PANELS; ++panel) {
            int32_t sum[PANEL] = {};
            const uint8_t* weights = panels + panel * panel_bytes;
            for (int64_t k = 0; k < depth; k += 4, weights += GROUP_BYTES) {
                const int8_t* four = codes + row * stride + k;
                for (int column = 0; column < PANEL; ++column)
                    for (int i = 0; i < 4; ++i) sum[column] += weights[4 * column + i] * four[i];
            }
            __builtin_memcpy(sums + row * SUM_STRIDE + panel * PANEL, sum, sizeof sum);
        }
}

#endif
#endif

// The same for any number of panels up to SUM_PANELS.
template <int BITS>
__attribute__((noinline)) void multiply_panels(int64_t count, const int8_t* codes, int64_t stride,
                            const uint8_t* panels, int64_t panel_bytes, int64_t depth,
                            int32_t* sums) {
    constexpr int HALF = TILE_PANELS > 2 ? 2 : 1;
    int64_t panel = 0;
    for (; panel + TILE_PANELS <= count; panel += TILE_PANELS)
        multiply_tile<TILE_PANELS, BITS>(codes, stride, panels + panel * panel_bytes, panel_bytes,
                                         depth, sums + panel * PANEL);
    for (; panel + HALF <= count; panel += HALF)
        multiply_tile<HALF, BITS>(codes, stride, panels + panel * panel_bytes, panel_bytes, depth,
                                  sums + panel * PANEL);
    for (; panel < count; ++panel)
        multiply_tile<1, BITS>(codes, stride, panels + panel * panel_bytes, panel_bytes, depth,
                               sums + panel * PANEL);
}

}  // namespace
