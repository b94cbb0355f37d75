// What a beam search keeps at a step: the tokens after each hypothesis that are looked at, and of all of
// them the best. See ../beam_choice.py.

#include "lanes.h"

namespace {

constexpr int64_t BLANK = 0;
constexpr int64_t ROWS_OF_A_THREAD = 32;  // fewer hypotheses take less time than to wake a thread

struct Sizes {
    int64_t utterances, beam, vocab, columns, eos;  // columns: candidates of a hypothesis, with <sos/eos>
    int64_t full, partial;                          // scorers of all tokens, and of candidates
    float bonus;                                    // of each token
};

// (utterances, beam, vocab) of each full scorer, then (utterances, beam, columns) of each partial one.
struct Scores {
    const float* const* of;
    const float* weights;
};

struct Best {
    float* values;  // falling
    int64_t* places;
    int64_t room, count;

    void offer(float value, int64_t place) {
        if (value != value) value = -__builtin_inff();
        if (count < room)
            ++count;
        else if (!(value > values[room - 1]))
            return;
        int64_t at = count - 1;
        for (; at > 0 && value > values[at - 1]; --at) {
            values[at] = values[at - 1];
            places[at] = places[at - 1];
        }
        values[at] = value;
        places[at] = place;
    }
};

}  // namespace

// Write the candidates of each hypothesis, <sos/eos> last, and the weighted sums of their full scores.
KERNEL(beam_choice)
(const Scores* scores, int64_t* candidates, float* values, const Sizes* sizes, int threads) {
    const Sizes own = *sizes;
    const Scores given = *scores;
    const int64_t rows = own.utterances * own.beam;
#pragma omp parallel for num_threads(threads) if (rows >= ROWS_OF_A_THREAD * threads) schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        Best best{values + row * own.columns, candidates + row * own.columns, own.columns - 1, 0};
        float value = 0.0f;
        for (int64_t token = 0; token < own.vocab; ++token) {
            value = 0.0f;
            for (int64_t s = 0; s < own.full; ++s)
                value += given.weights[s] * given.of[s][row * own.vocab + token];
            best.offer(value, token);
        }
        value = 0.0f;
        for (int64_t s = 0; s < own.full; ++s)
            value += given.weights[s] * given.of[s][row * own.vocab + own.eos];
        best.values[own.columns - 1] = value;
        best.places[own.columns - 1] = own.eos;
    }
    return 0;
}

// Write the best continuations of each utterance, the best first: scores, parents, tokens, and
// what each scorer gave them, (scorers, utterances, beam). Where there are too few: −∞.
KERNEL(beam_choice_best)
(const Scores* scores, const int64_t* candidates, const float* values, const float* running,
 float* chosen, int64_t* parents, int64_t* tokens, float* gained, const Sizes* sizes) {
    const Sizes own = *sizes;
    const Scores given = *scores;
    const int64_t size = own.beam * own.columns;
    for (int64_t utterance = 0; utterance < own.utterances; ++utterance) {
        const int64_t first = utterance * own.beam;
        Best best{chosen + first, parents + first, own.beam, 0};
        for (int64_t place = 0; place < size; ++place) {
            const float before = running[first + place / own.columns];
            const int64_t at = utterance * size + place, token = candidates[at];
            const bool is_last = place % own.columns == own.columns - 1;
            if (before == -__builtin_inff() || token == BLANK || (token == own.eos && !is_last))
                continue;
            float value = values[at];
            for (int64_t s = own.full; s < own.full + own.partial; ++s)
                value += given.weights[s] * given.of[s][at];
            best.offer(value + (before + own.bonus), place);
        }
        while (best.count < own.beam) best.offer(-__builtin_inff(), 0);
        for (int64_t k = first; k < first + own.beam; ++k) {
            const int64_t place = parents[k], at = utterance * size + place;
            parents[k] = place / own.columns;
            tokens[k] = candidates[at];
            for (int64_t s = 0; s < own.full + own.partial; ++s)
                gained[s * own.utterances * own.beam + k] =
                    s < own.full ? given.of[s][(first + parents[k]) * own.vocab + tokens[k]]
                                 : given.of[s][at];
        }
    }
    return 0;
}
