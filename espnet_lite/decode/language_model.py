"""The language model of a search, whatever its family."""

from collections.abc import Sequence
from pathlib import Path

from espnet_lite.decode.ngram_scorer import NgramScorer, TokenNgram
from espnet_lite.decode.scorers import Scorer
from espnet_lite.lm.packed import read_ngram

LanguageModel = TokenNgram


def load_language_model(path: Path, tokens: Sequence[str]) -> LanguageModel:
    """Return the language model of a file, for a recognizer with this table of tokens.

    Raises:
        InputError: a damaged file, one of something else, or a model of other tokens.
    """
    return TokenNgram(read_ngram(path), tokens, where=path)


def lm_scorer(lm: LanguageModel, *, utterances: int, beam: int) -> Scorer:
    """Return the scorer of a batch."""
    return NgramScorer(lm, utterances=utterances, beam=beam)
