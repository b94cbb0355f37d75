"""Text of language models: files, and what held-out sets take out of it."""

import gzip

import pytest

from espnet_lite.errors import InputError
from espnet_lite.lm.text import Line, read_text, without_held_out


def test_kaldi_and_plain_text_gzip_or_not(tmp_path):
    (tmp_path / "text").write_text("u1 A  B\nu2\n")
    (tmp_path / "plain.gz").write_bytes(gzip.compress(b"A\tB\n\nC\n"))
    assert list(read_text([tmp_path / "text"])) == [Line("u1", "A B"), Line("u2", "")]
    plain = read_text([tmp_path / "plain.gz"], with_ids=False)
    assert list(plain) == [Line(None, "A B"), Line(None, "C")]


def test_faults_of_files(tmp_path):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"A B\n" * 99)[:-12])
    broken = bytearray(gzip.compress(b"A B\n" * 99))
    broken[12] ^= 0xFF
    (tmp_path / "broken.gz").write_bytes(broken)
    (tmp_path / "latin.gz").write_bytes(gzip.compress(b"u1 \xe9\n"))
    for name, message in (
        ("none", "no such file"),
        ("none.gz", "no such file"),
        ("empty", "no lines"),
        ("cut.gz", "not a whole gzip file"),
        ("broken.gz", "not a whole gzip file"),
        ("latin.gz", "not a whole gzip file of UTF-8"),
    ):
        with pytest.raises(InputError, match=message):
            list(read_text([tmp_path / name]))


def test_sentences_that_share_a_run_of_words_are_left_out():
    held_out = [Line("t1", "THE CAT SAT ON THE MAT"), Line("t2", "YES")]
    lines = [
        Line("a", "SO THE CAT SAT ON A CHAIR"),  # four words in a row
        Line("b", "YES"),
        Line("c", "THE CAT SAT THERE"),
        Line(None, "CAT SAT ON THE ROOF"),
    ]
    found = without_held_out(lines, held_out, run_words=4, where="text")
    assert [line.id for line in found.lines] == ["b", "c"]
    assert (found.left_out, found.left_out_words) == (2, 12)
    assert without_held_out(lines, [], run_words=4, where="text").lines == lines


def test_a_held_out_utterance_in_the_text_is_refused():
    with pytest.raises(
        InputError, match=r"lm\.txt: utterance 't1' of a held-out set is in the text"
    ):
        without_held_out([Line("t1", "A")], [Line("t1", "A")], run_words=8, where="lm.txt")
    with pytest.raises(InputError, match="every sentence stands in a held-out set too"):
        without_held_out([Line("a", "A B")], [Line("t1", "A B")], run_words=2, where="lm.txt")
