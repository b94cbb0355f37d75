"""validate_data, fix_data, subset_data and dump_data as they are called."""

import numpy as np
import pytest
import soundfile

from espnet_lite.bin import (
    combine_data,
    dump_data,
    fix_data,
    split_data,
    subset_data,
    validate_data,
)


@pytest.fixture
def folder(tmp_path):
    """A data directory of three utterances of two speakers, at 8 kHz."""
    source = tmp_path / "data"
    source.mkdir()
    tables = {"wav.scp": "", "text": "", "utt2spk": ""}
    for i, key in enumerate(("ann-1", "ann-2", "bob-1")):
        path = tmp_path / f"{key}.wav"
        soundfile.write(path, np.full(8000 * (i + 1), i, dtype=np.int16), 8000)
        tables["wav.scp"] += f"{key} {path}\n"
        tables["text"] += f"{key} hello there\n"
        tables["utt2spk"] += f"{key} {key[:3]}\n"
    for name, text in tables.items():
        (source / name).write_text(text)
    return source


def test_validate_and_fix(folder, capsys):
    assert validate_data.main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: valid, 3 utterances\n"
    (folder / "text").write_text("bob-1 hi\r\nann-1 hi\r\n")
    assert validate_data.main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {folder}/text:1: carriage return") and error.count("\n") == 1
    assert fix_data.main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "kept 2 of 3 utterances" in out and "dropped 1 without a transcript" in out
    assert validate_data.main([str(folder)]) == 0


def test_subset(folder, tmp_path, capsys):
    target = str(tmp_path / "part")

    def ids():
        assert validate_data.main([target]) == 0
        return [line.split()[0] for line in (tmp_path / "part/text").read_text().splitlines()]

    assert subset_data.main([str(folder), target, "--first", "2"]) == 0
    assert ids() == ["ann-1", "ann-2"]
    (tmp_path / "list").write_text("bob-1 ignored words\nann-1\n")
    assert subset_data.main([str(folder), target, "--utt-list", str(tmp_path / "list")]) == 0
    assert ids() == ["ann-1", "bob-1"]
    (tmp_path / "list").write_text("ann\n")
    assert subset_data.main([str(folder), target, "--spk_list", str(tmp_path / "list")]) == 0
    assert ids() == ["ann-1", "ann-2"]
    assert (tmp_path / "part/spk2utt").read_text() == "ann ann-1 ann-2\n"
    capsys.readouterr()
    (tmp_path / "list").write_text("ann-1\nzoe\n")
    assert subset_data.main([str(folder), target, "--utt_list", str(tmp_path / "list")]) == 2
    assert f"{tmp_path}/list:2: 'zoe' is no utterance of {folder}" in capsys.readouterr().err
    for number in ("0", "4"):
        assert subset_data.main([str(folder), target, "--first", number]) == 2
        assert f"first {number} utterances asked for, expected 1 to 3" in capsys.readouterr().err
    assert subset_data.main([str(folder), str(folder), "--first", "1"]) == 2
    assert "would replace its source" in capsys.readouterr().err
    assert ids() == ["ann-1", "ann-2"]


def test_subsets_by_length_and_speaker(folder, tmp_path, capsys):
    target = str(tmp_path / "part")

    def chosen(*options):
        assert subset_data.main([str(folder), target, *options]) == 0
        lines = (tmp_path / "part/text").read_text().splitlines()
        return [line.split()[0] for line in lines]

    assert chosen("--last", "2") == ["ann-2", "bob-1"]
    assert chosen("--per-spk", "1") == ["ann-1", "bob-1"]
    assert chosen("--per_spk", "9") == ["ann-1", "ann-2", "bob-1"]
    capsys.readouterr()
    assert subset_data.main([str(folder), target, "--shortest", "1"]) == 2
    error = capsys.readouterr().err
    assert f"{folder}: nothing tells how long the utterances are, expected utt2dur" in error
    (folder / "utt2dur").write_text("ann-1 3600\nann-2 1800\nbob-1 900.5\n")
    assert chosen("--shortest", "2") == ["ann-2", "bob-1"]
    drawn = [chosen("--hours", "1.1", "--seed", str(seed)) for seed in range(12)]
    assert {tuple(ids) for ids in drawn} <= {("ann-1",), ("ann-2", "bob-1"), ("ann-2",), ("bob-1",)}
    assert len({tuple(ids) for ids in drawn}) > 1
    assert chosen("--hours", "1.1", "--seed", "3") == drawn[3]
    assert (tmp_path / "part/utt2dur").read_text().split()[::2] == drawn[3]
    capsys.readouterr()
    for options, fault in (
        (["--hours", "2"], "2 hours asked for, expected up to 1.750"),
        (["--hours", "0"], "0 hours asked for, expected up to 1.750"),
        (["--hours", "nan"], "nan hours asked for"),
        (["--hours", "0.001"], "0.001 hours are less than utterance"),
        (["--per_spk", "0"], "0 utterances per speaker, expected at least 1"),
        (["--last", "4"], "last 4 utterances asked for, expected 1 to 3"),
        (["--shortest", "0"], "shortest 0 utterances asked for, expected 1 to 3"),
    ):
        assert subset_data.main([str(folder), target, *options]) == 2
        assert fault in capsys.readouterr().err
    (folder / "utt2dur").write_text("ann-1 3600\nann-2 0\nbob-1 900.5\n")
    assert subset_data.main([str(folder), target, "--shortest", "1"]) == 2
    assert f"{folder}/utt2dur:2: '0', expected a positive number of s" in capsys.readouterr().err
    (folder / "utt2dur").write_text("ann-1 3600\n")
    assert subset_data.main([str(folder), target, "--hours", "1"]) == 2
    assert "utt2dur: utterance 'ann-2' of utt2spk is missing" in capsys.readouterr().err


def test_segments_are_subset_and_mended(folder, tmp_path, capsys):
    """Recordings that nothing uses go; a segment of a recording that is gone goes."""
    recordings = {"r1": "ann-1", "r2": "ann-2", "r3": "bob-1"}
    wav_scp = "".join(f"{key} {tmp_path}/{name}.wav\n" for key, name in recordings.items())
    (folder / "wav.scp").write_text(wav_scp)
    (folder / "reco2dur").write_text("r1 1\nr2 2\nr3 3\n")
    (folder / "segments").write_text("ann-1 r1 0 0.5\nann-2 r1 0.25 -1\nbob-1 r3 1 2\n")
    target = tmp_path / "part"
    assert subset_data.main([str(folder), str(target), "--last", "2"]) == 0
    assert (target / "segments").read_text() == "ann-2 r1 0.25 -1\nbob-1 r3 1 2\n"
    assert (target / "wav.scp").read_text() == "".join(wav_scp.splitlines(True)[::2])
    assert (target / "reco2dur").read_text() == "r1 1\nr3 3\n"
    assert subset_data.main([str(folder), str(target), "--shortest", "1"]) == 2
    assert "segments with their ends" in capsys.readouterr().err
    (folder / "segments").write_text("ann-1 r1 0 0.75\nann-2 r1 0.25 0.5\nbob-1 r3 1 2\n")
    assert subset_data.main([str(folder), str(target), "--shortest", "1"]) == 0
    assert (target / "segments").read_text() == "ann-2 r1 0.25 0.5\n"
    (tmp_path / "bob-1.wav").unlink()
    assert fix_data.main([str(folder)]) == 0
    assert "kept 2 of 3" in capsys.readouterr().out
    assert (folder / "wav.scp").read_text() == wav_scp.splitlines(True)[0]
    assert (folder / "reco2dur").read_text() == "r1 1\n"


def test_split_and_combine(folder, tmp_path, capsys):
    assert split_data.main([str(folder), "2"]) == 0
    said = f"{folder}/split2: 2 parts by speaker of 1 to 2 utterances, 3 in all\n"
    assert capsys.readouterr().out == said
    parts = [f"{folder}/split2/{i}" for i in (1, 2)]
    (folder / "split2/1/utt2lang").write_text("ann-1 en\nann-2 en\n")
    assert combine_data.main([str(tmp_path / "all"), *parts]) == 0
    assert capsys.readouterr().out == (
        f"{tmp_path}/all: 3 utterances of 2 folders\n"
        f"  left out utt2lang, which {folder}/split2/2 lacks\n"
    )
    for name in ("wav.scp", "text", "utt2spk"):
        assert (tmp_path / "all" / name).read_text() == (folder / name).read_text()
    assert split_data.main([str(folder), "3"]) == 2
    assert "expected 1 to 2, the number of speakers" in capsys.readouterr().err
    assert split_data.main([str(folder), "3", "--by", "utterance"]) == 0
    assert combine_data.main([str(tmp_path / "all"), str(folder), parts[0]]) == 2
    assert "'ann-1' stands in" in capsys.readouterr().err


def test_dump_into_archives(folder, tmp_path, capsys):
    arguments = ["--data_dir", str(folder), "--dump_dir", str(tmp_path / "dump")]
    assert dump_data.main([*arguments, "--audio-format", "ark"]) == 0
    assert "0 files left in place, 3 written as FLAC into 1 archives\n" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "dump/audio").iterdir()] == ["audio.1.ark"]
    assert validate_data.main([str(tmp_path / "dump")]) == 0


def test_dump(folder, tmp_path, capsys):
    arguments = ["--data_dir", str(folder), "--dump_dir", str(tmp_path / "dump")]
    assert dump_data.main([*arguments, "--max-seconds", "2.5"]) == 0
    out = capsys.readouterr().out
    assert "0.001 hours, 2 utterances, 1 speakers" in out
    assert "resampled 2 from 8000 to 16000 Hz" in out
    assert "left out 0 shorter than 0.1 s\n" in out
    assert "left out 1 longer than 2.5 s: bob-1\n" in out
    assert (tmp_path / "dump/utt2num_samples").read_text() == "ann-1 16000\nann-2 32000\n"
    before = sorted(path.name for path in tmp_path.rglob("*"))
    (tmp_path / "bob-1.wav").write_bytes(b"RIFF")
    assert dump_data.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: utterance 'bob-1': ") and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "option, value", [("--channel", "left"), ("--max_seconds", "-1"), ("--sample_rate", "16k")]
)
def test_wrong_options_are_usage_errors(option, value, folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        dump_data.main(
            ["--data_dir", str(folder), "--dump_dir", str(tmp_path / "dump"), option, value]
        )
    assert caught.value.code == 2
    assert value in capsys.readouterr().err


def test_help_of_validate_data_states_the_rules(capsys):
    with pytest.raises(SystemExit):
        validate_data.main(["--help"])
    assert "segment names a recording" in capsys.readouterr().out
