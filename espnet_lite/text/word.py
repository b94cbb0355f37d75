"""Text as words."""

import re
from collections import Counter
from collections.abc import Iterable

from espnet_lite.errors import InputError
from espnet_lite.text.special_tokens import BLANK, SOS_EOS, UNKNOWN

OUTSIDE = 3  # <blank>, <unk> and <sos/eos>, which stand in every table


class WordSplitter:
    """Splits text at white space; a non-linguistic symbol is a token wherever it stands."""

    def __init__(self, nlsyms: Iterable[str] = ()):
        self.nlsyms = tuple(nlsyms)
        # The longest symbol first: of <noise> and <noise>2 the second is found whole.
        longest_first = sorted(self.nlsyms, key=len, reverse=True)
        symbols = "|".join(map(re.escape, longest_first))
        self._symbol = re.compile(f"({symbols})") if symbols else None

    @classmethod
    def train(
        cls, lines: Iterable[str], *, vocab_size: int | None, nlsyms: Iterable[str] = ()
    ) -> tuple["WordSplitter", list[str]]:
        """Return a splitter and its tokens: symbols, then words from frequent to rare.

        Words of one count stand in the order of their bytes. With `vocab_size` the table ends at
        that many tokens, <blank>, <unk>, <sos/eos> and symbols counted; a text with fewer words
        makes a smaller one, and None or 0 takes all words. A word <unk>, <blank> or <sos/eos> in
        the text is unknown.

        Raises:
            InputError: a size that leaves no place for a word.
        """
        splitter = cls(nlsyms)
        places = None
        if vocab_size:
            places = vocab_size - OUTSIDE - len(splitter.nlsyms)
            if places < 1:
                raise InputError(
                    f"vocab_size is {vocab_size} for token type word with "
                    f"{len(splitter.nlsyms)} symbols, expected "
                    f"{OUTSIDE + len(splitter.nlsyms) + 1} or more, or 0 for all words",
                    fix="give --vocab_size N",
                )
        counts = Counter(word for line in lines for word in splitter.split(line))
        for token in (*splitter.nlsyms, BLANK, UNKNOWN, SOS_EOS):
            counts.pop(token, None)
        words = sorted(counts, key=lambda word: (-counts[word], word.encode("utf-8")))
        return splitter, [*splitter.nlsyms, *words[:places]]

    def split(self, text: str) -> list[str]:
        """Return the words of `text`, known or not."""
        if self._symbol is not None:
            text = self._symbol.sub(r" \1 ", text)
        return text.split()

    def join(self, tokens: Iterable[str]) -> str:
        """Return the text of words, parted by single spaces."""
        return " ".join(tokens)
