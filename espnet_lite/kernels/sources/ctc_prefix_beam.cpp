// CTC prefix beam search of whole utterances, with an n-gram of tokens or without one. See
// ../../decode/prefix_beam.py for what it computes, with the same arithmetic in double.
//
// A frame has beam · (1 + token_beam) candidates, of which a sorted list keeps the best. Log-probabilities
// of the n-gram are at most 0: a candidate that would not be kept without it is never looked up.

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "lanes.h"

namespace {

constexpr double NOTHING = -INFINITY;
constexpr int32_t BLANK = 0, STAYS = -1;
constexpr uint64_t HASH_FACTOR = 6364136223846793005u;  // of Knuth's MMIX generator

struct Sizes {
    int64_t utterances, frames, token_beam, beam, nbest, vocab;
};

struct Frames {  // those that need a search; (utterances, frames[, token_beam])
    const double* blank;
    const int64_t* tokens;
    const double* values;  // −∞: not looked at
    const double* gap;     // of the blanks left out before each frame
    const uint8_t* has_gap;
    const double* trailing;  // (utterances)
};

struct Ngram {  // a tree of n-grams, as decode/ngram_scorer.py has it
    const int64_t* words;  // of each token; the last token is the end of the sentence
    const int32_t* first_child;
    const int32_t* word;
    const float* log_prob;
    const float* backoff;
    const int32_t* suffix;
    const int32_t* state;
    int64_t start;
};

struct Weights {
    double penalty, lm;
};

struct Results {  // (utterances, nbest[, frames])
    int32_t* tokens;
    int32_t* lengths;  // −1 where there is no hypothesis
    double* scores;
    double* ctc;
    double* lm;
};

inline double log_add(double a, double b) {
    const double high = a > b ? a : b, low = a > b ? b : a;
    return low == NOTHING ? high : high + std::log1p(std::exp(low - high));
}

struct Prefix {
    double in_blank, in_token, total;
    double bonus, lm;  // penalties and weighted language model; that model's part alone
    uint64_t hash, parent_hash;
    int64_t state;
    int32_t last;
    bool has_parent;
};

struct Candidate {
    double score;
    int32_t parent, place;  // place: of the token among the frame's, STAYS where the prefix stays
    double in_token, lm;    // lm: what the token gains
    int64_t state;
};

// The probability of `token` after a state, and the state behind it.
inline float look_up(const Ngram& ngram, int64_t state, int64_t token, int64_t* after) {
    const int32_t word = (int32_t)ngram.words[token];
    float sum = 0;
    for (int64_t node = state;; node = ngram.suffix[node]) {
        int32_t low = ngram.first_child[node], high = ngram.first_child[node + 1];
        const int32_t end = high;
        while (low < high) {
            const int32_t middle = low + (high - low) / 2;
            if (ngram.word[middle] < word)
                low = middle + 1;
            else
                high = middle;
        }
        if (low < end && ngram.word[low] == word) {
            *after = ngram.state[low];
            return sum + ngram.log_prob[low];
        }
        sum += ngram.backoff[node];  // of the root never: it has every word
    }
}

// The best candidates of a frame, best first.
struct Best {
    Candidate* list;
    int64_t room, count;

    double least() const { return count < room ? NOTHING : list[count - 1].score; }

    void add(const Candidate& candidate) {
        if (!(candidate.score > least())) return;
        int64_t place = count < room ? count++ : count - 1;
        for (; place > 0 && list[place - 1].score < candidate.score; --place)
            list[place] = list[place - 1];
        list[place] = candidate;
    }
};

class Search {
  public:
    Search(const Sizes& sizes, const Weights& weights, const Ngram* ngram)
        : sizes_(sizes), weights_(weights), ngram_(ngram) {}

    // Take memory for an utterance; false: there is none.
    bool prepare() {
        const size_t beam = (size_t)sizes_.beam, steps = (size_t)sizes_.frames * beam;
        const size_t bytes = 2 * beam * sizeof(Prefix) + beam * sizeof(Candidate) +
                             2 * steps * sizeof(int32_t) + beam * (size_t)sizes_.token_beam;
        memory_ = static_cast<char*>(std::malloc(bytes));
        if (!memory_) return false;
        prefixes_ = reinterpret_cast<Prefix*>(memory_);
        grown_ = prefixes_ + beam;
        best_.list = reinterpret_cast<Candidate*>(grown_ + beam);
        best_.room = sizes_.beam;
        parents_ = reinterpret_cast<int32_t*>(best_.list + beam);
        added_ = parents_ + steps;
        taken_ = reinterpret_cast<uint8_t*>(added_ + steps);
        return true;
    }

    void release() { std::free(memory_); }

    void run(const Frames& frames, int64_t utterance, const Results& results) {
        const int64_t first = utterance * sizes_.frames;
        start();
        for (int64_t frame = 0; frame < sizes_.frames; ++frame) {
            const int64_t place = first + frame;
            if (frames.has_gap[place]) add_blanks(frames.gap[place]);
            const double* values = frames.values + place * sizes_.token_beam;
            if (values[0] == NOTHING)  // the best one: behind the utterance's last frame
                add_blanks(frames.blank[place]);
            else
                add_frame(frames.blank[place], frames.tokens + place * sizes_.token_beam, values);
        }
        finish(frames.trailing[utterance], utterance, results);
    }

  private:
    void start() {
        steps_ = 0;
        count_ = 1;
        prefixes_[0] = Prefix{0.0,   NOTHING, 0.0, 0.0, 0.0, 0, 0, ngram_ ? ngram_->start : 0,
                              BLANK, false};
    }

    void add_blanks(double blank) {
        for (int64_t k = 0; k < count_; ++k) {
            prefixes_[k].in_blank = prefixes_[k].total = prefixes_[k].total + blank;
            prefixes_[k].in_token = NOTHING;
        }
    }

    void add_frame(double blank, const int64_t* tokens, const double* values) {
        best_.count = 0;
        std::memset(taken_, 0, (size_t)(count_ * sizes_.token_beam));
        for (int64_t k = 0; k < count_; ++k) add_staying(k, blank, tokens, values);
        for (int64_t k = 0; k < count_; ++k) add_growing(k, tokens, values);
        const int64_t row = steps_ * sizes_.beam;
        for (int64_t k = 0; k < best_.count; ++k) {
            const Candidate& chosen = best_.list[k];
            const Prefix& parent = prefixes_[chosen.parent];
            Prefix& prefix = grown_[k];
            prefix = parent;
            prefix.in_token = chosen.in_token;
            parents_[row + k] = chosen.parent;
            added_[row + k] = STAYS;
            if (chosen.place == STAYS) {
                prefix.in_blank = parent.total + blank;
                prefix.total = log_add(prefix.in_blank, prefix.in_token);
                continue;
            }
            const int64_t token = tokens[chosen.place];
            prefix.in_blank = NOTHING;
            prefix.total = prefix.in_token;
            prefix.last = added_[row + k] = (int32_t)token;
            prefix.parent_hash = parent.hash;
            prefix.has_parent = true;
            prefix.hash = parent.hash * HASH_FACTOR + (uint64_t)token;
            prefix.lm += chosen.lm;
            prefix.bonus += weights_.penalty + weights_.lm * chosen.lm;
            prefix.state = chosen.state;
        }
        ++steps_;
        count_ = best_.count;
        Prefix* held = prefixes_;
        prefixes_ = grown_;
        grown_ = held;
    }

    void add_staying(int64_t k, double blank, const int64_t* tokens, const double* values) {
        const Prefix& prefix = prefixes_[k];
        int64_t place = 0;
        while (place < sizes_.token_beam && tokens[place] != prefix.last) ++place;
        double in_token = NOTHING;
        if (place < sizes_.token_beam && prefix.last != BLANK && values[place] > NOTHING) {
            double ends = prefix.in_token;
            if (prefix.has_parent) {
                // What grows into a prefix of the beam belongs to it.
                for (int64_t other = 0; other < count_; ++other) {
                    const Prefix& parent = prefixes_[other];
                    if (parent.hash != prefix.parent_hash) continue;
                    taken_[other * sizes_.token_beam + place] = 1;
                    // Of paths that end in the same token, those with a blank between.
                    ends = log_add(ends,
                                   parent.last == prefix.last ? parent.in_blank : parent.total);
                }
            }
            in_token = ends + values[place];
        }
        const double score = log_add(prefix.total + blank, in_token) + prefix.bonus;
        best_.add(Candidate{score, (int32_t)k, STAYS, in_token, 0.0, 0});
    }

    void add_growing(int64_t k, const int64_t* tokens, const double* values) {
        const Prefix& prefix = prefixes_[k];
        for (int64_t place = 0; place < sizes_.token_beam; ++place) {
            if (values[place] == NOTHING) break;  // so are the rest
            if (taken_[k * sizes_.token_beam + place]) continue;
            const bool repeats = tokens[place] == prefix.last;
            const double ends = repeats ? prefix.in_blank : prefix.total;
            Candidate candidate{0.0, (int32_t)k, (int32_t)place, ends + values[place], 0.0, 0};
            candidate.score = candidate.in_token + prefix.bonus + weights_.penalty;
            if (!(candidate.score > best_.least())) continue;
            if (ngram_) {
                candidate.lm = look_up(*ngram_, prefix.state, tokens[place], &candidate.state);
                candidate.score = candidate.in_token + prefix.bonus +
                                  (weights_.penalty + weights_.lm * candidate.lm);
            }
            best_.add(candidate);
        }
    }

    void finish(double trailing, int64_t utterance, const Results& results) {
        best_.count = 0;
        best_.room = sizes_.nbest;
        for (int64_t k = 0; k < count_; ++k) {
            const Prefix& prefix = prefixes_[k];
            Candidate candidate{prefix.total + trailing + prefix.bonus, (int32_t)k, 0, 0.0, 0.0, 0};
            if (ngram_) {
                int64_t after;
                candidate.lm = look_up(*ngram_, prefix.state, sizes_.vocab - 1, &after);
                candidate.score += weights_.lm * candidate.lm;
            }
            best_.add(candidate);
        }
        best_.room = sizes_.beam;
        for (int64_t n = 0; n < sizes_.nbest; ++n) {
            const int64_t place = utterance * sizes_.nbest + n;
            results.lengths[place] = -1;
            if (n >= best_.count) continue;
            const Candidate& chosen = best_.list[n];
            const Prefix& prefix = prefixes_[chosen.parent];
            results.scores[place] = chosen.score;
            results.ctc[place] = prefix.total + trailing;
            results.lm[place] = prefix.lm + chosen.lm;
            results.lengths[place] =
                trace_back(chosen.parent, results.tokens + place * sizes_.frames);
        }
    }

    // Write the tokens of a prefix, first to last, and return how many there are.
    int32_t trace_back(int32_t slot, int32_t* tokens) const {
        int32_t count = 0;
        for (int64_t step = steps_ - 1; step >= 0; --step) {
            const int64_t place = step * sizes_.beam + slot;
            if (added_[place] != STAYS) tokens[count++] = added_[place];
            slot = parents_[place];
        }
        for (int32_t low = 0, high = count - 1; low < high; ++low, --high) {
            const int32_t held = tokens[low];
            tokens[low] = tokens[high];
            tokens[high] = held;
        }
        return count;
    }

    const Sizes sizes_;
    const Weights weights_;
    const Ngram* ngram_;
    char* memory_ = nullptr;
    Prefix *prefixes_ = nullptr, *grown_ = nullptr;
    Best best_{nullptr, 0, 0};
    int32_t *parents_ = nullptr, *added_ = nullptr;
    uint8_t* taken_ = nullptr;
    int64_t steps_ = 0, count_ = 0;
};

}  // namespace

// Fill the results; return 0, or 1 where there is no memory for the beams. `ngram` may be null.
KERNEL(ctc_prefix_beam)
(const Sizes* sizes, const Frames* frames, const Ngram* ngram, const Weights* weights,
 const Results* results, int threads) {
    const Sizes own = *sizes;
    int failed = 0;
    if (threads > own.utterances) threads = (int)own.utterances;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Search search(own, *weights, ngram);
        const bool ready = search.prepare();
        if (!ready) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic)
        for (int64_t utterance = 0; utterance < own.utterances; ++utterance)
            if (ready) search.run(*frames, utterance, *results);
        search.release();
    }
    return failed;
}
