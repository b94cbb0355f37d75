"""How much of a text a token table has."""

from collections.abc import Iterable
from dataclasses import dataclass

from espnet_lite.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Coverage:
    """Counts over a text."""

    tokens: int
    words: int
    oov_words: int  # words that are not whole in tokens: one or more of theirs is <unk>

    def __str__(self) -> str:
        """Return `1,234 tokens, OOV rate 1.23 % (5 of 407 words)`."""
        rate = 100 * self.oov_words / self.words if self.words else 0.0
        return (
            f"{self.tokens:,} tokens, OOV rate {rate:.2f} % "
            f"({self.oov_words:,} of {self.words:,} words)"
        )


def coverage(tokenizer: Tokenizer, lines: Iterable[str]) -> Coverage:
    """Return the counts of transcripts, their words parted by white space."""
    tokens = words = oov_words = 0
    is_oov: dict[str, bool] = {}  # each word is looked up once
    for line in lines:
        tokens += len(tokenizer.encode(line))
        for word in line.split():
            if word not in is_oov:
                is_oov[word] = tokenizer.unknown_id in tokenizer.encode(word)
            words += 1
            oov_words += is_oov[word]
    return Coverage(tokens, words, oov_words)
