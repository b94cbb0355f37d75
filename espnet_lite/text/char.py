"""Text as characters."""

import re
from collections.abc import Iterable

from espnet_lite.text.special_tokens import SPACE


class CharSplitter:
    """Splits text into its characters; a space is `<space>`, a non-linguistic symbol one token."""

    def __init__(self, nlsyms: Iterable[str] = ()):
        self.nlsyms = tuple(nlsyms)
        # The longest symbol first: of <noise> and <noise>2 the second is found whole.
        longest_first = sorted(self.nlsyms, key=len, reverse=True)
        self._token = re.compile("|".join([*map(re.escape, longest_first), "."]), re.DOTALL)

    @classmethod
    def train(
        cls, lines: Iterable[str], *, vocab_size: int | None, nlsyms: Iterable[str] = ()
    ) -> tuple["CharSplitter", list[str]]:
        """Return a splitter and the tokens of `lines`: symbols, space, then characters, sorted.

        `vocab_size` is not looked at: the text has as many characters as it has.
        """
        splitter = cls(nlsyms)
        found = {token for line in lines for token in splitter.split(line)}
        space = [SPACE] if SPACE in found else []
        characters = sorted(found - {SPACE, *splitter.nlsyms})
        return splitter, [*splitter.nlsyms, *space, *characters]

    def split(self, text: str) -> list[str]:
        """Return the tokens of `text`, known or not."""
        return [SPACE if token == " " else token for token in self._token.findall(text)]

    def join(self, tokens: Iterable[str]) -> str:
        """Return the text of tokens."""
        return "".join(" " if token == SPACE else token for token in tokens)
