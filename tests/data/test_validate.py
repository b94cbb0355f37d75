"""Every rule of a data directory broken once; what fix_data mends and what it leaves to the user."""

import gc
import os
import sys
from pathlib import Path

import pytest

from espnet_lite.data import validate
from espnet_lite.data.fix import fix_data_dir
from espnet_lite.data.validate import bad_character, validate_data_dir
from espnet_lite.errors import InputError


def fault_of(folder: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        validate_data_dir(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path: Path, *, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())


def test_a_valid_directory(make_corpus):
    folder = make_corpus()
    assert validate_data_dir(folder) == 4
    (folder / "text").unlink()
    assert validate_data_dir(folder, need_text=False) == 4
    assert "text: no such file" in fault_of(folder)


def test_no_directory(tmp_path):
    assert f"{tmp_path / 'none'}: no such data directory" in fault_of(tmp_path / "none")


# Utterances are spk000-utt000, spk000-utt001, spk001-utt002, spk001-utt003 in lines 1 to 4.
BROKEN = [
    # table, old, new, place, words of the fault, whether fix_data mends it
    ("text", "spk000-utt001", "spk000-utt000", "text:2", "duplicate id 'spk000-utt000'", False),
    ("text", "spk001-utt003", "a-1", "text:4", "'a-1' stands after 'spk001-utt002'", True),
    ("text", " word1 some words", "", "text:2", "empty transcript of 'spk000-utt001'", True),
    ("text", "word1 some", "word1\u00a0some", "text:2", "character U+00A0", True),
    ("text", "spk000-utt000", "\ufeffspk000-utt000", "text:1", "character U+FEFF", True),
    ("text", "word1\x20", "word1\x07 ", "text:2", "character U+0007", False),
    ("text", "some words\n", "some words\r\n", "text:1", "carriage return", True),
    ("text", "spk001-utt002", "\nspk001-utt002", "text:3", "empty line", True),
    ("text", "spk001-utt002 word2 some words\n", "", "wav.scp:3", "is not in text", True),
    ("wav.scp", "spk001-utt002", "spk001-utt0021", "wav.scp:3", "is not in text", True),
    ("utt2spk", "spk001-utt002 spk001\n", "", "wav.scp:3", "is not in utt2spk", True),
    ("utt2spk", "spk001-utt002 spk001", "spk001-utt002", "utt2spk:3", "expected one name", True),
    ("utt2spk", "utt002 spk001", "utt002 spk001 x", "utt2spk:3", "'spk001 x'", False),
    ("utt2spk", "utt002 spk001", "utt002 anna", "utt2spk:3", "its speaker 'anna'", False),
    ("wav.scp", "utt001.wav", "utt999.wav", "wav.scp:2", "utt999.wav' for 'spk000-utt001'", True),
    ("wav.scp", "utt001.wav", "utt001.wav:7x", "wav.scp:2", "no such file", True),
    ("wav.scp", "utt001.wav", "utt001.wav |", "wav.scp:2", "expected a path or ark:offset", False),
]


@pytest.mark.parametrize("table, old, new, where, words, is_mended", BROKEN)
def test_every_rule_and_what_fix_does(make_corpus, table, old, new, where, words, is_mended):
    folder = make_corpus()
    edit(folder / table, old=old, new=new)
    fault = fault_of(folder)
    assert f"{folder}/{where}:" in fault and words in fault
    if is_mended:
        assert fix_data_dir(folder).after >= 3
        assert validate_data_dir(folder) >= 3
    else:
        with pytest.raises(InputError):
            fix_data_dir(folder)
            validate_data_dir(folder)


def test_empty_audio_file(make_corpus):
    folder = make_corpus()
    path = folder.parent / "data_audio" / "spk000-utt001.wav"
    path.write_bytes(b"")
    assert f"wav.scp:2: empty file '{path}' for 'spk000-utt001'" in fault_of(folder)
    report = fix_data_dir(folder)
    assert (report.before, report.after) == (4, 3)
    assert report.dropped == {"whose audio file is missing or empty": 1}
    assert validate_data_dir(folder) == 3


def test_not_utf_8(make_corpus):
    folder = make_corpus()
    (folder / "text").write_bytes((folder / "text").read_bytes().replace(b"word2", b"caf\xe9"))
    for call in (validate_data_dir, fix_data_dir):
        with pytest.raises(InputError) as caught:
            call(folder)
        assert f"{folder}/text:3: byte 0xe9 is not UTF-8" in str(caught.value)
        assert "iconv" in str(caught.value)


def test_the_other_faults_are_counted(make_corpus):
    folder = make_corpus()
    edit(folder / "text", old=" word1 some words", new="")
    assert "other fault" not in fault_of(folder)
    edit(folder / "text", old=" word2 some words", new="")
    assert fault_of(folder).endswith("(and 1 other fault)")
    edit(folder / "utt2spk", old="utt003 spk001", new="utt003 x")
    assert fault_of(folder).endswith("(and 2 other faults)")


def test_tabs_double_blanks_and_outer_blanks_are_fine(make_corpus):
    folder = make_corpus()
    edit(folder / "text", old="utt001 word1 some", new="utt001\t word1  some\t")
    assert validate_data_dir(folder) == 4


def test_pipes_when_allowed(make_corpus):
    folder = make_corpus()
    edit(folder / "wav.scp", old="utt000.wav", new="utt000.wav |")
    edit(folder / "wav.scp", old=" /", new=" cat /")
    assert "wav.scp:1: pipe 'cat /" in fault_of(folder)
    assert validate_data_dir(folder, allow_pipes=True) == 4


def test_an_archive_must_be_there_but_its_offset_is_not_opened(make_corpus):
    folder = make_corpus()
    edit(folder / "wav.scp", old="utt001.wav", new="utt001.wav:17")
    assert validate_data_dir(folder) == 4
    edit(folder / "wav.scp", old="utt001.wav:17", new="utt9.ark:17")
    assert "utt9.ark' for 'spk000-utt001'" in fault_of(folder)


SEGMENTS = "spk000-utt000 spk000-utt000 0 0.05\nspk001-utt002 spk001-utt002 0.02 -1\n"


@pytest.mark.parametrize(
    "segments, where, words",
    [
        (SEGMENTS.replace("0.05", "x"), "segments:1", "end 'x', expected seconds"),
        (SEGMENTS.replace("0.02 -1", "0.5 0.5"), "segments:2", "end 0.5 is not after start 0.5"),
        (SEGMENTS.replace(" spk001-utt002", " none"), "segments:2", "recording 'none'"),
        (SEGMENTS + "spk001-utt003 spk001-utt003 1 2\n", "segments:3", "is not in text"),
    ],
)
def test_segments(make_corpus, segments, where, words):
    folder = make_corpus()
    for table in ("text", "utt2spk"):
        lines = (folder / table).read_text().splitlines(keepends=True)
        (folder / table).write_text(lines[0] + lines[2])
    (folder / "segments").write_text(SEGMENTS)
    assert validate_data_dir(folder) == 2
    (folder / "segments").write_text(segments)
    fault = fault_of(folder)
    assert f"{folder}/{where}:" in fault and words in fault
    fix_data_dir(folder)
    assert validate_data_dir(folder) in (1, 2)
    recordings = {line.split()[1] for line in (folder / "segments").read_text().splitlines()}
    assert recordings == {line.split()[0] for line in (folder / "wav.scp").read_text().splitlines()}


@pytest.mark.parametrize(
    "spk2utt, where, words",
    [
        ("spk000 spk000-utt000\n", "spk2utt:1", "on utterance 'spk000-utt001'"),
        ("spk000 spk000-utt000 spk000-utt001\n", "spk2utt", "'spk001' of utt2spk is missing"),
        ("nobody\n", "spk2utt", "'spk000' of utt2spk is missing"),
        ("nobody x\n", "spk2utt:1", "'nobody' disagrees with utt2spk on utterance 'x'"),
    ],
)
def test_spk2utt(make_corpus, spk2utt, where, words):
    folder = make_corpus()
    (folder / "spk2utt").write_text(spk2utt)
    assert f"{folder}/{where}:" in fault_of(folder) and words in fault_of(folder)
    fix_data_dir(folder)
    assert validate_data_dir(folder) == 4
    assert (folder / "spk2utt").read_text().startswith("spk000 spk000-utt000 spk000-utt001\n")


def test_counts_and_durations(make_corpus):
    folder = make_corpus()
    keys = [f"spk00{i // 2}-utt00{i}" for i in range(4)]
    (folder / "utt2num_samples").write_text("".join(f"{key} 1600\n" for key in keys))
    (folder / "utt2dur").write_text("".join(f"{key} 0.1\n" for key in keys))
    assert validate_data_dir(folder) == 4
    edit(folder / "utt2dur", old="0.1", new="inf")
    assert "utt2dur:1: 'inf', expected a positive number of seconds" in fault_of(folder)
    edit(folder / "utt2num_samples", old="utt001 1600", new="utt001 -5")
    assert "utt2num_samples:2: '-5', expected a positive number of samples" in fault_of(folder)
    report = fix_data_dir(folder)
    assert sorted(report.removed_tables) == ["utt2dur", "utt2num_samples"]
    assert (folder / ".backup/utt2dur").exists() and not (folder / "utt2dur").exists()
    assert validate_data_dir(folder) == 4


def test_fix_keeps_the_intersection_and_counts(make_corpus):
    folder = make_corpus((1600,) * 8)
    before = (folder / "text").read_text()
    edit(folder / "text", old="spk000-utt000 word0 some words\n", new="")
    edit(folder / "text", old=" word1 some words", new="")
    edit(folder / "utt2spk", old="spk001-utt002 spk001\n", new="")
    edit(folder / "text", old="spk001-utt003", new="spk001-extra text only\nspk001-utt003")
    (folder.parent / "data_audio/spk001-utt003.wav").unlink()
    (folder / "spk2gender").write_text("spk000 f\nspk002 f\nspk003 m\n")
    fault_of(folder)
    report = fix_data_dir(folder)
    assert (report.before, report.after) == (9, 4)
    assert report.dropped == {
        "without a transcript": 1,
        "with an empty transcript": 1,
        "without a speaker": 1,
        "whose audio file is missing or empty": 1,
        "without audio": 1,
    }
    assert validate_data_dir(folder) == 4
    assert (folder / "text").read_text() == "".join(before.splitlines(keepends=True)[4:])
    assert (folder / "spk2gender").read_text() == "spk002 f\nspk003 m\n"
    assert "spk001-extra" in (folder / ".backup/text").read_text()
    assert fix_data_dir(folder).dropped == {}


def test_fix_sorts_and_takes_repeated_lines_once(make_corpus):
    folder = make_corpus()
    want = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in list(folder.iterdir()):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(reversed(lines)) + lines[2])
    assert fix_data_dir(folder).after == 4
    assert {name: (folder / name).read_bytes() for name in want} == want


def test_fix_refuses_what_it_cannot_decide(make_corpus):
    folder = make_corpus()
    text = (folder / "text").read_text()
    (folder / "text").write_text(text + "spk000-utt000 other words\n")
    with pytest.raises(InputError, match="text:5: 'spk000-utt000' has 'other words' here and"):
        fix_data_dir(folder)
    (folder / "text").write_text("x y\n")
    with pytest.raises(InputError, match="no utterance would be left of 5"):
        fix_data_dir(folder)
    assert (folder / "text").read_text() == "x y\n"
    (folder / "utt2spk").unlink()
    with pytest.raises(InputError, match="utt2spk: no such file"):
        fix_data_dir(folder)


def test_bad_characters():
    assert bad_character("plain text\twith tab, ümläut, 漢字, emoji 🎤") is None
    assert bad_character("a\u2028b") == "\u2028"
    assert bad_character("a\u3000b") == "\u3000"
    assert bad_character("zero-width joiner \u200d stays") is None


def test_a_tidy_folder_is_never_in_memory_whole(make_corpus, monkeypatch):
    folder = make_corpus()
    keys = [f"spk00{i // 2}-utt00{i}" for i in range(4)]
    (folder / "utt2dur").write_text("".join(f"{key} 0.1\n" for key in keys))

    def refuse(path):
        raise AssertionError(f"{path} was read as a list")

    monkeypatch.setattr(validate, "read_rows", refuse)
    monkeypatch.setattr(validate, "order_faults", refuse)
    assert validate_data_dir(folder) == 4
    edit(folder / "utt2dur", old=" 0.1", new=" 0")  # nor is one with another fault
    assert "utt2dur:1: '0', expected a positive number of seconds" in fault_of(folder)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_no_file_stays_open(make_corpus):
    folder = make_corpus()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        validate_data_dir(folder)
    edit(folder / "text", old="utt001 word1", new="utt001 \u00a0word1")
    for _ in range(3):
        fault_of(folder)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
