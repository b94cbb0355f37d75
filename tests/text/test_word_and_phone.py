"""Word and phone tokenizers by hand and against plain versions of them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_lite.errors import InputError
from espnet_lite.text.coverage import coverage
from espnet_lite.text.phone import PhoneSplitter
from espnet_lite.text.tokenizer import Tokenizer, train_tokenizer

SPECIAL = {"<blank>", "<unk>", "<sos/eos>"}
WORDS = st.sampled_from(["A", "B", "a", "É", "日本", "010", "<unk>", "<blank>", "<n>", "no", "NO"])
TEXTS = st.lists(st.lists(WORDS).map(" ".join), min_size=1)
LEXICON = {"A": ("AH",), "GO": ("G", "OW"), "NO": ("N", "OW"), "DEV": ("D", "EH", "V")}


def test_words_by_count_then_bytes():
    tokens = train_tokenizer("word", ["B A é", "b A  é", "\tC"]).tokens
    assert tokens == ["<blank>", "<unk>", "A", "é", "B", "C", "b", "<sos/eos>"]


@pytest.mark.parametrize(
    ("vocab_size", "words"),
    [(None, "A B C D"), (0, "A B C D"), (6, "A B C"), (4, "A"), (99, "A B C D")],
)
def test_a_size_keeps_the_most_frequent_words(vocab_size, words):
    tokenizer = train_tokenizer("word", ["A B A C A B C D"], vocab_size=vocab_size)
    assert tokenizer.tokens[2:-1] == words.split()
    assert tokenizer.decode(tokenizer.encode("D A")) == ("D A" if "D" in words else "<unk> A")


def test_symbols_come_first_and_count_in_the_size():
    tokenizer = train_tokenizer("word", ["A <n> A B"], vocab_size=5, nlsyms=["<n>"])
    assert tokenizer.tokens == ["<blank>", "<unk>", "<n>", "A", "<sos/eos>"]


@given(TEXTS, st.integers(4, 12))
def test_word_table_against_a_plain_version(lines, vocab_size):
    words = [word for line in lines for word in line.split() if word not in SPECIAL]
    if not words:
        with pytest.raises(InputError, match="no text to make tokens of"):
            train_tokenizer("word", lines, vocab_size=vocab_size)
        return
    tokenizer = train_tokenizer("word", lines, vocab_size=vocab_size)
    by_bytes = sorted(set(words), key=str.encode)
    ranked = sorted(by_bytes, key=Counter(words).__getitem__, reverse=True)[: vocab_size - 3]
    assert tokenizer.tokens == ["<blank>", "<unk>", *ranked, "<sos/eos>"]
    for line in lines:
        expected = [word if word in ranked else "<unk>" for word in line.split()]
        assert tokenizer.decode(tokenizer.encode(line)) == " ".join(expected)


def phones(*, oov_phone: str | None = None) -> Tokenizer:
    pronunciations = LEXICON | ({"<unk>": (oov_phone,)} if oov_phone else {})
    return train_tokenizer(
        "phone", ["GO A <n>", "NO X"], nlsyms=["<n>"], pronunciations=pronunciations
    )


def test_phones_by_hand():
    tokenizer = phones()
    assert tokenizer.tokens == ["<blank>", "<unk>", "<n>", "AH", "G", "N", "OW", "<sos/eos>"]
    assert tokenizer.encode("NO<n> A  GO") == [5, 6, 2, 3, 4, 6]
    assert tokenizer.decode([0, 5, 6, 2, 3, 7]) == "N OW <n> AH"
    assert tokenizer.split("GO A") == ["G", "OW", "AH"]
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_a_word_without_pronunciation_is_unk_or_the_oov_phone():
    assert phones().decode(phones().encode("A go")) == "AH <unk>"
    tokenizer = phones(oov_phone="SPN")
    assert tokenizer.tokens[-2] == "SPN"
    assert tokenizer.decode(tokenizer.encode("A go <unk>")) == "AH SPN SPN"
    assert (phones().splitter.oov_phone, tokenizer.splitter.oov_phone) == (None, "SPN")


def test_phones_that_only_dev_has_are_unk_as_nothing_trains_them():
    tokenizer = phones()
    assert "D" not in tokenizer.tokens
    assert tokenizer.decode(tokenizer.encode("DEV")) == "<unk> <unk> <unk>"
    assert tokenizer.split("DEV") == ["D", "EH", "V"]  # what scoring compares with


def test_missing_words_and_further_ones():
    splitter = phones().splitter
    assert splitter.missing({"u1": "GO X", "u2": "Y X <n>"}) == {"X": "u1", "Y": "u2"}
    further = splitter.extended({"X": ("EH", "K", "S"), "GO": ("OTHER",), "<unk>": ("SPN",)})
    assert further.oov_phone is None
    assert further.split("X GO") == ["EH", "K", "S", "G", "OW"]
    assert further.missing({"u1": "GO X", "u2": "Y"}) == {"Y": "u2"}


@given(TEXTS, st.dictionaries(WORDS, st.lists(st.sampled_from("PQR"), min_size=1).map(tuple)))
def test_phones_against_a_plain_version(lines, pronunciations):
    said = {word: " ".join(phones) for word, phones in pronunciations.items()}
    splitter = PhoneSplitter(pronunciations)
    for line in lines:
        unknown = said.get("<unk>", "<unk>")
        assert splitter.join(splitter.split(line)) == " ".join(
            said.get(word, unknown) for word in line.split()
        )


def test_the_lexicon_travels_with_the_tokenizer(tmp_path):
    tokenizer = phones(oov_phone="SPN")
    assert tokenizer.to_dict()["lexicon"] == "<unk> SPN\nA AH\nDEV D EH V\nGO G OW\nNO N OW\n"
    tokenizer.save(tmp_path)
    assert (tmp_path / "lexicon.txt").read_text() == tokenizer.to_dict()["lexicon"]
    assert Tokenizer.load(tmp_path).splitter.pronunciations == tokenizer.splitter.pronunciations


def test_a_damaged_lexicon_is_named(tmp_path):
    phones().save(tmp_path)
    (tmp_path / "lexicon.txt").write_text("A AH\nGO\n")
    with pytest.raises(InputError, match=r"lexicon\.txt:2: word 'GO' without phones"):
        Tokenizer.load(tmp_path)
    (tmp_path / "lexicon.txt").unlink()
    with pytest.raises(InputError, match=r"lexicon\.txt: no such file; make it again"):
        Tokenizer.load(tmp_path)
    plain = phones().to_dict()
    with pytest.raises(InputError, match=r"x\.esp: lexicon:1: word 'GO' without phones"):
        Tokenizer.from_dict({**plain, "lexicon": "GO\n"}, where="x.esp")
    with pytest.raises(InputError, match=r"x\.esp: tokenizer without 'lexicon'"):
        Tokenizer.from_dict({k: v for k, v in plain.items() if k != "lexicon"}, where="x.esp")


def test_coverage_by_hand():
    word = train_tokenizer("word", ["A A B C"], vocab_size=5)  # A and B
    assert str(coverage(word, ["A A B C", "", "D A"])) == (
        "6 tokens, OOV rate 33.33 % (2 of 6 words)"
    )
    # "BÉA": a letter of three is unknown, and with it the word; the space is a token
    char = train_tokenizer("char", ["A B"])
    assert str(coverage(char, ["AB BÉA"])) == "6 tokens, OOV rate 50.00 % (1 of 2 words)"
    assert str(coverage(phones(), ["GO DEV"])) == "5 tokens, OOV rate 50.00 % (1 of 2 words)"
    assert str(coverage(char, [])) == "0 tokens, OOV rate 0.00 % (0 of 0 words)"
