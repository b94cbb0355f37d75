"""Data directories: what is written is read, and faults name file, line and value."""

import kaldiio
import numpy as np
import pytest

from espnet_lite.data.data_dir import Utterance, read_data_dir, write_data_dir
from espnet_lite.data.tables import read_table, write_table
from espnet_lite.data.validate import validate_data_dir
from espnet_lite.errors import InputError


def utterance(key="a-1", **fields) -> Utterance:
    plain = {
        "id": key,
        "audio": f"{key}.wav",
        "start_seconds": None,
        "end_seconds": None,
        "text": "some words",
        "speaker": key.split("-")[0],
        "num_samples": None,
    }
    return Utterance(**(plain | fields))


def test_round_trip_in_byte_order(tmp_path):
    keys = ["b-1", "a-2", "a-10", "B-1", "é-1", "z-1"]
    given = [utterance(key, num_samples=100 + i) for i, key in enumerate(keys)]
    write_data_dir(tmp_path / "d", given)
    read = read_data_dir(tmp_path / "d")
    assert [u.id for u in read] == ["B-1", "a-10", "a-2", "b-1", "z-1", "é-1"]
    assert sorted(read, key=lambda u: u.id) == sorted(given, key=lambda u: u.id)
    assert (tmp_path / "d/spk2utt").read_text().splitlines()[1] == "a a-10 a-2"
    assert not (tmp_path / "d/segments").exists()


def test_round_trip_of_segments(tmp_path):
    given = [
        utterance("a-1", audio="r.ark:12", start_seconds=0.0, end_seconds=1.25),
        utterance("a-2", audio="r.ark:12", start_seconds=1.25, end_seconds=None),
    ]
    write_data_dir(tmp_path / "d", given)
    assert read_data_dir(tmp_path / "d") == given
    assert (tmp_path / "d/wav.scp").read_text() == "a-1 r.ark:12\n"
    assert (tmp_path / "d/segments").read_text() == "a-1 a-1 0.0 1.25\na-2 a-1 1.25 -1\n"


def test_kaldiio_reads_what_is_written(tmp_path, make_corpus):
    source = read_data_dir(make_corpus((1600, 3200)))
    cut = [
        utterance("s-1", audio=source[0].audio, start_seconds=0.02, end_seconds=0.05),
        utterance("s-2", audio=source[1].audio, start_seconds=0.1, end_seconds=None),
    ]
    write_data_dir(tmp_path / "d", cut)
    scp, segments = str(tmp_path / "d/wav.scp"), str(tmp_path / "d/segments")
    oracle = kaldiio.load_scp(scp, segments=segments)
    assert {key: len(samples) for key, (_, samples) in oracle.items()} == {"s-1": 480, "s-2": 1600}
    assert np.issubdtype(oracle["s-1"][1].dtype, np.int16)


def test_unlabelled_data(tmp_path):
    write_data_dir(tmp_path / "d", [utterance(text=None)])
    assert not (tmp_path / "d/text").exists()
    assert read_data_dir(tmp_path / "d", need_text=False)[0].text is None
    with pytest.raises(InputError, match="text: no such file"):
        read_data_dir(tmp_path / "d")


def test_tabs_and_double_blanks_part_words(tmp_path):
    write_data_dir(tmp_path / "d", [utterance(audio="my  file.wav")])
    (tmp_path / "d/text").write_text("a-1\tsome  \t words \n")
    read = read_data_dir(tmp_path / "d")[0]
    assert read.text == "some words"
    assert read.audio == "my  file.wav"


def test_writing_replaces_the_whole_folder(tmp_path):
    write_data_dir(tmp_path / "d", [utterance(num_samples=5)])
    write_data_dir(tmp_path / "d", [utterance(text=None)])
    names = sorted(path.name for path in (tmp_path / "d").iterdir())
    assert names == ["spk2utt", "utt2spk", "wav.scp"]
    assert list(tmp_path.iterdir()) == [tmp_path / "d"]


@pytest.mark.parametrize(
    "rows, fault",
    [
        ([], "no utterances"),
        ([utterance(), utterance()], "duplicate utterance id 'a-1'"),
        ([utterance("a 1", speaker="a")], "utterance id 'a 1', expected a name without blanks"),
        ([utterance(speaker="b")], "'a-1' does not begin with its speaker 'b'"),
        ([utterance(), utterance("a-2", text=None)], "utterance 'a-2' has not a text"),
        ([utterance(num_samples=1), utterance("a-2")], "utterance 'a-2' has not a count"),
    ],
)
def test_faults_in_writing_leave_nothing(tmp_path, rows, fault):
    with pytest.raises(InputError, match=fault):
        write_data_dir(tmp_path / "d", rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "table, content, where, fault",
    [
        ("wav.scp", "a-1 x\na-1 y\n", "wav.scp:2", "duplicate id 'a-1', it stands in line 1"),
        ("wav.scp", "a-2 x\na-1 y\n", "wav.scp:2", "'a-1' stands after 'a-2'"),
        ("wav.scp", "a-1 x\n", "utt2spk:2", "utterance 'a-2' is not in wav.scp"),
        ("text", "a-1 x\n", "wav.scp:2", "utterance 'a-2' is not in text"),
        ("text", "a-1 x\r\na-2 y\r\n", "text:1", "carriage return"),
        ("text", b"a-1 x\na-2 caf\xe9\n", "text:2", "0xe9 is not UTF-8"),
        ("text", "a-1 x\n\na-2 x\n", "text:2", "empty line"),
        ("utt2num_samples", "a-1 16\na-2 1e3\n", "utt2num_samples:2", "'1e3', expected a positive"),
        ("utt2num_samples", "a-1 0\na-2 1\n", "utt2num_samples:1", "'0', expected a positive"),
        ("segments", "a-1 a-1 0 1\na-2 a-9 0 1\n", "segments:2", "'a-9' of utterance 'a-2'"),
        ("segments", "a-1 a-1 2 1\na-2 a-2 0 1\n", "segments:1", "end 1 is not after start 2"),
        ("segments", "a-1 a-1 0 1\na-2 a-2 0\n", "segments:2", "'a-2 0', expected"),
        ("segments", "a-1 a-1 0 x\na-2 a-2 0 1\n", "segments:1", "end 'x', expected seconds"),
        ("segments", "a-1 a-1 -1 1\na-2 a-2 0 1\n", "segments:1", "start -1"),
        ("segments", "a-1 a-1 0 nan\na-2 a-2 0 1\n", "segments:1", "end nan"),
    ],
)
def test_faults_in_reading_name_file_and_line(tmp_path, table, content, where, fault):
    write_data_dir(tmp_path / "d", [utterance(), utterance("a-2")])
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "d" / table).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_data_dir(tmp_path / "d")
    assert f"{tmp_path}/d/{where}:" in str(caught.value)
    assert fault in str(caught.value)
    with pytest.raises(InputError, match=":"):
        validate_data_dir(tmp_path / "d")


def test_tables_round_trip_with_empty_values(tmp_path):
    write_table(tmp_path / "t", {"b": "", "a": "x  y", "é": 3})
    assert (tmp_path / "t").read_bytes() == "a x  y\nb\né 3\n".encode()
    assert read_table(tmp_path / "t") == {"a": "x  y", "b": "", "é": "3"}
