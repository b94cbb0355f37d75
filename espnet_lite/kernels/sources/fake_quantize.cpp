// Activations to codes · scale and back to gradients, one pass each: sign, {0, 1} and steps.
//
// What is computed is what quantize/quantizers.py computes in torch, by the same operations in fp32:
// values are equal to the bit, sums of gradients up to the order of their terms. Numbers are fp32 or
// bf16, in memory without gaps as (outer, groups, inner), a group having a scale and a threshold.
//
// NaN gives NaN, so that a training sees it: of two numbers `minimum` and `maximum` return the second
// where one is NaN, and a gradient is multiplied by 0 and not replaced by it.

#include "lanes.h"

namespace {

enum Kind { SIGN = 0, UNIT = 1, SPARSE_UNIT = 2, STEPS = 3 };

struct Shape {
    int64_t outer, groups, inner;
    int64_t kind;
    float low, high;  // codes of STEPS
};

constexpr float ROUNDER = 12582912.0f;  // 1.5 · 2^23: a sum with it is rounded, half to even
constexpr float NOT_A_NUMBER = __builtin_nanf("");
constexpr uint32_t BF16_NOT_A_NUMBER = 0x7fc0;
constexpr int64_t PART = 4096;  // numbers a thread takes at a time

struct Fp32 {
    typedef float Stored;
    static Floats get(const float* from) { return load(from); }
    static void put(float* to, Floats x) { store(to, x); }
    static float get_one(const float* from) { return *from; }
    static void put_one(float* to, float x) { *to = x; }
};

typedef uint16_t Halves __attribute__((vector_size(2 * LANES), may_alias, aligned(2)));

struct Bf16 {
    typedef uint16_t Stored;
    static Floats get(const uint16_t* from) {
        const Halves halves = *reinterpret_cast<const Halves*>(from);
        return (Floats)(__builtin_convertvector(halves, Bits) << 16);
    }
    static void put(uint16_t* to, Floats x) {  // to nearest even
        const Bits bits = (Bits)x;
        const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        const Bits halves = x == x ? rounded : Bits{} + BF16_NOT_A_NUMBER;
        *reinterpret_cast<Halves*>(to) = __builtin_convertvector(halves, Halves);
    }
    static float get_one(const uint16_t* from) {
        union {
            uint32_t bits;
            float value;
        } x = {(uint32_t)*from << 16};
        return x.value;
    }
    static void put_one(uint16_t* to, float value) {
        union {
            float value;
            uint32_t bits;
        } x = {value};
        const uint32_t rounded = (x.bits + 0x7fff + ((x.bits >> 16) & 1)) >> 16;
        *to = (uint16_t)(value == value ? rounded : BF16_NOT_A_NUMBER);
    }
};

// A scalar as a vector of one: the same expressions then do both.
inline Floats nearest(Floats x) { return (x + ROUNDER) - ROUNDER; }

inline Floats clipped(Floats x, Floats low, Floats high) { return minimum(high, maximum(low, x)); }

struct Numbers {
    Floats scale, threshold, low, high;
};

template <int kind>
inline Floats value_of(Floats x, const Numbers& n) {
    const Floats zero = {}, one = zero + 1.0f;
    if (kind == SIGN) {
        const Floats below = x < n.threshold ? -n.scale : zero + NOT_A_NUMBER;
        return x >= n.threshold ? n.scale : below;
    }
    if (kind == STEPS) return nearest(clipped(x / n.scale, n.low, n.high)) * n.scale;
    const Floats u = (x - n.threshold) / n.scale;
    const Floats y = nearest(clipped(u, zero, one)) * n.scale;
    return kind == SPARSE_UNIT ? (x == zero ? zero : y) : y;
}

// The gradient of x, and what is added to those of the scale and of the threshold.
template <int kind>
inline Floats gradients_of(Floats x, Floats g, const Numbers& n, Floats& of_scale,
                           Floats& of_threshold) {
    const Floats zero = {}, one = zero + 1.0f;
    if (kind == SIGN) {
        const Floats centered = x - n.threshold;
        const Floats size = centered < zero ? -centered : centered;
        const Floats inside = g * (size <= n.scale ? one : zero);
        const Floats below = centered < zero ? -g : zero + NOT_A_NUMBER;
        of_scale += centered >= zero ? g : below;
        of_threshold -= inside;
        return inside;
    }
    if (kind == STEPS) {
        const Floats u = x / n.scale;
        const Floats code = nearest(clipped(u, n.low, n.high));
        const Floats above = u > n.low ? one : zero;
        const Floats within = u < n.high ? above : zero;
        of_scale += g * (within > zero ? code - u : code);
        return g * within;
    }
    if (kind == SPARSE_UNIT) g = x == zero ? zero : g;
    const Floats u = (x - n.threshold) / n.scale;
    const Floats above = u >= one ? one : zero;
    const Floats within = u >= zero ? one - above : zero;
    const Floats upper = u >= 0.5f ? one : zero;
    const Floats inside = g * within;
    of_scale += above > zero ? g : inside * (upper - u);
    of_threshold -= inside;
    return inside;
}

inline Numbers numbers_of(const Shape& s, const float* scales, const float* thresholds,
                          int64_t group) {
    return {all_lanes(scales[group]), all_lanes(thresholds ? thresholds[group] : 0.0f),
            all_lanes(s.low), all_lanes(s.high)};
}

template <class In>
inline Floats some(const typename In::Stored* from, int64_t count) {
    Floats x = {};
    for (int64_t i = 0; i < count; ++i) x[i] = In::get_one(from + i);
    return x;
}

template <int kind, class In, class Out>
void quantize_row(const typename In::Stored* x, typename Out::Stored* y, int64_t count,
                  const Numbers& n) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        Out::put(y + i, value_of<kind>(In::get(x + i), n));
    if (i == count) return;
    const Floats last = value_of<kind>(some<In>(x + i, count - i), n);
    for (int64_t j = 0; j < count - i; ++j) Out::put_one(y + i + j, last[j]);
}

template <int kind, class In, class Out>
void gradient_row(const typename In::Stored* x, const typename Out::Stored* g,
                  typename In::Stored* of_x, int64_t count, const Numbers& n, double* sums) {
    Floats of_scale = {}, of_threshold = {};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        In::put(of_x + i, gradients_of<kind>(In::get(x + i), Out::get(g + i), n, of_scale,
                                             of_threshold));
    if (i < count) {  // beyond the end gradients are 0 and add nothing
        const Floats last = gradients_of<kind>(some<In>(x + i, count - i),
                                               some<Out>(g + i, count - i), n, of_scale,
                                               of_threshold);
        for (int64_t j = 0; j < count - i; ++j) In::put_one(of_x + i + j, last[j]);
    }
    for (int lane = 0; lane < LANES; ++lane) {
        sums[0] += of_scale[lane];
        sums[1] += of_threshold[lane];
    }
}

// Rows are cut into parts, so that threads share a long one.
template <int kind, class In, class Out>
void quantize(const Shape& s, const void* x, void* y, const float* scales, const float* thresholds,
              int threads) {
    const int64_t parts = (s.inner + PART - 1) / PART, items = s.outer * s.groups * parts;
#pragma omp parallel for num_threads(threads) if (threads > 1 && items > 1) schedule(static)
    for (int64_t item = 0; item < items; ++item) {
        const int64_t row = item / parts, begin = item % parts * PART;
        const int64_t count = s.inner - begin < PART ? s.inner - begin : PART;
        const int64_t at = row * s.inner + begin;
        quantize_row<kind, In, Out>(static_cast<const typename In::Stored*>(x) + at,
                                    static_cast<typename Out::Stored*>(y) + at, count,
                                    numbers_of(s, scales, thresholds, row % s.groups));
    }
}

template <int kind, class In, class Out>
void gradients(const Shape& s, const void* x, const void* g, void* of_x, const float* scales,
               const float* thresholds, double* sums, int threads) {
    const int64_t parts = (s.inner + PART - 1) / PART, items = s.outer * s.groups * parts;
#pragma omp parallel for num_threads(threads) if (threads > 1 && items > 1) schedule(static)
    for (int64_t item = 0; item < items; ++item) {
        const int64_t row = item / parts, begin = item % parts * PART;
        const int64_t count = s.inner - begin < PART ? s.inner - begin : PART;
        const int64_t at = row * s.inner + begin;
        gradient_row<kind, In, Out>(static_cast<const typename In::Stored*>(x) + at,
                                    static_cast<const typename Out::Stored*>(g) + at,
                                    static_cast<typename In::Stored*>(of_x) + at, count,
                                    numbers_of(s, scales, thresholds, row % s.groups),
                                    sums + 2 * item);
    }
}

// Call `function` with the kind and the types as template arguments.
#define OF_TYPES(function, kind, ...)                                        \
    (x_is_bf16 ? (y_is_bf16 ? function<kind, Bf16, Bf16>(__VA_ARGS__)        \
                            : function<kind, Bf16, Fp32>(__VA_ARGS__))       \
               : (y_is_bf16 ? function<kind, Fp32, Bf16>(__VA_ARGS__)        \
                            : function<kind, Fp32, Fp32>(__VA_ARGS__)))
#define OF_KINDS(function, ...)                                              \
    switch (shape->kind) {                                                   \
        case SIGN: OF_TYPES(function, SIGN, __VA_ARGS__); return 0;          \
        case UNIT: OF_TYPES(function, UNIT, __VA_ARGS__); return 0;          \
        case SPARSE_UNIT: OF_TYPES(function, SPARSE_UNIT, __VA_ARGS__); return 0; \
        case STEPS: OF_TYPES(function, STEPS, __VA_ARGS__); return 0;        \
    }                                                                        \
    return 1;

}  // namespace

// Fill y; return 0, or 1 for an unknown kind. thresholds may be null.
KERNEL(fake_quantize)
(const void* x, void* y, const float* scales, const float* thresholds, const Shape* shape,
 int x_is_bf16, int y_is_bf16, int threads) {
    OF_KINDS(quantize, *shape, x, y, scales, thresholds, threads)
}

// Fill of_x (of the type of x), and sums: (outer, groups, parts of PART numbers, 2), zeros before, with
// what each part adds to the gradients of its group's scale and threshold. g is of the type of y.
KERNEL(fake_quantize_gradients)
(const void* x, const void* g, void* of_x, const float* scales, const float* thresholds,
 double* sums, const Shape* shape, int x_is_bf16, int y_is_bf16, int threads) {
    OF_KINDS(gradients, *shape, x, g, of_x, scales, thresholds, sums, threads)
}
