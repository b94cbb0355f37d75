"""The language model of a search, whatever its family."""

from collections.abc import Sequence
from pathlib import Path

from espnet_lite.decode.ngram_scorer import NgramScorer, TokenNgram
from espnet_lite.decode.scorers import Scorer
from espnet_lite.decode.transformer_scorer import TokenTransformer, TransformerScorer
from espnet_lite.lm.header import NGRAM, read_lm_header
from espnet_lite.lm.packed import read_ngram, read_transformer

LanguageModel = TokenNgram | TokenTransformer


def load_language_model(path: Path, tokens: Sequence[str]) -> LanguageModel:
    """Return the language model of a file, for a recognizer with this table of tokens.

    Raises:
        InputError: a damaged file, one of something else, or a model of other tokens.
    """
    if read_lm_header(path)["family"] == NGRAM:
        return TokenNgram(read_ngram(path), tokens, where=path)
    model, own_tokens = read_transformer(path)
    return TokenTransformer(model, own_tokens, tokens, where=path)


def lm_scorer(lm: LanguageModel, *, utterances: int, beam: int) -> Scorer:
    """Return the scorer of a batch."""
    if isinstance(lm, TokenNgram):
        return NgramScorer(lm, utterances=utterances, beam=beam)
    return TransformerScorer(lm, utterances=utterances, beam=beam)
