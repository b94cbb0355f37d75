"""Tokenizers: round trips, the order of the table, files with faults."""

import json
import pickle

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_lite.errors import InputError
from espnet_lite.text.tokenizer import TOKENIZER_FILES, TOKENIZERS, Tokenizer, train_tokenizer

LINES = [
    "HELLO WORLD AGAIN",
    "ENTER NO 010 1e-3",
    "YES <noise> GO <laugh> ON",
    "RUBOUT A M C SEVEN EIGHT SIX",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
    "ÄRGER 日本 DON'T",
    "HELLO HELLO SEVEN SEVEN ENTER ENTER THE WORLD THE WORLD OVER AND OVER AND OVER AGAIN",
    "ELEVEN EVEN HEAVEN SENT THEN MEN WHEN TEN OTHER BROTHERS GOING ON AND ON THEY SING ALONG",
]
NLSYMS = ["<noise>", "<laugh>"]
WORDS = [word for line in LINES for word in line.split()]
PRONUNCIATIONS = {word: tuple(word.lower()) for word in WORDS if word not in NLSYMS}
CHARACTERS = sorted(set("".join(LINES).replace("<noise>", "").replace("<laugh>", "")))


def tokenizer_of(kind):
    pronunciations = PRONUNCIATIONS if kind == "phone" else None
    return train_tokenizer(kind, LINES, vocab_size=50, nlsyms=NLSYMS, pronunciations=pronunciations)


@pytest.fixture(scope="module", params=sorted(TOKENIZERS))
def tokenizer(request):
    return tokenizer_of(request.param)


CHAR, BPE, WORD = tokenizer_of("char"), tokenizer_of("bpe"), tokenizer_of("word")


@pytest.fixture(scope="module", params=["bpe", "char"])
def spelling_tokenizer(request):
    """A tokenizer that writes words by their letters, so that any can be read back."""
    return tokenizer_of(request.param)


def test_special_tokens_stand_where_ctc_and_decoder_expect_them(tokenizer):
    assert tokenizer.tokens[:2] == ["<blank>", "<unk>"]
    assert tokenizer.tokens[-1] == "<sos/eos>"
    assert (tokenizer.blank_id, tokenizer.sos_eos_id) == (0, tokenizer.vocab - 1)
    assert len(set(tokenizer.tokens)) == tokenizer.vocab == len(tokenizer.tokens)


def test_char_table_by_hand():
    tokens = train_tokenizer("char", ["BA <x> 0", "A B"], nlsyms=["<x>"]).tokens
    assert tokens == ["<blank>", "<unk>", "<x>", "<space>", "0", "A", "B", "<sos/eos>"]


def test_encoding_by_hand():
    tokenizer = train_tokenizer("char", ["BA <x> 0"], nlsyms=["<x>"])
    assert tokenizer.encode("AB <x>Z") == [5, 6, 3, 2, 1]
    assert tokenizer.decode([7, 0, 5, 6, 3, 2, 1, 0, 7]) == "AB <x><unk>"
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


@given(st.text(alphabet=CHARACTERS))
def test_char_round_trip_of_any_text(text):
    assert CHAR.decode(CHAR.encode(text)) == text


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(CHARACTERS[1:], min_size=1))))
def test_bpe_round_trip_of_any_words(words):
    text = " ".join(words)
    assert BPE.decode(BPE.encode(text)) == text


@settings(max_examples=30)
@given(st.lists(st.sampled_from(WORDS), min_size=1), st.sampled_from([CHAR, BPE, WORD]))
def test_split_agrees_with_encode(words, tokenizer):
    text = " ".join(words)
    assert [tokenizer.tokens[i] for i in tokenizer.encode(text)] == tokenizer.split(text)


def test_bpe_splits_as_sentencepiece_does():
    model = sentencepiece.SentencePieceProcessor(model_proto=BPE.splitter.model)
    for line in LINES:
        assert BPE.split(line) == model.encode(line, out_type=str)
        assert BPE.decode(BPE.encode(line)) == model.decode(model.encode(line))


def test_a_symbol_is_one_token_even_inside_a_word(tokenizer):
    ids = tokenizer.encode("GO<noise>ON <laugh>")
    for symbol in NLSYMS:
        assert ids.count(tokenizer.tokens.index(symbol)) == 1
    written = {"word": "GO <noise> ON <laugh>", "phone": "g o <noise> o n <laugh>"}
    assert tokenizer.decode(ids) == written.get(tokenizer.kind, "GO<noise>ON <laugh>")
    assert tokenizer.nlsyms == tuple(NLSYMS)


def test_unknown_characters_are_unk(tokenizer):
    ids = tokenizer.encode("GO ЖЖ NO")
    assert 1 in ids
    assert tokenizer.encode("Ж").count(1) == 1
    if tokenizer.kind == "phone":
        assert tokenizer.decode(ids) == "g o <unk> n o"
    else:
        assert tokenizer.decode(ids).startswith("GO <unk>")
        assert tokenizer.decode(ids).endswith(" NO")


def test_a_text_with_the_name_of_a_special_token_is_never_that_token(tokenizer):
    # <blank> as a target would be a loss that no path of CTC has
    ids = tokenizer.encode("GO <blank> <sos/eos> <unk> NO")
    assert tokenizer.blank_id not in ids
    assert tokenizer.sos_eos_id not in ids


def test_no_yaml_and_no_number_gets_in_between(spelling_tokenizer):
    tokenizer, text = spelling_tokenizer, "NO 010 1e-3"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    # Text is not normalized: full-width letters stay what they are, here unknown.
    assert 1 in tokenizer.encode("\N{FULLWIDTH LATIN CAPITAL LETTER A}")


def test_training_is_deterministic():
    assert tokenizer_of("bpe").splitter.model == BPE.splitter.model
    assert tokenizer_of("bpe").to_dict() == BPE.to_dict()


def test_size_is_exactly_the_one_asked_for():
    for vocab_size in (53, 58, 62):
        assert train_tokenizer("bpe", LINES, vocab_size=vocab_size).vocab == vocab_size


def test_a_size_out_of_reach_names_a_limit_that_works():
    with pytest.raises(InputError, match=r"vocab_size is 5, but .* need at least (\d+)") as low:
        train_tokenizer("bpe", LINES, vocab_size=5)
    smallest = int(str(low.value).split("at least ")[1].split(";")[0])
    assert train_tokenizer("bpe", LINES, vocab_size=smallest).vocab == smallest
    with pytest.raises(InputError, match=r"vocab_size is 5000, but .* at most (\d+)") as high:
        train_tokenizer("bpe", LINES, vocab_size=5000)
    largest = int(str(high.value).split("at most ")[1].split(";")[0])
    assert train_tokenizer("bpe", LINES, vocab_size=largest).vocab == largest
    with pytest.raises(InputError, match=f"vocab_size is {smallest - 1}"):
        train_tokenizer("bpe", LINES, vocab_size=smallest - 1)
    with pytest.raises(InputError, match=f"vocab_size is {largest + 1}"):
        train_tokenizer("bpe", LINES, vocab_size=largest + 1)


def test_a_long_line_is_not_dropped():
    # sentencepiece leaves out lines over 4,192 bytes by default; Ё stands in such a one only.
    lines = [*LINES, "A M C " * 2000 + "ЁЁ"]
    assert any("Ё" in t for t in train_tokenizer("bpe", lines, vocab_size=53).tokens)


@pytest.mark.parametrize(
    ("kind", "lines", "options", "message"),
    [
        ("words", LINES, {}, r"'words' \(did you mean 'word'\?\), expected one of: bpe, char, ph"),
        ("bpee", LINES, {}, r"did you mean 'bpe'\?"),
        ("bpe", LINES, {}, "vocab_size is None for token type bpe, expected 4 or more"),
        ("bpe", ["", " "], {"vocab_size": 10}, "no text to train a tokenizer on"),
        ("bpe", ["A ▁B"], {"vocab_size": 10}, "the character '▁', which sentencepiece keeps"),
        ("char", [], {}, "no text to make tokens of"),
        ("word", ["", " <unk>"], {}, "no text to make tokens of"),
        ("word", LINES, {"vocab_size": 3}, r"vocab_size is 3 for token type word .* expected 4 or"),
        ("word", LINES, {"vocab_size": 5, "nlsyms": NLSYMS}, r"with 2 symbols, expected 6 or more"),
        ("word", LINES, {"vocab_size": -1}, "vocab_size is -1, expected 0 or more"),
        ("phone", LINES, {}, "token type phone without a lexicon; give --lexicon FILE"),
        ("char", LINES, {"nlsyms": ["<unk>"]}, "non-linguistic symbol '<unk>'"),
        ("char", LINES, {"nlsyms": ["a b"]}, "non-linguistic symbol 'a b', expected one without"),
        ("char", LINES, {"nlsyms": ["<x>", "<x>"]}, "token '<x>' is there already as token 2"),
    ],
)
def test_refuses_what_cannot_be_trained(kind, lines, options, message):
    with pytest.raises(InputError, match=message):
        train_tokenizer(kind, lines, **options)


def test_survives_every_way_to_store_it(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokens")
    stored = [
        Tokenizer.load(tmp_path / "tokens"),
        Tokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict()))),
        pickle.loads(pickle.dumps(tokenizer)),
    ]
    text = "SEVEN <noise> ÄRGER ЖЖ 010"
    assert {path.name for path in (tmp_path / "tokens").iterdir()} <= set(TOKENIZER_FILES)
    for other in stored:
        assert other.to_dict() == tokenizer.to_dict()
        assert other.encode(text) == tokenizer.encode(text)
        assert other.decode(other.encode(text)) == tokenizer.decode(tokenizer.encode(text))


def test_the_table_is_a_text_file_of_one_token_a_line(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert (tmp_path / "tokens.txt").read_text(encoding="utf-8").splitlines() == tokenizer.tokens


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t[1:], r"tokens\.txt:1: token '<unk>', expected <blank> as the first one"),
        (lambda t: [t[0], *t[2:]], r"tokens\.txt:2: token '.*', expected <unk> as the second one"),
        (lambda t: t[:-1], r"tokens\.txt:\d+: token '.*', expected <sos/eos> as the last one"),
        (
            lambda t: [*t[:5], t[4], *t[5:]],
            r"tokens\.txt:6: token '.*' is there already as token 4",
        ),
        (lambda t: [*t[:3], "", *t[3:]], r"tokens\.txt:4: empty token"),
        (lambda t: t[:2], r"tokens\.txt: 2 tokens, expected 3 or more"),
    ],
)
def test_load_names_file_and_line(tokenizer, tmp_path, edit, message):
    tokenizer.save(tmp_path)
    lines = edit(tokenizer.tokens)
    (tmp_path / "tokens.txt").write_text("".join(f"{t}\n" for t in lines), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        Tokenizer.load(tmp_path)


def test_load_refuses_missing_and_damaged_files(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file; make it again"):
        Tokenizer.load(tmp_path / "nowhere")
    BPE.save(tmp_path)
    model = (tmp_path / "bpe.model").read_bytes()
    (tmp_path / "bpe.model").write_bytes(b"this is no model")
    with pytest.raises(InputError, match="not a sentencepiece model"):
        Tokenizer.load(tmp_path)
    (tmp_path / "bpe.model").unlink()
    with pytest.raises(InputError, match=r"bpe\.model: no such file"):
        Tokenizer.load(tmp_path)
    (tmp_path / "bpe.model").write_bytes(model)
    kept = [t for t in BPE.tokens if t != "<noise>"]
    (tmp_path / "tokens.txt").write_text("".join(f"{t}\n" for t in kept), encoding="utf-8")
    with pytest.raises(InputError, match=r"a table of 46 pieces is not the one .* has 47"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json: not a tokenizer's description"):
        Tokenizer.load(tmp_path)


def test_from_dict_names_what_is_missing():
    plain = BPE.to_dict()
    with pytest.raises(InputError, match=r"model\.esp: tokenizer without 'bpe_model'"):
        Tokenizer.from_dict({k: v for k, v in plain.items() if k != "bpe_model"}, where="model.esp")
    with pytest.raises(InputError, match="bpe_model is not base64"):
        Tokenizer.from_dict({**plain, "bpe_model": "%%%"})
    with pytest.raises(InputError, match="unknown token type 'syllable'"):
        Tokenizer.from_dict({**plain, "kind": "syllable"})


def test_a_failed_save_leaves_the_old_folder(tmp_path):
    CHAR.save(tmp_path / "tokens")
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        CHAR.save(blocked / "folder" / "tokens")
    assert Tokenizer.load(tmp_path / "tokens").tokens == CHAR.tokens
