"""What an output was made of: which changes show, and which do not."""

import os

import pytest

from espnet_lite.data.made_of import audio_digest, is_made_of, tables_of, write_record

MADE_OF = {"options": [16000, None], "tables": {"text": "abc"}}


@pytest.fixture
def record(tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.flac").write_bytes(b"sound")
    (tmp_path / "text").write_text("a hello\n")
    write_record(tmp_path / ".made_of.json", MADE_OF, [tmp_path / "text", tmp_path / "audio"])
    return tmp_path / ".made_of.json"


def test_the_same_again(record):
    assert is_made_of(record, MADE_OF)
    (record.parent / "cmvn.safetensors").write_text("what others lay beside it is not told of")
    os.utime(record.parent / "text", (1, 1))
    assert is_made_of(record, MADE_OF)
    assert [path.name for path in tables_of(record.parent)] == ["cmvn.safetensors", "text"]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "text").write_text("a bye\n"),
        lambda folder: (folder / "text").unlink(),
        lambda folder: (folder / "audio/a.flac").write_bytes(b"another"),
        lambda folder: os.utime(folder / "audio/a.flac", (1, 1)),
        lambda folder: (folder / "audio/b.flac").write_bytes(b""),
        lambda folder: (folder / "audio").rename(folder / "gone"),
        lambda folder: (folder / ".made_of.json").write_text("{"),
        lambda folder: (folder / ".made_of.json").unlink(),
    ],
)
def test_an_output_that_is_touched_or_gone(record, change):
    change(record.parent)
    assert not is_made_of(record, MADE_OF)


def test_made_of_something_else(record):
    assert not is_made_of(record, {**MADE_OF, "options": [8000, None]})
    assert not is_made_of(record, {**MADE_OF, "more": 1})


def test_audio_counts_by_place_size_and_time_a_pipe_by_its_command(tmp_path):
    for name in ("a.wav", "b.ark"):
        (tmp_path / name).write_bytes(b"1234")
        os.utime(tmp_path / name, (5, 5))
    table = tmp_path / "wav.scp"
    lines = [f"u1 {tmp_path}/a.wav", f"u2 {tmp_path}/b.ark:17", "u3 sph2pipe x |", "u4 none.wav"]
    table.write_text("\n".join(lines) + "\n")
    before = audio_digest(table)
    assert audio_digest(table) == before != audio_digest(tmp_path / "none")
    for name in ("a.wav", "b.ark"):
        os.utime(tmp_path / name, (6, 6))
        assert audio_digest(table) != before
        os.utime(tmp_path / name, (5, 5))
    table.write_text("\n".join(lines).replace("x |", "y |"))
    assert audio_digest(table) != before
