// CTC scores of prefixes for a beam search over tokens. See ../ctc_prefix.py for what they are.
//
// What a hypothesis has after each frame is kept as plain numbers times a power of two of its own, so
// that the recursion over frames is two products and three sums a frame. The largest number of a
// hypothesis is near 2^TOP: what is e^-1300 of it becomes zero.

#include "lanes.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

constexpr int TOP = 960;           // Σ over 2^60 frames is still a number
constexpr double ZERO = -600.0;    // a score below it is as good as impossible: −∞
constexpr double LN_2 = 0.69314718055994530942;
constexpr int64_t BLANK = 0;

constexpr int HALF = LANES / 2;  // doubles in a register
typedef double Doubles __attribute__((vector_size(8 * HALF), may_alias, aligned(8)));

struct Sizes {
    int64_t utterances, beam, frames, vocab, eos, candidates;
};

// Of (utterances, beam) hypotheses; the first two also for frames + 1 points in time.
struct State {
    double *any, *blank;  // γ, of all paths and of those that end in a blank, over e^scale
    double *scale, *psi;  // natural logarithms
    int64_t* last;        // token
};

// Numbers below the normal range would each take a hundred cycles.
struct FlushToZero {
#if defined(__SSE2__)
    const unsigned before = _mm_getcsr();
    FlushToZero() { _mm_setcsr(before | 0x8040); }  // results and operands
    ~FlushToZero() { _mm_setcsr(before); }
#else
    FlushToZero() {}
#endif
};

inline double dot(const double* a, const double* b, int64_t count) {
    Doubles sums[4] = {};
    int64_t i = 0;
    for (; i + 4 * HALF <= count; i += 4 * HALF)
        for (int v = 0; v < 4; ++v)
            sums[v] += *reinterpret_cast<const Doubles*>(a + i + v * HALF) *
                       *reinterpret_cast<const Doubles*>(b + i + v * HALF);
    const Doubles both = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    double sum = 0.0;
    for (int lane = 0; lane < HALF; ++lane) sum += both[lane];
    for (; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

inline double power_of_two(int64_t exponent) {
    const uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

// Let the largest of the numbers be near 2^TOP; return the logarithm of what they were divided by.
inline double rescale(double largest, double* any, double* blank, int64_t points) {
    if (!(largest > 0.0 && largest < __builtin_inf())) return 0.0;  // impossible, or no numbers
    uint64_t bits;
    __builtin_memcpy(&bits, &largest, sizeof bits);
    const int64_t shift = TOP - ((int64_t)(bits >> 52) - 1023);
    const double first = power_of_two(shift / 2), second = power_of_two(shift - shift / 2);
    for (int64_t t = 0; t < points; ++t) {
        any[t] = any[t] * first * second;
        blank[t] = blank[t] * first * second;
    }
    return -(double)shift * LN_2;
}

}  // namespace

// Write ψ(g·c) − ψ(g) of each candidate c to `scores`; probs: (utterances, vocab, frames).
KERNEL(ctc_prefix)
(const double* probs, const State* state, const int64_t* candidates, float* scores, const Sizes* sizes,
 int threads) {
    const Sizes own = *sizes;
    const State now = *state;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t row = 0; row < own.utterances * own.beam; ++row) {
        const FlushToZero in_this_thread;
        const double* of_utterance = probs + row / own.beam * own.vocab * own.frames;
        const double* any = now.any + row * (own.frames + 1);
        const double* blank = now.blank + row * (own.frames + 1);
        const double offset = now.scale[row] - now.psi[row];
        for (int64_t c = 0; c < own.candidates; ++c) {
            const int64_t token = candidates[row * own.candidates + c];
            const double* emitted = of_utterance + token * own.frames;
            const double sum = token == own.eos ? any[own.frames]
                                                : dot(token == now.last[row] ? blank : any, emitted,
                                                      own.frames);
            const double gained = __builtin_log(sum) + offset;
            const bool is_none = token == BLANK || gained < ZERO;
            scores[row * own.candidates + c] = is_none ? -__builtin_inff() : (float)gained;
        }
    }
    return 0;
}

// Write to `after` the state of hypotheses parents[u, k] of `state`, each with a token more.
KERNEL(ctc_prefix_advance)
(const double* probs, const State* state, const int64_t* parents, const int64_t* tokens,
 const State* after, const Sizes* sizes, int threads) {
    const Sizes own = *sizes;
    const State from = *state, to = *after;
    const int64_t points = own.frames + 1;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t row = 0; row < own.utterances * own.beam; ++row) {
        const FlushToZero in_this_thread;
        const int64_t utterance = row / own.beam, parent = utterance * own.beam + parents[row];
        const double* of_utterance = probs + utterance * own.vocab * own.frames;
        const double* in_token = of_utterance + tokens[row] * own.frames;
        const double* in_blank = of_utterance + BLANK * own.frames;
        const bool repeats = tokens[row] == from.last[parent];
        const double* before = (repeats ? from.blank : from.any) + parent * points;
        double *any = to.any + row * points, *blank = to.blank + row * points;
        any[0] = blank[0] = 0.0;
        double of_token = 0.0, of_blank = 0.0, psi = 0.0, largest = 0.0;
        for (int64_t t = 0; t < own.frames; ++t) {
            psi += before[t] * in_token[t];
            of_blank = (of_blank + of_token) * in_blank[t];
            of_token = (of_token + before[t]) * in_token[t];
            const double sum = of_token + of_blank;
            any[t + 1] = sum;
            blank[t + 1] = of_blank;
            largest = sum > largest ? sum : largest;
        }
        to.last[row] = tokens[row];
        to.psi[row] = __builtin_log(psi) + from.scale[parent];
        to.scale[row] = from.scale[parent] + rescale(largest, any, blank, points);
    }
    return 0;
}
