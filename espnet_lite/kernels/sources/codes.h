// From floats to the integers that low-bit kernels multiply, and back.
//
// The integer contract, with every step in fp32 as torch does it (../activation_codes.py is the same
// in torch): rounding is half to even; a scale divides, it is not a factor.
#pragma once

#include "lanes.h"

namespace {

typedef int8_t ByteLanes __attribute__((vector_size(LANES), may_alias, aligned(1)));

// How the input of a product becomes integers; the numbers are those of activation_codes.KINDS.
enum Kind : int32_t {
    ABSMAX = 0,  // round(x / scale), scale = max|x| / 127 of each row, 1 where that is 0
    LSQ = 1,     // round(clip(x / scale, low, high)) − zero
    SIGN = 2,    // +1 from the threshold on, else −1
    BINARY = 3,  // 1 from the threshold on, else 0
};

struct Quantizer {
    int32_t kind, zero;
    float scale, low, high, threshold;
};

enum Activation : int32_t { LINEAR = 0, RELU = 1, SWISH = 2, GELU = 3, GLU = 4 };

inline int64_t in_whole(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

inline Floats magnitude(Floats a) { return (Floats)((Bits)a & 0x7fffffffu); }

// The first `count` lanes, zeros behind them.
inline Floats load_some(const float* from, int64_t count) {
    if (count >= LANES) return load(from);
    Floats lanes{};
    for (int64_t i = 0; i < count; ++i) lanes[i] = from[i];
    return lanes;
}

inline void store_some(float* to, Floats lanes, int64_t count) {
    if (count >= LANES) return store(to, lanes);
    for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
}

inline void store_some(int8_t* to, ByteLanes lanes, int64_t count) {
    if (count >= LANES) *reinterpret_cast<ByteLanes*>(to) = lanes;
    else for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
}

// a / b, rounded as a division is, by two corrections of a · (1 / b) (Markstein 1990): a division of
// vectors takes longer than all the rest of the quantization.
struct Divisor {
    float value, inverse;
    bool is_usual;  // neither b nor 1 / b nor a product with them leaves the normal range

    explicit Divisor(float b) : value(b), inverse(1.0f / b) {
        is_usual = b > 1e-25f && b < 1e25f;
    }
    Floats divide(Floats a) const {
#if defined(__AVX512F__)
        if (__builtin_expect(is_usual, 1)) {
            const __m512 factor = _mm512_set1_ps(inverse), by = _mm512_set1_ps(value);
            const __m512 near = _mm512_mul_ps((__m512)a, factor);
            const __m512 rest = _mm512_fnmadd_ps(near, by, (__m512)a);
            return (Floats)_mm512_fmadd_ps(rest, factor, near);
        }
#elif defined(__AVX2__)
        if (__builtin_expect(is_usual, 1)) {
            const __m256 factor = _mm256_set1_ps(inverse), by = _mm256_set1_ps(value);
            const __m256 near = _mm256_mul_ps((__m256)a, factor);
            const __m256 rest = _mm256_fnmadd_ps(near, by, (__m256)a);
            return (Floats)_mm256_fmadd_ps(rest, factor, near);
        }
#endif
        return a / value;
    }
};

// To the nearest integer, ties to even, for |x| < 2^22.
inline Ints rounded(Floats x) {
#if defined(__AVX512F__)
    return (Ints)_mm512_cvtps_epi32((__m512)x);
#else
    constexpr float ROUNDER = 12582912.0f;  // 1.5 · 2^23
    return (Ints)(x + ROUNDER) - 0x4B400000;
#endif
}

// The codes of LANES values; `by` is the divisor of ABSMAX and LSQ.
template <int KIND>
inline Ints codes_of(Floats x, const Quantizer& quantizer, const Divisor& by) {
    if constexpr (KIND == ABSMAX) return rounded(by.divide(x));
    if constexpr (KIND == LSQ) {
        const Floats low = all_lanes(quantizer.low), high = all_lanes(quantizer.high);
        return rounded(minimum(maximum(by.divide(x), low), high)) - quantizer.zero;
    }
    const Ints from_threshold = x >= quantizer.threshold;  // −1 where true
    return KIND == SIGN ? -1 - 2 * from_threshold : -from_threshold;
}

#if defined(__AVX512BW__)
// 64 numbers, none of more than 8 bits, as bytes.
inline __m512i as_bytes(Ints a, Ints b, Ints c, Ints d) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i words = _mm512_packs_epi32((__m512i)a, (__m512i)b);
    const __m512i more = _mm512_packs_epi32((__m512i)c, (__m512i)d);
    return _mm512_permutexvar_epi32(order, _mm512_packs_epi16(words, more));
}

// Four sums of four signed bytes each in 32 bits, added to `sums`.
inline Ints add_bytes(Ints sums, __m512i bytes) {
    const __m512i pairs = _mm512_maddubs_epi16(_mm512_set1_epi8(1), bytes);
    return sums + (Ints)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
}
#endif

template <int KIND>
inline int32_t codes_of_row(const float* x, int64_t count, const Quantizer& quantizer, float scale,
                            int8_t* codes) {
    const Divisor by(scale);
    Ints sums{};
    int64_t i = 0;
#if defined(__AVX512BW__)
    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        Ints lanes[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
            lanes[j] = codes_of<KIND>(load(x + i + j * LANES), quantizer, by);
        const __m512i bytes = as_bytes(lanes[0], lanes[1], lanes[2], lanes[3]);
        sums = add_bytes(sums, bytes);
        _mm512_storeu_si512(codes + i, bytes);
    }
#endif
    for (; i + LANES <= count; i += LANES) {
        const Ints lanes = codes_of<KIND>(load(x + i), quantizer, by);
        sums += lanes;
        *reinterpret_cast<ByteLanes*>(codes + i) = __builtin_convertvector(lanes, ByteLanes);
    }
    int32_t sum = sum_of(sums);
    if (i < count) {
        const Ints lanes = codes_of<KIND>(load_some(x + i, count - i), quantizer, by);
        for (int64_t j = 0; i + j < count; ++j) sum += lanes[j], codes[i + j] = (int8_t)lanes[j];
    }
    return sum;
}

inline float largest_magnitude(const float* x, int64_t count) {
    Floats largest{}, more[3] = {};  // four, for one alone would wait for itself
    int64_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        largest = maximum(magnitude(load(x + i)), largest);
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j)
            more[j] = maximum(magnitude(load(x + i + (j + 1) * LANES)), more[j]);
    }
    largest = maximum(maximum(largest, more[0]), maximum(more[1], more[2]));
    for (; i + LANES <= count; i += LANES) largest = maximum(magnitude(load(x + i)), largest);
    if (i < count) largest = maximum(magnitude(load_some(x + i, count - i)), largest);
    return largest_of(largest);
}

// Write the codes of a row; return their sum, and their scale in `scale`.
[[maybe_unused]] __attribute__((noinline)) int32_t quantize_row(const float* x, int64_t count,
                                                                const Quantizer& quantizer,
                                                                int8_t* codes, float* scale) {
    *scale = quantizer.scale;
    switch (quantizer.kind) {
        case ABSMAX: {
            const float exact = largest_magnitude(x, count) / 127.0f;
            *scale = exact == 0.0f ? 1.0f : exact;
            return codes_of_row<ABSMAX>(x, count, quantizer, *scale, codes);
        }
        case LSQ: return codes_of_row<LSQ>(x, count, quantizer, *scale, codes);
        case SIGN: return codes_of_row<SIGN>(x, count, quantizer, 1.0f, codes);
        default: return codes_of_row<BINARY>(x, count, quantizer, 1.0f, codes);
    }
}

// 1 / x of x in 1 … 2^20, to two units in the last place: a division of vectors takes as long as the
// rest of a sigmoid.
inline Floats reciprocal(Floats x) {
#if defined(__AVX512F__)
    const __m512 near = _mm512_rcp14_ps((__m512)x);
    const __m512 rest = _mm512_fnmadd_ps(near, (__m512)x, _mm512_set1_ps(1.0f));
    return (Floats)_mm512_fmadd_ps(near, rest, near);
#else
    return 1.0f / x;
#endif
}

inline Floats sigmoid(Floats x) {
    const Floats power = exp_of_nonpositive(-magnitude(x));
    return (x >= 0.0f ? all_lanes(1.0f) : power) * reciprocal(1.0f + power);
}

#if defined(__AVX512DQ__)

// 1 − Φ(z) of 0 ≤ z < 32 / 6, in 32 pieces of a sixth: cubic polynomials in the place within a piece, to
// 2e-7, through the four Chebyshev nodes of each.
struct Tails {
    static constexpr float PIECES = 6.0f, LARGEST = 5.3333325f;
    alignas(64) float power[4][32];

    // 1 − Φ(z) by the series of erf (Abramowitz and Stegun 7.1.5).
    static constexpr double tail(double z) {
        const double x = z / 1.41421356237309504880;
        double term = x, sum = x;
        for (int n = 1; n < 100; ++n) {
            term *= -x * x / n;
            sum += term / (2 * n + 1);
        }
        return 0.5 - sum / 1.77245385090551602730;
    }
    constexpr Tails() : power() {
        constexpr double NODES[4] = {0.03806023374435663, 0.30865828381745508, 0.69134171618254492,
                                     0.96193976625564337};
        for (int piece = 0; piece < 32; ++piece) {
            double differences[4] = {};  // Newton's divided ones
            for (int i = 0; i < 4; ++i) differences[i] = tail((piece + NODES[i]) / 6);
            for (int order = 1; order < 4; ++order)
                for (int i = 3; i >= order; --i)
                    differences[i] = (differences[i] - differences[i - 1]) /
                                     (NODES[i] - NODES[i - order]);
            double powers[4] = {differences[3], 0, 0, 0};
            for (int i = 2; i >= 0; --i) {  // powers · (t − node) + difference
                for (int k = 3; k > 0; --k) powers[k] = powers[k - 1] - NODES[i] * powers[k];
                powers[0] = differences[i] - NODES[i] * powers[0];
            }
            for (int k = 0; k < 4; ++k) power[k][piece] = (float)powers[k];
        }
    }
};
constexpr Tails TAILS;

// x · Φ(x), to 2e-7 · |x|: half the instructions of what is below.
inline Floats gelu(Floats x) {
    const Floats z = minimum(magnitude(x), all_lanes(Tails::LARGEST)) * Tails::PIECES;
    const Ints piece = __builtin_convertvector(z, Ints);
    const __m512 t = (__m512)(z - __builtin_convertvector(piece, Floats));
    __m512 powers[4];
    for (int k = 0; k < 4; ++k)
        powers[k] = _mm512_permutex2var_ps(_mm512_load_ps(TAILS.power[k]), (__m512i)piece,
                                           _mm512_load_ps(TAILS.power[k] + 16));
    const __m512 cubic = _mm512_fmadd_ps(_mm512_fmadd_ps(powers[3], t, powers[2]), t, powers[1]);
    const Floats upper = x * (Floats)_mm512_fmadd_ps(cubic, t, powers[0]);
    return x >= 0.0f ? x - upper : upper;
}

#else

// x · Φ(x), with erf by Abramowitz and Stegun's 7.1.26, to 1.5e-7 of 1.
inline Floats gelu(Floats x) {
    const Floats z = magnitude(x) * 0.70710678118654752f;
    const Floats t = reciprocal(1.0f + 0.3275911f * z);
    Floats tail = t * 1.061405429f - 1.453152027f;
    tail = tail * t + 1.421413741f;
    tail = tail * t - 0.284496736f;
    tail = tail * t + 0.254829592f;
    const Floats upper = tail * t * exp_of_nonpositive(-z * z);  // 1 − erf(z)
    return x * (x >= 0.0f ? 1.0f - 0.5f * upper : 0.5f * upper);
}

#endif

inline Floats activated(Floats x, int32_t activation) {
    switch (activation) {
        case RELU: return maximum(x, Floats{});
        case SWISH: return x * sigmoid(x);
        case GELU: return gelu(x);
        default: return x;
    }
}

}  // namespace
