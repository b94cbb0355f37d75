"""The language model of a search, whatever its family."""

from pathlib import Path

from espnet_lite.decode.config import DecodeConfig, LexiconBeamConfig
from espnet_lite.decode.lexicon_beam import WordNgram
from espnet_lite.decode.ngram_scorer import NgramScorer, TokenNgram
from espnet_lite.decode.scorers import Scorer
from espnet_lite.decode.transformer_scorer import TokenTransformer, TransformerScorer
from espnet_lite.lm.header import NGRAM, read_lm_header
from espnet_lite.lm.packed import read_ngram, read_transformer
from espnet_lite.text.tokenizer import Tokenizer

LanguageModel = TokenNgram | TokenTransformer | WordNgram


def load_language_model(path: Path, tokenizer: Tokenizer, config: DecodeConfig) -> LanguageModel:
    """Return the language model of a file, for a recognizer's tokens and a method of decoding.

    Raises:
        InputError: a damaged file, one of something else, or a model of other tokens.
    """
    tokens = tokenizer.tokens
    if isinstance(config, LexiconBeamConfig):
        return WordNgram(read_ngram(path), tokenizer, where=path)
    if read_lm_header(path)["family"] == NGRAM:
        return TokenNgram(read_ngram(path), tokens, where=path)
    model, own_tokens = read_transformer(path)
    return TokenTransformer(model, own_tokens, tokens, where=path)


def lm_scorer(lm: TokenNgram | TokenTransformer, *, utterances: int, beam: int) -> Scorer:
    """Return the scorer of a batch."""
    if isinstance(lm, TokenNgram):
        return NgramScorer(lm, utterances=utterances, beam=beam)
    return TransformerScorer(lm, utterances=utterances, beam=beam)
