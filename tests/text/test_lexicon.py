"""Lexicons as people have them, and every fault with its file and line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_lite.errors import InputError
from espnet_lite.text.lexicon import lexicon_text, parse_lexicon, pronounce, read_lexicon

READ = ("R", "EH1", "D")
STYLES = {
    "an4.dic: aligned by spaces, WORD(2)": "A                    AH\n"
    "A(2)                 EY\nREAD                 R EH1 D\nREAD(2)              R IY1 D\n",
    "CMUdict 0.7b: comments, two spaces, READ(1)": ";;; # CMUdict  --  Major Version: 0.07\n"
    ";;;\nA  AH\nA(1)  EY\n#HASH-MARK  HH AE1 SH M AA2 R K\n"
    ";SEMI-COLON  S EH1 M IY0 K OW1 L AH0 N\nREAD  R EH1 D\nREAD(1)  R IY1 D\n",
    "cmudict.dict: a comment behind the phones": "A AH\nREAD R EH1 D # past tense\n",
    "Kaldi lexicon.txt: a line for each pronunciation": "!SIL SIL\n<UNK> SPN\nA AH\nA EY\n"
    "READ R EH1 D\nREAD R EH1 D\nREAD R IY1 D\n",
    "Kaldi lexicon_disambig.txt": "A AH #1\nREAD R EH1 D #2\n",
    "librispeech-lexicon.txt: a tab behind the word": "A\tAH\nA\tEY\nA'S\tEY1 Z\nREAD\tR EH1 D\n",
    "with empty lines, tabs between phones, no last line end": "\nA\tAH\n \t\nREAD R\tEH1  D ",
}


@pytest.mark.parametrize("style", STYLES)
def test_the_first_pronunciation_in_every_style(tmp_path, style):
    path = tmp_path / "lexicon"
    path.write_text(STYLES[style])
    lexicon = read_lexicon(path)
    assert (lexicon["A"], lexicon["READ"]) == (("AH",), READ)
    assert not any(word.endswith(")") or word.startswith(";;;") for word in lexicon)


def test_what_looks_like_a_comment_or_an_alternative_but_is_none(tmp_path):
    path = tmp_path / "lexicon"
    path.write_text(STYLES["CMUdict 0.7b: comments, two spaces, READ(1)"] + "F(X)  EH K S\n")
    lexicon = read_lexicon(path)
    assert lexicon["#HASH-MARK"][0] == "HH"
    assert lexicon[";SEMI-COLON"][0] == "S"
    assert lexicon["F(X)"] == ("EH", "K", "S")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A AH\nB\n", "lexicon:2: word 'B' without phones, expected '<word> <phones>'; add its"),
        (b"A AH\n\nB # none\n", "lexicon:3: word 'B' without phones"),
        (b"A AH\nD\xc9J\xc0  D EY2\n", "lexicon:2: byte 0xc9 is not UTF-8; convert it: iconv"),
        (b"A AH\r\n", "lexicon:1: carriage return"),
        (b"", "lexicon: no words, expected lines of '<word> <phones>'"),
        (b";;; nothing\n\n", "lexicon: no words"),
        (b"A 1.0 AH\n", "lexicon:1: '1.0' where the first phone of 'A' should be, as in Kaldi's"),
        (b"A AH\nB <blank> B\n", "lexicon:2: phone '<blank>' of 'B' is a special token"),
    ],
)
def test_faults_have_file_and_line(tmp_path, content, message):
    path = tmp_path / "lexicon"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_lexicon(path)
    assert str(error.value).startswith(f"{tmp_path}/{message}")


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such file"):
        read_lexicon(tmp_path / "nowhere")


def places(*words: str) -> dict[str, str]:
    return {word: f"text:{number}" for number, word in enumerate(words, start=1)}


def test_the_words_of_the_texts_are_kept_and_no_others():
    known = {"A": ("AH",), "B": ("B", "IY"), "C": ("S", "IY")}
    assert pronounce(places("B", "A"), known, lexicon="lex") == {"B": ("B", "IY"), "A": ("AH",)}
    with_unknown = pronounce(places("B", "X"), known, lexicon="lex", oov_phone="SPN")
    assert with_unknown == {"B": ("B", "IY"), "<unk>": ("SPN",)}


def test_missing_words_are_named_counted_and_placed():
    with pytest.raises(InputError) as error:
        pronounce(places("GO", "STOP", "É", "A"), {"STOP": ("S",)}, lexicon="lex")
    assert str(error.value) == (
        "text:4: no pronunciation in lex of 3 words (A GO É); add them to the lexicon, or give "
        "--oov_phone PHONE to say them all with one phone"
    )
    words = [f"W{number:02}" for number in range(12, 0, -1)]
    with pytest.raises(InputError) as error:
        pronounce(places(*words), {}, lexicon="lex")
    first_ten = " ".join(sorted(words)[:10])
    assert f"text:12: no pronunciation in lex of 12 words (the first 10: {first_ten});" in str(
        error.value
    )
    with pytest.raises(InputError, match=r"of 1 word \(X\)"):
        pronounce(places("X"), {}, lexicon="lex")


@pytest.mark.parametrize(
    ("words", "known", "hint"),
    [
        (
            ["GO", "ON", "X1"],
            ["go", "on"],
            "the text is upper case, the lexicon lower: awk '{$1 = ",
        ),
        (["go", "on"], ["GO", "ON"], "lower case, the lexicon upper: awk '{$1 = tolower($1)} 1' a"),
        (["GO", "NEW", "NAMES"], ["go"], "add them to the lexicon"),  # one by chance
        (["010", "1"], ["2"], "add them to the lexicon"),  # without case
    ],
)
def test_a_lexicon_in_the_other_case_is_seen(words, known, hint):
    with pytest.raises(InputError) as error:
        pronounce(places(*words), dict.fromkeys(known, ("P",)), lexicon="a/lex")
    assert hint in str(error.value)


@pytest.mark.parametrize("phone", ["", " ", "S P", "<unk>", "<blank>", "#1"])
def test_an_oov_phone_is_one_phone(phone):
    with pytest.raises(InputError, match=r"^--oov_phone: '.*', expected one phone such as SPN"):
        pronounce(places("A"), {"A": ("AH",)}, lexicon="lex", oov_phone=phone)


SYMBOLS = st.text(st.sampled_from("Aaé日'(2)#;.<"), min_size=1, max_size=5)
PHONES = SYMBOLS.filter(lambda phone: phone[0] not in "#.")
LEXICON_WORDS = SYMBOLS.filter(lambda word: not word.startswith(";;;") and word[-1] != ")")


@given(st.dictionaries(LEXICON_WORDS, st.lists(PHONES, min_size=1).map(tuple)))
def test_what_is_written_is_read_back(lexicon):
    assert parse_lexicon(lexicon_text(lexicon).split("\n"), where="x") == lexicon


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_bytes("\ufeffA AH\nB B IY\n".encode())
    assert read_lexicon(path) == {"A": ("AH",), "B": ("B", "IY")}
