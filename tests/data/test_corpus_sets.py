"""The last steps of a corpus' preparation, by hand."""

from dataclasses import replace

import pytest

from espnet_lite.data.corpus_sets import check_counts, count, write_sets
from espnet_lite.data.data_dir import Utterance
from espnet_lite.errors import InputError


def utterances(*rows: tuple[str, str, str], audio: str) -> list[Utterance]:
    return [Utterance(key, audio, None, None, text, speaker, None) for key, speaker, text in rows]


@pytest.fixture
def three(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"x")
    rows = (("b-1", "b", "ONE TWO"), ("a-2", "a", "THREE"), ("a-1", "a", "FOUR FIVE SIX"))
    return utterances(*rows, audio=str(tmp_path / "a.wav"))


def test_counts(three):
    assert count(three) == {"utterances": 3, "speakers": 2, "words": 6}


@pytest.mark.parametrize("what", ["utterances", "speakers", "words"])
def test_a_difference_is_named(three, tmp_path, what):
    published = count(three)
    check_counts("tiny", three, published, where=tmp_path, fix="get it anew")

    found = published[what]
    with pytest.raises(InputError) as caught:
        check_counts("tiny", three, {what: 7}, where=tmp_path, fix="get it anew")
    assert str(caught.value) == (
        f"{tmp_path}: {found} {what}, the published tiny has 7; get it anew"
    )


def test_unknown_counts_are_not_compared(three, tmp_path):
    check_counts("tiny", three, {}, where=tmp_path, fix="-")


def test_sets_are_written_and_told(three, tmp_path, capsys):
    write_sets({"train": three[:2], "dev": three[2:]}, tmp_path / "data")

    assert (tmp_path / "data/train/text").read_text() == "a-2 THREE\nb-1 ONE TWO\n"
    assert (tmp_path / "data/dev/spk2utt").read_text() == "a a-1\n"
    assert capsys.readouterr().out == (
        f"{tmp_path}/data/train: 2 utterances, 2 speakers, 3 words\n"
        f"{tmp_path}/data/dev: 1 utterances, 1 speakers, 3 words\n"
    )


def test_written_sets_are_validated(three, tmp_path):
    with pytest.raises(InputError, match="does not begin with its speaker"):
        write_sets({"train": [replace(three[0], speaker="c")]}, tmp_path / "data")


@pytest.mark.parametrize("fault", ["missing", "empty"])
def test_no_set_is_written_where_audio_of_one_is(three, tmp_path, fault):
    other = tmp_path / "other.wav"
    if fault == "empty":
        other.write_bytes(b"")

    with pytest.raises(InputError, match=rf"^{other}: .*audio of 'b-1'"):
        write_sets(
            {"train": three[1:], "dev": [replace(three[0], audio=str(other))]}, tmp_path / "data"
        )

    assert not (tmp_path / "data").exists()
