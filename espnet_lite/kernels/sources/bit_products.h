// Products of one bit by one or two: XNOR or AND, and a count of ones.
//
// Weights are ±1 (a bit 1 is +1) in panels of 16 columns: for each 32 inputs 16 words of 32 bits, one
// for each column; input 32 i + b is bit b of word i. Codes are one or two planes of such words in rows.
// Bits beyond the last input are 0 in both.
//
//   ±1 codes:     Σ w x = inputs − 2 · ones(w ⊕ x)
//   plane p of b: Σ w x = Σ_p c_p (2 · ones(w ∧ x_p) − ones(x_p)), c_p the worth of the plane
#pragma once

#include "codes.h"

namespace {

constexpr int BIT_PANEL = 16;       // columns
constexpr int WORD = 32;            // inputs
constexpr int BIT_TILE_ROWS = 4;    // rows and panels whose counts stay in registers
constexpr int BIT_TILE_PANELS = 2;

typedef uint32_t Counts __attribute__((vector_size(64), may_alias));

#if defined(__AVX512VPOPCNTDQ__)
typedef __m512i Column;  // of a panel: 16 words
inline Column load_words(const uint32_t* from) { return _mm512_loadu_si512(from); }
inline Column all_columns(uint32_t word) { return _mm512_set1_epi32((int)word); }
template <bool XOR>
inline void count(Column& ones, Column weights, Column code) {
    const Column met = XOR ? _mm512_xor_si512(weights, code) : _mm512_and_si512(weights, code);
    ones = _mm512_add_epi32(ones, _mm512_popcnt_epi32(met));
}
constexpr int64_t STEPS = 1 << 24;  // that can be counted before `summed`
inline Column summed(Column ones) { return ones; }
#elif defined(__AVX512BW__)
typedef __m512i Column;
inline Column load_words(const uint32_t* from) { return _mm512_loadu_si512(from); }
inline Column all_columns(uint32_t word) { return _mm512_set1_epi32((int)word); }
// Ones of each byte, by a table of half bytes (Muła, Kurz, Lemire 2018, 1611.07612).
template <bool XOR>
inline void count(Column& ones, Column weights, Column code) {
    const Column table = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const Column half = _mm512_set1_epi8(15);
    const Column met = XOR ? _mm512_xor_si512(weights, code) : _mm512_and_si512(weights, code);
    const Column low = _mm512_shuffle_epi8(table, _mm512_and_si512(met, half));
    const Column high = _mm512_shuffle_epi8(
        table, _mm512_and_si512(_mm512_srli_epi16(met, 4), half));
    ones = _mm512_add_epi8(ones, _mm512_add_epi8(low, high));
}
constexpr int64_t STEPS = 31;  // a byte counts up to 8 each time
inline Column summed(Column ones) {
    return _mm512_madd_epi16(_mm512_maddubs_epi16(ones, _mm512_set1_epi8(1)),
                             _mm512_set1_epi16(1));
}
#elif defined(__AVX2__)
struct Column {
    __m256i half[2];
};
inline Column load_words(const uint32_t* from) {
    return {{_mm256_loadu_si256((const __m256i*)from), _mm256_loadu_si256((const __m256i*)from + 1)}};
}
inline Column all_columns(uint32_t word) {
    const __m256i all = _mm256_set1_epi32((int)word);
    return {{all, all}};
}
template <bool XOR>
inline void count(Column& ones, Column weights, Column code) {
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m256i half = _mm256_set1_epi8(15);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        const __m256i met = XOR ? _mm256_xor_si256(weights.half[i], code.half[i])
                                : _mm256_and_si256(weights.half[i], code.half[i]);
        const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(met, half));
        const __m256i high =
            _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(met, 4), half));
        ones.half[i] = _mm256_add_epi8(ones.half[i], _mm256_add_epi8(low, high));
    }
}
constexpr int64_t STEPS = 31;
inline Column summed(Column ones) {
    for (__m256i& half : ones.half)
        half = _mm256_madd_epi16(_mm256_maddubs_epi16(half, _mm256_set1_epi8(1)),
                                 _mm256_set1_epi16(1));
    return ones;
}
#else
struct Column {
    uint32_t word[BIT_PANEL];
};
inline Column load_words(const uint32_t* from) {
    Column column;
    __builtin_memcpy(&column, from, sizeof column);
    return column;
}
inline Column all_columns(uint32_t word) {
    Column column;
    for (uint32_t& each : column.word) each = word;
    return column;
}
// Ones of each byte, in all bytes of a word at once.
template <bool XOR>
inline void count(Column& ones, Column weights, Column code) {
    for (int i = 0; i < BIT_PANEL; ++i) {
        uint32_t met = XOR ? weights.word[i] ^ code.word[i] : weights.word[i] & code.word[i];
        met -= met >> 1 & 0x55555555u;
        met = (met & 0x33333333u) + (met >> 2 & 0x33333333u);
        ones.word[i] += (met + (met >> 4)) & 0x0f0f0f0fu;
    }
}
constexpr int64_t STEPS = 31;
inline Column summed(Column ones) {
    for (uint32_t& word : ones.word) {
        word = (word & 0x00ff00ffu) + (word >> 8 & 0x00ff00ffu);
        word = (word & 0xffffu) + (word >> 16);
    }
    return ones;
}
#endif

// ones[row][column] (of XOR: minus it) of ROWS rows of a plane and PANELS panels; rows of `ones` are BIT_TILE_PANELS panels
// long, rows of the plane `stride` words, panels `panel_words` apart.
template <int ROWS, int PANELS, bool XOR>
inline void count_tile(const uint32_t* plane, int64_t stride, const uint32_t* panels,
                       int64_t panel_words, int64_t words, Counts* ones) {
    Counts total[ROWS][PANELS] = {};
    for (int64_t start = 0; start < words; start += STEPS) {
        const int64_t end = start + STEPS < words ? start + STEPS : words;
        Column part[ROWS][PANELS];
#pragma GCC unroll 4
        for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
            for (int panel = 0; panel < PANELS; ++panel) part[row][panel] = Column{};
        for (int64_t i = start; i < end; ++i) {
            Column weights[PANELS];
#pragma GCC unroll 4
            for (int panel = 0; panel < PANELS; ++panel)
                weights[panel] = load_words(panels + panel * panel_words + i * BIT_PANEL);
#pragma GCC unroll 4
            for (int row = 0; row < ROWS; ++row) {
                const Column code = all_columns(plane[row * stride + i]);
#pragma GCC unroll 4
                for (int panel = 0; panel < PANELS; ++panel)
                    count<XOR>(part[row][panel], weights[panel], code);
            }
        }
#pragma GCC unroll 4
        for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
            for (int panel = 0; panel < PANELS; ++panel) {
                const Column column = summed(part[row][panel]);
                Counts counts;
                static_assert(sizeof counts == sizeof column);
                __builtin_memcpy(&counts, &column, sizeof counts);
                total[row][panel] += XOR ? -counts : counts;
            }
    }
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
        for (int panel = 0; panel < PANELS; ++panel)
            ones[row * BIT_TILE_PANELS + panel] = total[row][panel];
}

template <int PANELS, bool XOR>
inline void count_rows(int64_t rows, const uint32_t* plane, int64_t stride, const uint32_t* panels,
                       int64_t panel_words, int64_t words, Counts* ones) {
    if (rows == BIT_TILE_ROWS)
        return count_tile<BIT_TILE_ROWS, PANELS, XOR>(plane, stride, panels, panel_words, words,
                                                      ones);
    for (int64_t row = 0; row < rows; ++row)
        count_tile<1, PANELS, XOR>(plane + row * stride, stride, panels, panel_words, words,
                                   ones + row * BIT_TILE_PANELS);
}

template <bool XOR>
inline void count_panels(int64_t rows, int64_t count, const uint32_t* plane, int64_t stride,
                         const uint32_t* panels, int64_t panel_words, int64_t words, Counts* ones) {
    if (count == BIT_TILE_PANELS)
        count_rows<BIT_TILE_PANELS, XOR>(rows, plane, stride, panels, panel_words, words, ones);
    else
        count_rows<1, XOR>(rows, plane, stride, panels, panel_words, words, ones);
}

// One bit of each of LANES comparisons that are −1 where true.
inline uint32_t bits_of(Ints comparison) {
#if defined(__AVX512F__)
    return _mm512_movepi32_mask((__m512i)comparison);
#elif defined(__AVX2__)
    return (uint32_t)_mm256_movemask_ps((__m256)comparison);
#else
    uint32_t bits = 0;
    for (int i = 0; i < LANES; ++i) bits |= (uint32_t)(comparison[i] & 1) << i;
    return bits;
#endif
}

// Write the planes of a row, `plane_words` apart; return Σ_p c_p · ones(x_p).
// SIGN and BINARY have one plane, LSQ two: the codes' lowest bits.
inline int32_t bits_of_row(const float* x, int64_t count, const Quantizer& quantizer, uint32_t* plane,
                           int64_t plane_words) {
    const Divisor by(quantizer.scale);
    const bool has_two = quantizer.kind == LSQ;
    const int32_t worth = quantizer.low < 0.0f ? -2 : 2;  // of the second plane
    int32_t sum = 0;
    for (int64_t word = 0; word * WORD < count; ++word) {
        uint32_t first = 0, second = 0;
        for (int at = 0; at < WORD; at += LANES) {
            const int64_t i = word * WORD + at;
            if (i >= count) break;
            const Floats lanes = load_some(x + i, count - i);
            uint32_t low, high = 0;
            if (has_two) {
                const Ints codes = codes_of<LSQ>(lanes, quantizer, by);
                low = bits_of((codes & 1) != 0);
                high = bits_of((codes & 2) != 0);
            } else {
                low = bits_of(lanes >= quantizer.threshold);
            }
            if (count - i < LANES) {
                const uint32_t there = (1u << (count - i)) - 1;
                low &= there, high &= there;
            }
            first |= low << at, second |= high << at;
        }
        plane[word] = first;
        sum += __builtin_popcount(first);
        if (has_two) {
            plane[plane_words + word] = second;
            sum += worth * __builtin_popcount(second);
        }
    }
    return sum;
}

}  // namespace
