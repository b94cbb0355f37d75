// CTC's loss and its gradient (Graves et al. 2006), all frames of an utterance in one pass each way. See
// ../ctc_loss.py for what they are.
//
// Of tokens 0 … S − 1 and blanks 0 … S, blank i standing before token i, a row has the logarithms in two
// arrays, so that neighbours are neighbours in memory and a vector takes LANES of them. The largest of a
// frame's forward (backward) numbers is taken off in the next frame, and the sum of what was taken off
// is kept in double: what counts stays near 0, where floats are fine. Behind the last token and blank,
// up to whole vectors, everything is impossible.

#include "lanes.h"

namespace {

constexpr float NONE = -1.0e30f;  // logarithm of what is impossible: sums with it stay finite
constexpr int64_t BLANK = 0;

struct Sizes {
    int64_t utterances, frames, vocab, tokens, room;  // room: floats for an utterance
};

inline Floats log_of_sum(Floats a, Floats b) {
    const Floats top = maximum(a, b);
    return top + log_of_positive(1.0f + exp_of_nonpositive(minimum(a, b) - top));
}

inline Floats log_of_sum(Floats a, Floats b, Floats c) {
    const Floats top = maximum(maximum(a, b), c);
    return top + log_of_positive(exp_of_nonpositive(a - top) + exp_of_nonpositive(b - top) +
                                 exp_of_nonpositive(c - top));
}

// Blanks and tokens of one frame, or what belongs to each; a vector of impossible tokens before them.
struct Row {
    float *blanks, *tokens;
};

struct Utterance {
    const float* log_probs;  // (frames, vocab)
    const int64_t* tokens;
    int64_t frames, count, vocab;
    int64_t width;         // count + 1 in whole vectors
    float* skip;           // 0, or NONE where a token is the one before it: no way without a blank
    float* emitted;        // log-probabilities of the tokens in a frame
    float* rows;           // rows from here on
    bool has_nan = false;  // seen by `emit`

    Row row(int64_t number) const {
        float* blanks = rows + number * (2 * width + LANES);
        return {blanks, blanks + width + LANES};
    }

    // Take the frame's log-probabilities of the tokens, and return that of the blank.
    float emit(int64_t frame) {
        const float* from = log_probs + frame * vocab;
        for (int64_t i = 0; i < count; ++i) {
            const float value = from[tokens[i]];
            has_nan |= value != value;
            emitted[i] = value < NONE ? NONE : value;
        }
        const float value = from[BLANK];
        has_nan |= value != value;
        return value < NONE ? NONE : value;
    }
};

void fill(float* to, int64_t count, float value) {
    for (int64_t i = 0; i < count; ++i) to[i] = value;
}

// What comes after `before` in a frame; returns the largest.
float step_forward(const Utterance& u, Row before, Row after, float of_blank, float taken_off) {
    Floats largest = all_lanes(NONE);
    for (int64_t i = 0; i < u.width; i += LANES) {
        const Floats blank = load(before.blanks + i), token = load(before.tokens + i);
        const Floats previous = load(before.tokens + i - 1);
        const Floats to_blank = log_of_sum(blank, previous) + (of_blank - taken_off);
        const Floats to_token = log_of_sum(token, blank, previous + load(u.skip + i)) +
                                (load(u.emitted + i) - taken_off);
        store(after.blanks + i, to_blank);
        store(after.tokens + i, to_token);
        largest = maximum(largest, maximum(to_blank, to_token));
    }
    return largest_of(largest);
}

// How far `row` may be moved: its largest, or nothing where all is impossible.
inline float to_take_off(float largest) { return largest > 0.5f * NONE ? largest : 0.0f; }

// The rows of all frames (or, kept in turns, of the last two) and what was taken off them so far in
// `taken_off`, one for each; returns −log P.
double forward(Utterance& u, bool is_kept, double* taken_off) {
    const int64_t in_turns = is_kept ? u.frames + 1 : 2;
    for (int64_t row = 0; row < in_turns; ++row)  // the vector before the tokens, of each
        fill(u.row(row).blanks + u.width, LANES, NONE);
    const Row start = u.row(0);
    fill(start.blanks, u.width, NONE);
    fill(start.tokens, u.width, NONE);
    start.blanks[0] = 0.0f;
    double sum = 0.0;
    float off = 0.0f;
    Row now = start;
    for (int64_t t = 0; t < u.frames; ++t) {
        const Row next = u.row((t + 1) % in_turns);
        const float largest = step_forward(u, now, next, u.emit(t), off);
        sum += off;
        if (is_kept) taken_off[t] = sum;
        off = to_take_off(largest);
        now = next;
    }
    const float in_blank = now.blanks[u.count];
    const float in_token = u.count ? now.tokens[u.count - 1] : NONE;
    const float top = in_blank > in_token ? in_blank : in_token;
    if (top < 0.5f * NONE) return __builtin_inf();
    const double both = __builtin_exp((double)in_blank - top) + __builtin_exp((double)in_token - top);
    return -(top + __builtin_log(both) + sum);
}

// Take from `gradients` (frames, vocab) the probability of each token in each frame, given the transcript.
void backward(Utterance& u, const double* taken_off, double loss, float* gradients, Row now,
              Row emitting, float* found) {
    fill(now.blanks, u.width, NONE);
    fill(now.tokens, u.width, NONE);
    fill(emitting.tokens + u.width, LANES, NONE);  // read one vector beyond
    fill(emitting.blanks + u.width, LANES, NONE);
    now.blanks[u.count] = 0.0f;
    if (u.count) now.tokens[u.count - 1] = 0.0f;
    const Floats zero = {};
    double sum = 0.0;
    for (int64_t t = u.frames - 1; t >= 0; --t) {
        const Row before = u.row(t + 1);
        const float of_blank = u.emit(t);
        const float whole = (float)(taken_off[t] + sum + loss);
        Floats in_blanks = zero;
        for (int64_t i = 0; i < u.width; i += LANES) {
            const Floats blank = load(now.blanks + i), token = load(now.tokens + i);
            const Floats of_blanks = load(before.blanks + i) + blank + whole;
            const Floats of_tokens = load(before.tokens + i) + token + whole;
            in_blanks += exp_of_nonpositive(minimum(of_blanks, zero));
            store(found + i, exp_of_nonpositive(minimum(of_tokens, zero)));
            store(emitting.blanks + i, blank + of_blank);
            store(emitting.tokens + i, token + load(u.emitted + i));
        }
        float* gradient = gradients + t * u.vocab;
        for (int64_t i = 0; i < u.count; ++i) gradient[u.tokens[i]] -= found[i];
        gradient[BLANK] -= sum_of(in_blanks);
        if (!t) break;
        Floats largest = all_lanes(NONE);
        for (int64_t i = 0; i < u.width; i += LANES) {
            const Floats token = load(emitting.tokens + i);
            const Floats to_blank = log_of_sum(load(emitting.blanks + i), token);
            const Floats to_token = log_of_sum(token, load(emitting.blanks + i + 1),
                                               load(emitting.tokens + i + 1) + load(u.skip + i + 1));
            store(now.blanks + i, to_blank);
            store(now.tokens + i, to_token);
            largest = maximum(largest, maximum(to_blank, to_token));
        }
        const float off = to_take_off(largest_of(largest));
        for (int64_t i = 0; i < u.width; i += LANES) {
            store(now.blanks + i, load(now.blanks + i) - off);
            store(now.tokens + i, load(now.tokens + i) - off);
        }
        sum += off;
    }
}

bool one_utterance(const Sizes& s, int64_t number, const float* log_probs, const int64_t* lengths,
                   const int64_t* tokens, const int64_t* token_lengths, float* losses,
                   float* gradients, float* room, double* taken_off) {
    Utterance u;
    u.log_probs = log_probs + number * s.frames * s.vocab;
    u.tokens = tokens + number * s.tokens;
    u.frames = lengths[number];
    u.count = token_lengths[number];
    u.vocab = s.vocab;
    if (u.frames < 0 || u.frames > s.frames || u.count < 0 || u.count > s.tokens) return false;
    for (int64_t i = 0; i < u.count; ++i)
        if (u.tokens[i] < 0 || u.tokens[i] >= s.vocab) return false;
    u.width = (u.count + LANES) / LANES * LANES;
    u.skip = room;
    u.emitted = u.skip + u.width + LANES;
    float* found = u.emitted + u.width;
    const Row now = {found + u.width, found + 2 * u.width};
    const Row emitting = {now.tokens + u.width, now.tokens + 2 * u.width + LANES};
    u.rows = emitting.tokens + u.width + LANES;
    fill(u.skip, u.width + LANES, NONE);
    for (int64_t i = 1; i < u.count; ++i)
        if (u.tokens[i] != u.tokens[i - 1]) u.skip[i] = 0.0f;
    fill(u.emitted, u.width, NONE);
    const double loss = forward(u, gradients != nullptr, taken_off);
    losses[number] = u.has_nan ? __builtin_nanf("") : (float)loss;
    if (gradients && loss < __builtin_inf() && !u.has_nan)
        backward(u, taken_off, loss, gradients + number * s.frames * s.vocab, now, emitting, found);
    return true;
}

}  // namespace

// Write −log P of each utterance's tokens to `losses`; where `gradients` is not null, take from its
// zeros (utterances, frames, vocab) the gradients with respect to log_probs. `room` has sizes->room
// floats for an utterance, `taken_off` frames doubles. Returns 1 for a length or token out of range.
KERNEL(ctc_loss)
(const float* log_probs, const int64_t* lengths, const int64_t* tokens, const int64_t* token_lengths,
 float* losses, float* gradients, float* room, double* taken_off, const Sizes* sizes, int threads) {
    const Sizes s = *sizes;
    int failed = 0;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic) reduction(| : failed)
    for (int64_t number = 0; number < s.utterances; ++number)
        failed |= !one_utterance(s, number, log_probs, lengths, tokens, token_lengths, losses,
                                 gradients, room + number * s.room, taken_off + number * s.frames);
    return failed;
}
