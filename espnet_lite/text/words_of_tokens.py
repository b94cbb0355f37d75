"""Which word of a transcript each of its tokens belongs to."""

from dataclasses import dataclass

from espnet_lite.errors import InputError
from espnet_lite.text.bpe import WORD_START
from espnet_lite.text.special_tokens import SPACE
from espnet_lite.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class SpelledText:
    """A transcript in tokens of a model.

    Attributes:
        words: as they are parted by white space.
        tokens: as text.
        ids: of the tokens.
        word_of: the word of each token, None for a space between words.
    """

    words: list[str]
    tokens: list[str]
    ids: list[int]
    word_of: list[int | None]


def spell(tokenizer: Tokenizer, text: str) -> SpelledText:
    """Return `text` in the tokens that the model was trained on, each with its word.

    Raises:
        InputError: a token that the model's table lacks, with its word.
    """
    words = text.split()
    if tokenizer.kind == "bpe":
        tokens = tokenizer.split(" ".join(words))
        word_of = _words_of_pieces(tokens)
    else:
        tokens, word_of = [], []
        for place, word in enumerate(words):
            if place and tokenizer.kind == "char":
                tokens.append(SPACE)
                word_of.append(None)
            spelled = tokenizer.split(word)
            tokens += spelled
            word_of += [place] * len(spelled)
    known = set(tokenizer.tokens[2:-1])
    for token, place in zip(tokens, word_of, strict=True):
        if token not in known:
            where = f" of word {place + 1}, '{words[place]}'," if place is not None else ""
            raise InputError(
                f"token '{token}'{where} is not in the model's table of {tokenizer.vocab}",
                fix="write it with tokens that the model knows (numbers in words, its case)",
            )
    ids = tokenizer.encode(" ".join(words))
    return SpelledText(words, tokens, ids, word_of)


def _words_of_pieces(pieces: list[str]) -> list[int | None]:
    """Return the word of each piece: a piece that begins with sentencepiece's mark begins one."""
    word, word_of = -1, []
    for piece in pieces:
        word += piece.startswith(WORD_START)
        word_of.append(word)
    return word_of
