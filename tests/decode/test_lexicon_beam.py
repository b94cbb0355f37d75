"""Beam over words through flashlight-text against all paths of all word sequences."""

import itertools
import math

import numpy as np
import pytest
import torch

from espnet_lite.decode.config import LexiconBeamConfig
from espnet_lite.decode.lexicon_beam import LexiconBeam, WordNgram
from espnet_lite.errors import InputError
from espnet_lite.lm.kneser_ney import estimate
from espnet_lite.lm.ngram import SPECIAL_WORDS, NgramModel
from espnet_lite.lm.perplexity import ngram_log_probs
from espnet_lite.text.tokenizer import train_tokenizer

SENTENCES = ["A BA", "BA A BA", "AB", "BA BA", "A AB"]
TOKENIZER = train_tokenizer("char", SENTENCES)


def word_ngram() -> NgramModel:
    words = [*SPECIAL_WORDS, *sorted({word for line in SENTENCES for word in line.split()}), "XY"]
    ids = {word: number for number, word in enumerate(words)}
    sentences = [[ids[word] for word in line.split()] for line in SENTENCES]
    return estimate(sentences, words, order=2).model


def best_paths(log_probs: torch.Tensor) -> dict[str, float]:
    """Return the score of the best path of each reading."""
    time, vocab = log_probs.shape
    best: dict[str, float] = {}
    for path in itertools.product(range(vocab), repeat=time):
        tokens = [token for token, _ in itertools.groupby(path) if token != 0]
        text = "".join(" " if t == "<space>" else t for t in (TOKENIZER.tokens[i] for i in tokens))
        score = sum(log_probs[t, token].item() for t, token in enumerate(path))
        best[text] = max(best.get(text, -math.inf), score)
    return best


def test_words_that_cannot_be_spelled_are_left_out():
    lm = WordNgram(word_ngram(), TOKENIZER)
    assert lm.words == ["A", "AB", "BA"]
    space, a = TOKENIZER.tokens.index("<space>"), TOKENIZER.tokens.index("A")
    assert lm.spellings[0] == [a, space]
    foreign = [*SPECIAL_WORDS, "XY"]
    with pytest.raises(InputError, match="no word of the language model can be spelled"):
        WordNgram(estimate([[3]], foreign, order=1).model, TOKENIZER)
    phones = train_tokenizer("word", SENTENCES)
    with pytest.raises(InputError, match="in char or bpe tokens, not in word"):
        WordNgram(word_ngram(), phones)


def test_without_a_word_ngram_or_flashlight(monkeypatch):
    with pytest.raises(InputError, match="needs an n-gram of words"):
        LexiconBeam(LexiconBeamConfig(), None, None)
    monkeypatch.setitem(__import__("sys").modules, "flashlight.lib.text", None)
    with pytest.raises(InputError, match=r"needs flashlight-text: .* pip install"):
        LexiconBeam(LexiconBeamConfig(), None, WordNgram(word_ngram(), TOKENIZER))


@pytest.mark.parametrize("penalty", [0.0, 0.7, -0.5])
def test_finds_the_best_words(penalty):
    pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    model = word_ngram()
    config = LexiconBeamConfig(
        beam_size=1000, token_beam=9, beam_threshold=1e9, lm_weight=0.8, penalty=penalty, nbest=5
    )
    search = LexiconBeam(config, None, WordNgram(model, TOKENIZER))
    vocab = TOKENIZER.vocab
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        log_probs = (2 * torch.randn(5, vocab, generator=generator)).log_softmax(dim=-1)
        expected = {}
        for text, ctc in best_paths(log_probs).items():
            words = text.split()
            if words and set(words) <= {"A", "AB", "BA"}:  # between them and outside any spaces
                ids = [model.ids[word] for word in words]
                lm = float(ngram_log_probs(model, [ids])[0])
                score = ctc + 0.8 * lm + penalty * len(words)
                reading = " ".join(words)
                if score > expected.get(reading, (-math.inf,))[0]:
                    expected[reading] = (score, ctc, lm)
        ((best, *_),) = search(torch.zeros(1, 5, 1), log_probs[None], torch.tensor([5]))
        reading = max(expected, key=lambda text: expected[text][0])
        assert TOKENIZER.decode(best.tokens) == reading
        score, ctc, lm = expected[reading]
        np.testing.assert_allclose(
            [best.score, best.parts["ctc"], best.parts["lm"]], [score, ctc, lm], atol=2e-3
        )
        if penalty:
            assert best.parts["word_bonus"] == len(reading.split())
