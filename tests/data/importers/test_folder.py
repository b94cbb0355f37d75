"""Folders of audio: transcripts beside each file, LibriSpeech's lists, one file for all."""

import errno
import os

import pytest


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_transcripts_beside(make_audio, run, table, tmp_path):
    make_audio("in/anna/1.wav", "in/anna/wav/2.FLAC", "in/bob/s1/3.ogg", "in/4.mp3", "in/.5.wav")
    write(tmp_path / "in/anna/1.txt", "\ufeffopen the\r\ndoor\r\n")
    write(tmp_path / "in/anna/wav/2.lab", "close  it\n")
    write(tmp_path / "in/bob/s1/3.trn", "go on (bob_3)\n")
    write(tmp_path / "in/README.txt", "no transcript")
    out = run(tmp_path / "in")
    assert "read as folder" in out
    assert f"left out 1 without words:\n    {tmp_path}/in/4.mp3 (4.mp3)\n" in out
    assert table("text") == {
        "anna-1": "open the door",
        "anna-2": "close it",
        "s1-bob-s1-3": "go on",
    }
    assert table("utt2spk") == {"anna-1": "anna", "anna-2": "anna", "s1-bob-s1-3": "s1"}
    run(tmp_path / "in", "--speaker_from", "top_folder")
    assert table("utt2spk") == {"anna-1": "anna", "anna-2": "anna", "bob-s1-3": "bob"}


def test_librispeech_layout(make_audio, run, table, tmp_path):
    names = ("1034-121119-0000", "1034-121119-0001", "78-368-0000")
    make_audio(*(f"in/{n.split('-')[0]}/{n.split('-')[1]}/{n}.flac" for n in names))
    write(
        tmp_path / "in/1034/121119/1034-121119.trans.txt",
        "1034-121119-0000 THE NARRATIVE\n1034-121119-0001 IT MAY\n",
    )
    write(tmp_path / "in/78/368/78-368.trans.txt", "78-368-0000 CHAPTER\n")
    run(tmp_path / "in")
    assert table("utt2spk") == {name: name.split("-")[0] for name in names}
    assert table("text")["1034-121119-0001"] == "IT MAY"
    (tmp_path / "in/1034/121119/1034-121119-0001.flac").unlink()
    out = run(tmp_path / "in", "--skip-missing")
    missing = "1034-121119.trans.txt:2 (1034/121119/1034-121119-0001.flac)"
    assert "left out 1 with no such file" in out and missing in out


def test_ljspeech(make_audio, run, table, tmp_path):
    make_audio("lj/wavs/LJ001-0001.wav", "lj/wavs/LJ001-0002.wav")
    lines = 'LJ001-0001|"Printed" in 1455,|"Printed" in fourteen,\nLJ001-0002|in being|\n'
    write(tmp_path / "lj/metadata.csv", lines)
    run(tmp_path / "lj")
    assert table("text") == {"LJ001-0001": '"Printed" in fourteen,', "LJ001-0002": "in being"}
    assert table("utt2spk") == {"LJ001-0001": "LJ001-0001", "LJ001-0002": "LJ001-0002"}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("transcripts.txt", "./a/1.wav one two\nb/1 three\nx four\n"),
        ("text", "a/1.wav one two\nb/1.wav three\nx.wav four\n"),
        ("transcript.txt", "a/1\tone two\nb/1\tthree\nx\tfour\n"),
        ("transcripts.trn", "one two (a/1)\nthree (b/1)\nfour (x)\n"),
        ("elsewhere.txt", "a/1 one two\nb/1 three\nx four\n"),
    ],
)
def test_one_transcript_file(name, lines, make_audio, run, table, tmp_path):
    make_audio("in/a/1.wav", "in/b/1.wav", "in/c/x.wav")
    is_found = name != "elsewhere.txt"
    path = tmp_path / "in" / name if is_found else tmp_path / name
    write(path, lines)
    run(tmp_path / "in", *([] if is_found else ["--transcripts", path]))
    assert table("text") == {"a-1": "one two", "b-1": "three", "c-x": "four"}


def test_set_folders(make_audio, run, table, tmp_path):
    for name in ("train/a/1", "valid/b/1", "test/c/1"):
        make_audio(f"in/{name}.wav")
        write(tmp_path / f"in/{name}.txt", "yes")
    run(tmp_path / "in")
    assert [table(f"{n}/text") for n in ("train", "dev", "test")] == [
        {"a-1": "yes"},
        {"b-1": "yes"},
        {"c-1": "yes"},
    ]
    make_audio("in/extra/1.wav")
    write(tmp_path / "in/extra/1.txt", "yes")
    from espnet_lite.bin import import_data

    assert import_data.main([str(tmp_path / "in"), "--data_dir", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


def test_linked_folders_are_entered_once(make_audio, run, table, tmp_path):
    make_audio("far/anna/1.wav")
    write(tmp_path / "far/anna/1.txt", "yes")
    (tmp_path / "in").mkdir()
    os.symlink(tmp_path / "far/anna", tmp_path / "in/anna")
    os.symlink(tmp_path / "in", tmp_path / "far/anna/loop")
    run(tmp_path / "in")
    assert table("text") == {"anna-1": "yes"}


def test_unlabelled(make_audio, run, table, tmp_path):
    make_audio("in/0_george_1.wav", "in/1_nicolas_0.wav")
    out = run(tmp_path / "in", "--no_text", "--speaker_pattern", r"^\d+_([a-z]+)_")
    assert "2 utterances, 2 speakers\n" in out
    assert table("utt2spk") == {"george-0_george_1": "george", "nicolas-1_nicolas_0": "nicolas"}
    assert not (tmp_path / "data" / "text").exists()


def test_faults(make_audio, run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    assert "folder without audio, tables or manifests, expected one of: folder, tsv" in run(
        folder, code=2
    )
    assert "no audio (.wav, .flac," in run(folder, "--format", "folder", code=2)
    make_audio("in/a/1.wav", "in/b/1.wav")
    assert "no utterance left: 2 without words" in run(folder, code=2)
    write(folder / "transcripts.txt", "\n1 yes\n")
    expected = f"{folder}/transcripts.txt:2: '1' may be a/1.wav or b/1.wav, expected a path"
    assert expected in run(folder, code=2)
    write(folder / "transcripts.txt", "a/1 yes\na/1 no\n")
    expected = "transcripts.txt:2: utterance id 'a-1' is that of"
    assert expected in run(folder, code=2)
    write(folder / "transcripts.txt", "a/1|x|y|z\n")
    assert "transcripts.txt:1: 4 fields in 'a/1|x|y|z', expected name|" in run(folder, code=2)
    write(folder / "transcripts.txt", "a/2 yes\n")
    assert f"transcripts.txt:1: no such file '{folder}/a/2'" in run(folder, code=2)
    write(folder / "transcripts.txt", "")
    assert "transcripts.txt: empty file, expected a line for each" in run(folder, code=2)
    err = run(folder, "--speaker_pattern", "^([xyz])", "--no_text", code=2)
    assert "speaker pattern '^([xyz])' does not match 'a/1.wav'" in err
    assert "no group, expected one for the speaker" in run(folder, "--speaker_pattern", "x", code=2)
    assert "no regular expression" in run(folder, "--speaker_pattern", "(", code=2)


def test_files_of_a_mac_are_not_read(make_audio, run, table, tmp_path):
    make_audio("in/84/1/84-1-0000.wav", "in/84/1/._84-1-0000.wav", "csv/1.wav")
    write(tmp_path / "in/84/1/84-1.trans.txt", "84-1-0000 YES\n")
    (tmp_path / "in/84/1/._84-1.trans.txt").write_bytes(b"\x00\x05\x16\x07\xff")
    run(tmp_path / "in")
    assert table("text") == {"84-1-0000": "YES"}
    write(tmp_path / "csv/all.csv", "path,text\n1.wav,yes\n")
    (tmp_path / "csv/._all.csv").write_bytes(b"\x00\x05\x16\x07\xff")
    run(tmp_path / "csv", "--format", "csv")
    assert table("text") == {"1": "yes"}


def test_capital_letters_in_names_of_folders_and_suffixes(make_audio, run, table, tmp_path):
    make_audio("in/Train/anna/1.WAV", "in/Validation/bob/1.WAV")
    write(tmp_path / "in/Train/anna/1.TXT", "yes")
    write(tmp_path / "in/Validation/bob/1.TXT", "no")
    run(tmp_path / "in")
    assert table("train/text") == {"anna-1": "yes"}
    assert table("dev/text") == {"bob-1": "no"}


def test_one_transcript_for_two_audio_files(make_audio, run, tmp_path):
    make_audio("in/a/1.wav", "in/a/1.flac")
    write(tmp_path / "in/a/1.txt", "yes")
    assert "1.txt:1 too (a/1.wav, a/1.flac)" in run(tmp_path / "in", code=2)


def test_a_folder_that_may_not_be_read(make_audio, run, tmp_path, monkeypatch):
    """Tests may run as root, who may read all: the refusal is feigned."""
    make_audio("in/a/1.wav", "in/locked/2.wav")
    write(tmp_path / "in/a/1.txt", "yes")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert f"{tmp_path}/in/locked: cannot read: Permission denied" in run(tmp_path / "in", code=2)
    monkeypatch.undo()
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("1.wav"))
    err = run(tmp_path / "in", code=2)
    assert f"1.txt:1: no permission to read '{tmp_path}/in/a/1.wav'" in err


def test_names_that_wav_scp_cannot_hold(make_audio, run, tmp_path):
    make_audio("in/a\nb.wav")
    assert "character U+000A" in run(tmp_path / "in", "--no_text", code=2)
    os.rename(tmp_path / "in/a\nb.wav", os.fsencode(tmp_path / "in") + b"/\xe9.wav")
    err = run(tmp_path / "in", "--no_text", code=2)
    assert "U+DCE9 (or a byte that is not UTF-8)" in err
