"""What is read for scoring, and what a token is."""

import pytest

from espnet_lite.errors import InputError
from espnet_lite.score.transcripts import (
    characters,
    read_pairs,
    read_speakers,
    without_symbols,
    words,
)


@pytest.fixture
def files(tmp_path):
    """Return a function that writes reference and hypothesis and gives their paths."""

    def write(reference: str | bytes, hypothesis: str | bytes):
        paths = tmp_path / "text", tmp_path / "hyp"
        for path, content in zip(paths, (reference, hypothesis), strict=True):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return paths

    return write


def test_pairs_keep_the_order_of_the_reference_and_may_be_empty(files):
    pairs, missing = read_pairs(*files("b-2 x  y \nb-1 z\na-1\n", "a-1 w\nb-1\nb-2  \n"))
    assert missing == []
    assert list(pairs) == ["b-2", "b-1", "a-1"]
    assert words(pairs["b-2"][0]) == ["x", "y"]
    assert [pairs[name][1] for name in pairs] == ["", "", "w"]


def test_utterances_without_a_hypothesis_are_named_and_have_an_empty_one(files):
    pairs, missing = read_pairs(*files("a x\nb y\nc z\n", "b y\n"))
    assert missing == ["a", "c"]
    assert pairs == {"a": ("x", ""), "b": ("y", "y"), "c": ("z", "")}


@pytest.mark.parametrize(
    ("reference", "hypothesis", "message"),
    [
        ("a x\n", "a x\nb y\nc z\n", r"hyp:2: utterance 'b' is not in .*text \(2 such\)"),
        ("a x\na y\n", "a x\n", r"text:2: utterance 'a' is already in line 1"),
        ("a x\n", "a x\nb\na y\n", r"hyp:3: utterance 'a' is already in line 1"),
        ("a x\n\nb y\n", "a x\n", r"text:2: no utterance id"),
        ("a x\n", " a x\n", r"hyp:1: no utterance id"),
        ("", "a x\n", r"text: empty file"),
        ("a x\n", "", r"hyp: empty file.*run\.sh --stage decode"),
        ("a x\n", b"a \xe9\n", r"hyp:1: byte 0xe9 is not UTF-8"),
        ("a x\r\n", "a x\n", r"text:1: carriage return"),
    ],
)
def test_faults_name_id_file_and_line(files, reference, hypothesis, message):
    with pytest.raises(InputError, match=message):
        read_pairs(*files(reference, hypothesis))


def test_missing_files_are_named(files, tmp_path):
    paths = files("a x\n", "a x\n")
    paths[1].unlink()
    with pytest.raises(InputError, match=r"hyp: no such file; decode the set again"):
        read_pairs(*paths)


def test_speakers_are_needed_for_every_utterance(tmp_path):
    path = tmp_path / "utt2spk"
    path.write_text("a s1\nb s2\n")
    assert read_speakers(path, ["b"]) == {"b": "s2"}
    with pytest.raises(InputError, match=r"utt2spk: no speaker for utterance 'c'; mend it: fix_da"):
        read_speakers(path, ["a", "c"])


def test_characters_count_the_space_between_words():
    assert characters(" ab  c\t日 ") == ["a", "b", "<space>", "c", "<space>", "日"]
    assert characters("") == []


def test_symbols_are_taken_out_of_both_sides_longest_first():
    pairs = {"u": ("a <n> b<n>2 c", "<n>2 a")}
    assert without_symbols(pairs, []) == pairs
    cleaned = without_symbols(pairs, ["<n>", "<n>2"])
    assert [words(text) for text in cleaned["u"]] == [["a", "b", "c"], ["a"]]
