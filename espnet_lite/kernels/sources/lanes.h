// Vectors of as many floats as the instruction set of this compilation has in a register.
//
// Every source of this folder is compiled once for each level (build.py); a kernel's name gets the
// level's name behind it. Everything else must be static or in an unnamed namespace, and no inline
// function of the standard library may be called: the linker keeps one copy of such a function for
// all levels, and with instructions that an older processor lacks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define JOIN_NAMES(name, level) name##_##level
#define NAME_OF_LEVEL(name, level) JOIN_NAMES(name, level)
#define KERNEL(name) \
    extern "C" __attribute__((visibility("default"))) int NAME_OF_LEVEL(name, KERNEL_LEVEL)

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES), may_alias));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), may_alias));
typedef float UnalignedFloats __attribute__((vector_size(4 * LANES), may_alias, aligned(4)));

inline Floats load(const float* from) { return *reinterpret_cast<const UnalignedFloats*>(from); }
inline void store(float* to, Floats lanes) { *reinterpret_cast<UnalignedFloats*>(to) = lanes; }
inline Floats all_lanes(float value) { return value - Floats{}; }
inline Ints all_lanes(int32_t value) { return value - Ints{}; }

template <int... lane>
constexpr Ints lane_numbers(std::integer_sequence<int, lane...>) {
    return Ints{lane...};
}
constexpr Ints LANE_NUMBERS = lane_numbers(std::make_integer_sequence<int, LANES>());

#if defined(__AVX512F__)
inline Floats maximum(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
inline Floats minimum(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
#else
inline Floats maximum(Floats a, Floats b) { return a > b ? a : b; }
inline Floats minimum(Floats a, Floats b) { return a < b ? a : b; }
#endif

// Over the lanes of one vector.
#if defined(__AVX512F__)
inline float sum_of(Floats lanes) { return _mm512_reduce_add_ps((__m512)lanes); }
inline float largest_of(Floats lanes) { return _mm512_reduce_max_ps((__m512)lanes); }
inline int32_t sum_of(Ints lanes) { return _mm512_reduce_add_epi32((__m512i)lanes); }
#else
inline float sum_of(Floats lanes) {
    float sum = 0.0f;
    for (int i = 0; i < LANES; ++i) sum += lanes[i];
    return sum;
}

inline float largest_of(Floats lanes) {
    float largest = lanes[0];
    for (int i = 1; i < LANES; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
    return largest;
}

inline int32_t sum_of(Ints lanes) {
    int32_t sum = 0;
    for (int i = 0; i < LANES; ++i) sum += lanes[i];
    return sum;
}
#endif

// e^x for x ≤ 0, to 2 units in the last place; 1e-38 and less for x < -87. Split into 2^n · e^r with
// |r| ≤ ln 2 / 2, and e^r by the polynomial of Cephes' expf.
inline Floats exp_of_nonpositive(Floats x) {
    constexpr float LOG2_E = 1.44269504088896341f;
    constexpr float ROUNDER = 12582912.0f;  // 1.5 · 2^23: sums with it are rounded to integers
    constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
    x = maximum(x, all_lanes(-87.0f));
    const Floats shifted = x * LOG2_E + ROUNDER;
    const Floats n = shifted - ROUNDER;
    const Floats r = (x - n * LN2_HIGH) - n * LN2_LOW;
    Floats tail = r * 1.9875691500e-4f + 1.3981999507e-3f;
    tail = tail * r + 8.3334519073e-3f;
    tail = tail * r + 4.1665795894e-2f;
    tail = tail * r + 1.6666665459e-1f;
    tail = tail * r + 5.0000001201e-1f;
    const Floats power = tail * (r * r) + r + 1.0f;
    // The low bits of `shifted` are n; its high ones leave on the left.
    return (Floats)((Bits)power + ((Bits)shifted << 23));
}

// log x for positive x of the normal range, to 2 units in the last place. Split into 2^n · m with m from
// √½ to √2, and log m by the polynomial of Cephes' logf.
inline Floats log_of_positive(Floats x) {
    constexpr uint32_t ROOT_OF_HALF = 0x3f3504f3, MANTISSA = 0x007fffff;
    constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
    const Bits above = (Bits)x - ROOT_OF_HALF;
    const Floats n = __builtin_convertvector((Ints)above >> 23, Floats);
    const Floats m = (Floats)((above & MANTISSA) + ROOT_OF_HALF) - 1.0f;
    const Floats square = m * m;
    Floats tail = m * 7.0376836292e-2f - 1.1514610310e-1f;
    tail = tail * m + 1.1676998740e-1f;
    tail = tail * m - 1.2420140846e-1f;
    tail = tail * m + 1.4249322787e-1f;
    tail = tail * m - 1.6668057665e-1f;
    tail = tail * m + 2.0000714765e-1f;
    tail = tail * m - 2.4999993993e-1f;
    tail = tail * m + 3.3333331174e-1f;
    return ((tail * m * square + n * LN2_LOW) - 0.5f * square) + m + n * LN2_HIGH;
}

// 2^x for x ≤ 0, to 2 units in the last place; 0, or 1e-38 and less, for x < -126. Split into 2^n ·
// 2^r with |r| ≤ 1/2, and 2^r by the polynomial of Cephes' exp2f.
inline Floats exp2_of_nonpositive(Floats x) {
#if defined(__AVX512F__)
    const Floats n = (Floats)_mm512_roundscale_ps((__m512)x, 0);
#else
    constexpr float ROUNDER = 12582912.0f;  // 1.5 · 2^23
    x = maximum(x, all_lanes(-126.0f));
    const Floats shifted = x + ROUNDER;
    const Floats n = shifted - ROUNDER;
#endif
    const Floats r = x - n;
    Floats tail = r * 1.535336188319500e-4f + 1.339887440266574e-3f;
    tail = tail * r + 9.618437357674640e-3f;
    tail = tail * r + 5.550332471162809e-2f;
    tail = tail * r + 2.402264791363012e-1f;
    tail = tail * r + 6.931472028550421e-1f;
    const Floats power = tail * r + 1.0f;
#if defined(__AVX512F__)
    return (Floats)_mm512_scalef_ps((__m512)power, (__m512)n);
#else
    return (Floats)((Bits)power + ((Bits)shifted << 23));
#endif
}

// Exchange the lanes of a and b whose numbers have the bit STEP so that 2×2 blocks are transposed.
template <int STEP, int... lane>
inline void exchange(Floats& a, Floats& b, std::integer_sequence<int, lane...>) {
#if defined(__clang__)
    const Floats first = __builtin_shufflevector(a, b, (lane & STEP ? LANES + lane - STEP : lane)...);
    b = __builtin_shufflevector(a, b, (lane & STEP ? LANES + lane : lane + STEP)...);
#else
    const Floats first = __builtin_shuffle(a, b, Ints{(lane & STEP ? LANES + lane - STEP : lane)...});
    b = __builtin_shuffle(a, b, Ints{(lane & STEP ? LANES + lane : lane + STEP)...});
#endif
    a = first;
}

// Transpose LANES vectors of LANES floats in registers.
template <int STEP = 1>
inline void transpose(Floats (&rows)[LANES]) {
    if constexpr (STEP < LANES) {
#pragma GCC unroll 16
        for (int row = 0; row < LANES; ++row)
            if (!(row & STEP))
                exchange<STEP>(rows[row], rows[row + STEP],
                               std::make_integer_sequence<int, LANES>());
        transpose<2 * STEP>(rows);
    }
}

}  // namespace
