"""Tokens with their words, for every kind of tokenizer."""

import pytest

from espnet_lite.errors import InputError
from espnet_lite.text.tokenizer import TOKENIZERS, train_tokenizer
from espnet_lite.text.words_of_tokens import spell

TEXT = "ab <n> ba  b"
LINES = ["ab ba b", "ba ab <n>", "b b ab"]
PRONUNCIATIONS = {"ab": ("A", "B"), "ba": ("B", "A"), "b": ("B",)}


def tokenizer_of(kind: str):
    return train_tokenizer(
        kind,
        LINES,
        vocab_size={"bpe": 9}.get(kind),
        nlsyms=["<n>"],
        pronunciations=PRONUNCIATIONS if kind == "phone" else None,
    )


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokens_are_those_of_training_and_join_to_their_words(kind):
    tokenizer = tokenizer_of(kind)
    spelled = spell(tokenizer, TEXT)
    assert spelled.words == ["ab", "<n>", "ba", "b"]
    assert spelled.ids == tokenizer.encode("ab <n> ba b")
    assert [tokenizer.tokens[i] for i in spelled.ids] == spelled.tokens
    said = {**{word: (word,) for word in spelled.words}, **PRONUNCIATIONS}
    for place, word in enumerate(spelled.words):
        own = [t for t, of in zip(spelled.tokens, spelled.word_of, strict=True) if of == place]
        expected = " ".join(said[word]) if kind == "phone" else word
        assert tokenizer.splitter.join(own).strip() == expected, (kind, own)
    spaces = [t for t, of in zip(spelled.tokens, spelled.word_of, strict=True) if of is None]
    assert spaces == (["<space>"] * 3 if kind == "char" else [])


def test_a_token_that_the_table_lacks_is_named_with_its_word():
    with pytest.raises(InputError, match="token 'c' of word 2, 'bc', is not in the model's table"):
        spell(tokenizer_of("char"), "ab bc")
    with pytest.raises(InputError, match="token 'bc' of word 2, 'bc', is not in the model's table"):
        spell(tokenizer_of("word"), "ab bc")
    no_space = train_tokenizer("char", ["ab"])
    with pytest.raises(InputError, match="token '<space>' is not in the model's table of 5"):
        spell(no_space, "a b")


def test_an_empty_text_has_no_tokens():
    assert spell(tokenizer_of("char"), " ").ids == []
