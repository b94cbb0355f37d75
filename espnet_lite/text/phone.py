"""Text as the phones of its words."""

from collections.abc import Iterable, Mapping

from espnet_lite.text.lexicon import Pronunciations
from espnet_lite.text.special_tokens import UNKNOWN
from espnet_lite.text.word import WordSplitter


class PhoneSplitter:
    """Splits text into words and says each by its pronunciation; a symbol is one token.

    It keeps the pronunciations of the words it was made for, so that it needs no lexicon later. A
    word without one is said as <unk> is: by one phone where the lexicon has one for it, else by
    <unk> itself, so that no text stops a training.
    """

    def __init__(self, pronunciations: Pronunciations, nlsyms: Iterable[str] = ()):
        self.pronunciations = dict(pronunciations)
        self.nlsyms = tuple(nlsyms)
        self._words = WordSplitter(self.nlsyms)
        self._unknown = self.pronunciations.get(UNKNOWN, (UNKNOWN,))
        self._said = self.pronunciations | {symbol: (symbol,) for symbol in self.nlsyms}

    @classmethod
    def train(
        cls,
        lines: Iterable[str],
        *,
        pronunciations: Pronunciations,
        nlsyms: Iterable[str] = (),
    ) -> tuple["PhoneSplitter", list[str]]:
        """Return a splitter and its tokens: symbols, then the phones of `lines`, sorted.

        `pronunciations` may have words that `lines` lack (those of dev); a phone that only they
        have is not in the table, as nothing would train it.
        """
        splitter = cls(pronunciations, nlsyms)
        found = {phone for line in lines for phone in splitter.split(line)}
        phones = sorted(found - {UNKNOWN, *splitter.nlsyms})
        return splitter, [*splitter.nlsyms, *phones]

    @property
    def oov_phone(self) -> str | None:
        """Phone of words without a pronunciation; None: they are <unk>."""
        return None if self._unknown == (UNKNOWN,) else " ".join(self._unknown)

    def extended(self, pronunciations: Pronunciations) -> "PhoneSplitter":
        """Return this splitter with further words; those it has, and <unk>, stay as they are."""
        further = {word: phones for word, phones in pronunciations.items() if word != UNKNOWN}
        return PhoneSplitter({**further, **self.pronunciations}, self.nlsyms)

    def missing(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Return word → name of its first text, of the words without a pronunciation."""
        missing: dict[str, str] = {}
        for name, text in texts.items():
            for word in self._words.split(text):
                if word not in self._said:
                    missing.setdefault(word, name)
        return missing

    def split(self, text: str) -> list[str]:
        """Return the phones of `text`, known or not."""
        said, unknown = self._said, self._unknown
        return [phone for word in self._words.split(text) for phone in said.get(word, unknown)]

    def join(self, tokens: Iterable[str]) -> str:
        """Return phones parted by single spaces."""
        return " ".join(tokens)
