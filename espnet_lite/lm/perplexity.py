"""How well a language model foretells sentences."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from espnet_lite.lm.ngram import END, UNKNOWN, NgramModel


@dataclass(frozen=True)
class Perplexity:
    """Perplexities of a text; ends of sentences are foretold and counted too, as is usual.

    `per_token` is of what the model foretells, `per_word` comparable between models of different
    tokens: exp(−log p / (words + sentences)).
    """

    per_token: float
    per_word: float
    sentences: int
    words: int
    tokens: int
    unknown_tokens: int  # that the model foretells as <unk>
    log_prob: float  # natural, of all

    @classmethod
    def of(
        cls, log_prob: float, *, sentences: int, words: int, tokens: int, unknown_tokens: int
    ) -> "Perplexity":
        """Return the perplexities of a text with the log-probability `log_prob`."""
        return cls(
            per_token=float(np.exp(-log_prob / (tokens + sentences))),
            per_word=float(np.exp(-log_prob / (words + sentences))),
            sentences=sentences,
            words=words,
            tokens=tokens,
            unknown_tokens=unknown_tokens,
            log_prob=log_prob,
        )

    def record(self) -> dict[str, float | int]:
        """Return what a record keeps."""
        return {name: round(value, 3) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        unknown = f", {self.unknown_tokens} of {self.tokens} tokens unknown" * bool(
            self.unknown_tokens
        )
        return f"perplexity {self.per_token:.2f} per token, {self.per_word:.1f} per word{unknown}"


def ngram_log_probs(model: NgramModel, sentences: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the log-probability of each sentence of word numbers, its end included."""
    longest_first = sorted(range(len(sentences)), key=lambda place: -len(sentences[place]))
    lengths = np.array([len(sentences[place]) + 1 for place in longest_first])
    words = np.full((len(sentences), lengths.max(initial=0)), model.ids[END])
    for row, place in enumerate(longest_first):
        words[row, : lengths[row] - 1] = sentences[place]
    states = np.full(len(sentences), model.start)
    totals = np.zeros(len(sentences))
    for position in range(words.shape[1]):
        active = int((lengths > position).sum())
        gained, states[:active] = model.score(states[:active], words[:active, position])
        totals[:active] += gained
    result = np.empty(len(sentences))
    result[longest_first] = totals
    return result


def ngram_perplexity(
    model: NgramModel, sentences: Sequence[Sequence[int]], *, words: int
) -> Perplexity:
    """Return the perplexities of sentences of word numbers that have `words` words in all."""
    unknown = model.ids[UNKNOWN]
    return Perplexity.of(
        float(ngram_log_probs(model, sentences).sum()),
        sentences=len(sentences),
        words=words,
        tokens=sum(map(len, sentences)),
        unknown_tokens=sum(word == unknown for sentence in sentences for word in sentence),
    )
