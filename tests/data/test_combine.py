"""Combining: what goes over, what may occur twice, what is refused with both places."""

from pathlib import Path

import pytest

from espnet_lite.data.combine import combine_data_dirs
from espnet_lite.data.data_dir import read_data_dir
from espnet_lite.data.tables import read_table
from espnet_lite.data.validate import validate_data_dir
from espnet_lite.errors import InputError


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that writes a folder with these utterances; paths are relative."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audio").mkdir()

    def make(name: str, keys: str, *, segments: str = "", **tables: str) -> Path:
        folder = Path(name)
        folder.mkdir()
        ids = keys.split()
        recordings = {line.split()[1] for line in segments.splitlines()} or set(ids)
        for recording in recordings:
            Path(f"audio/{recording}.wav").write_bytes(b"RIFF")
        lines = {
            "wav.scp": [f"{recording} audio/{recording}.wav" for recording in sorted(recordings)],
            "utt2spk": [f"{key} {key[0]}" for key in ids],
            "text": [f"{key} words of {name}" for key in ids],
        }
        for table, rows in lines.items():
            (folder / table).write_text("".join(f"{row}\n" for row in rows))
        if segments:
            (folder / "segments").write_text(segments)
        for table, text in tables.items():
            (folder / table).write_text(text)
        validate_data_dir(folder)
        return folder

    return make


def test_sorted_with_speakers_joined(make):
    make("one", "a-1 c-1", utt2dur="a-1 1\nc-1 2\n", spk2gender="a f\nc m\n")
    make(
        "two",
        "a-2 b-1",
        utt2dur="a-2 3\nb-1 4\n",
        spk2gender="a f\nb m\n",
        utt2lang="a-2 de\nb-1 de\n",
    )
    report = combine_data_dirs("all", ["two", "one"])
    assert report.utterances == 4 and report.left_out == {"utt2lang": Path("one")}
    assert validate_data_dir("all") == 4
    tables = {path.name: path.read_text() for path in Path("all").iterdir()}
    assert tables == {
        "wav.scp": "".join(f"{key} audio/{key}.wav\n" for key in ("a-1", "a-2", "b-1", "c-1")),
        "utt2spk": "a-1 a\na-2 a\nb-1 b\nc-1 c\n",
        "spk2utt": "a a-1 a-2\nb b-1\nc c-1\n",
        "text": "a-1 words of one\na-2 words of two\nb-1 words of two\nc-1 words of one\n",
        "utt2dur": "a-1 1\na-2 3\nb-1 4\nc-1 2\n",
        "spk2gender": "a f\nb m\nc m\n",
    }
    combine_data_dirs("all", ["one"])  # one source is a copy, and the old target is replaced
    assert list(read_table("all/text")) == ["a-1", "c-1"]


def test_segments_and_whole_recordings(make):
    make("cut", "a-1 a-2", segments="a-1 rec 0.5 2\na-2 rec 1 -1\n")
    make("whole", "b-1")
    make("more", "a-3", segments="a-3 rec 3 4\n")
    combine_data_dirs("all", ["cut", "whole", "more"])
    assert Path("all/wav.scp").read_text() == "b-1 audio/b-1.wav\nrec audio/rec.wav\n"
    assert Path("all/segments").read_text().splitlines() == [
        "a-1 rec 0.5 2",
        "a-2 rec 1 -1",
        "a-3 rec 3 4",
        "b-1 b-1 0 -1",
    ]
    rows = read_data_dir("all")
    assert [(row.audio, row.start_seconds, row.end_seconds) for row in rows] == [
        ("audio/rec.wav", 0.5, 2.0),
        ("audio/rec.wav", 1.0, None),
        ("audio/rec.wav", 3.0, 4.0),
        ("audio/b-1.wav", 0.0, None),
    ]


def test_clashes_name_both_places(make):
    make("one", "a-1 b-1", spk2gender="a f\nb m\n")
    make("two", "b-1 c-1", spk2gender="b m\nc m\n")
    make("three", "b-2", spk2gender="b f\n")
    make("cut", "d-1", segments="d-1 rec 0 1\n", spk2gender="d f\n")
    make("cut2", "e-1", segments="e-1 rec 0 1\n", spk2gender="e f\n")
    Path("cut2/wav.scp").write_text("rec audio/a-1.wav\n")

    def fault(*sources: str) -> str:
        with pytest.raises(InputError) as caught:
            combine_data_dirs("all", sources)
        assert not Path("all").exists()
        return str(caught.value)

    assert fault("one", "two").startswith(
        "two/wav.scp:1: utterance 'b-1' stands in one/wav.scp:2 already; rename one of them"
    )
    assert fault("one", "three").startswith(
        "three/spk2gender:1: speaker 'b' stands in one/spk2gender:2 already with 'm'; rename"
    )
    assert fault("cut", "cut2").startswith(
        "cut2/wav.scp:1: recording 'rec' stands in cut/wav.scp:1 already with 'audio/rec.wav'"
    )
    make("cut3", "d-1", segments="d-1 rec 2 3\n", spk2gender="d f\n")
    assert fault("cut", "cut3").startswith(
        "cut3/utt2spk:1: utterance 'd-1' stands in cut/utt2spk:1"
    )


def test_needed_tables_are_not_left_out(make):
    make("one", "a-1", utt2num_samples="a-1 16000\n")
    make("two", "b-1")
    with pytest.raises(
        InputError, match=r"two/utt2num_samples: no such file, but one/utt2num.*dump"
    ):
        combine_data_dirs("all", ["one", "two"])
    Path("one/utt2num_samples").unlink()
    Path("one/text").unlink()
    with pytest.raises(
        InputError, match=r"one/text: no such file, but two/text is there.*--no_text"
    ):
        combine_data_dirs("all", ["one", "two"])
    report = combine_data_dirs("all", ["one", "two"], need_text=False)
    assert report.left_out == {"text": Path("one")} and not Path("all/text").exists()
    Path("two/text").unlink()
    with pytest.raises(InputError, match="one/text: no such file"):
        combine_data_dirs("all", ["one", "two"])


def test_bad_sources(make):
    make("one", "a-1")
    make("two", "b-1 c-1")
    with pytest.raises(InputError, match="none: no such data directory"):
        combine_data_dirs("all", ["one", "none"])
    with pytest.raises(InputError, match=r"two/../one: given twice, as one too"):
        combine_data_dirs("all", ["one", "two", Path("two/../one")])
    for target in ("one", "."):
        with pytest.raises(InputError, match="would replace its source one"):
            combine_data_dirs(target, ["two", "one"] if target == "one" else ["one", "two"])
    Path("two/text").write_text("c-1 words\nb-1 words\n")
    with pytest.raises(InputError, match=r"two/text:2: 'b-1' stands after 'c-1'"):
        combine_data_dirs("all", ["one", "two"])
    assert sorted(path.name for path in Path().iterdir()) == ["audio", "one", "two"]


def test_pipes_only_when_allowed(make):
    make("one", "a-1")
    Path("one/wav.scp").write_text("a-1 cat x.wav |\n")
    make("two", "b-1")
    with pytest.raises(InputError, match=r"one/wav\.scp:1: pipe"):
        combine_data_dirs("all", ["one", "two"])
    combine_data_dirs("all", ["one", "two"], allow_pipes=True)
    assert Path("all/wav.scp").read_text() == "a-1 cat x.wav |\nb-1 audio/b-1.wav\n"
