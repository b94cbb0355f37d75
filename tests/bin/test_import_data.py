"""import_data as it is called: sets, the folder it writes, what it prints."""

import json

import numpy as np
import pytest
import soundfile

from espnet_lite.bin import import_data


@pytest.fixture
def csv_of(tmp_path):
    """Return a function that writes a table of `speakers` (name → number of utterances)."""

    def write(speakers, name="t.csv"):
        lines = ["path,text,speaker"]
        for speaker, number in speakers.items():
            for i in range(number):
                path = tmp_path / f"{speaker}{i}.wav"
                if not path.exists():
                    soundfile.write(path, np.zeros(16, dtype=np.int16), 16000)
                lines.append(f"{path.name},word,{speaker}")
        (tmp_path / name).write_text("\n".join(lines))
        return tmp_path / name

    return write


def run(source, data, *words):
    return import_data.main([str(source), "--data_dir", str(data), *map(str, words)])


def speakers_of(folder):
    lines = (folder / "utt2spk").read_text().splitlines()
    return {line.split()[1] for line in lines}


SPLIT = ("--split", "train=0.8", "dev=0.1", "test=0.1")


def test_split_by_speaker(csv_of, tmp_path, capsys):
    speakers = {f"s{i:02d}": 1 + i % 3 for i in range(20)}
    source = csv_of(speakers)
    assert run(source, tmp_path / "a", *SPLIT) == 0
    out = capsys.readouterr().out
    sets = {name: speakers_of(tmp_path / "a" / name) for name in ("train", "dev", "test")}
    assert set.union(*sets.values()) == set(speakers)
    assert sum(map(len, sets.values())) == 20
    total = sum(speakers.values())
    for name, share in (("train", 0.8), ("dev", 0.1), ("test", 0.1)):
        number = sum(speakers[speaker] for speaker in sets[name])
        assert abs(number - share * total) <= 0.05 * total
        assert f"{tmp_path}/a/{name}: {number} utterances, {len(sets[name])} speakers" in out
    # Another order of the rows changes nothing; another seed does.
    reverse = csv_of(dict(reversed(speakers.items())), "reverse.csv")
    assert run(reverse, tmp_path / "b", *SPLIT) == 0
    assert run(reverse, tmp_path / "c", *SPLIT, "--seed", 2) == 0
    assert (tmp_path / "b/dev/text").read_bytes() == (tmp_path / "a/dev/text").read_bytes()
    assert (tmp_path / "c/dev/text").read_bytes() != (tmp_path / "a/dev/text").read_bytes()


@pytest.mark.parametrize(
    "speakers",
    [{"a": 1, "b": 1, "c": 1}, {"a": 100, "b": 100, "c": 100}, {"a": 1, "b": 9, "c": 90}],
)
def test_few_speakers_fill_every_set(speakers, csv_of, tmp_path):
    assert run(csv_of(speakers), tmp_path / "data", *SPLIT) == 0
    sets = [speakers_of(tmp_path / "data" / name) for name in ("train", "dev", "test")]
    assert sorted(speaker for found in sets for speaker in found) == ["a", "b", "c"]


def test_too_few_or_unknown_speakers(csv_of, tmp_path, capsys):
    source = csv_of({"a": 50, "b": 50})
    assert run(source, tmp_path / "data", *SPLIT) == 2
    err = capsys.readouterr().err
    assert "2 speakers for 3 sets (train, dev, test), expected at least 3" in err
    assert "--split_by utterance" in err
    assert run(source, tmp_path / "data", *SPLIT, "--speaker_from", "none") == 2
    assert "the speakers of 100 of 100 utterances are not known" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    assert run(source, tmp_path / "data", *SPLIT, "--split_by", "utterance") == 0
    sizes = [
        len((tmp_path / "data" / name / "text").read_text().splitlines())
        for name in ("train", "dev", "test")
    ]
    assert sizes == [80, 10, 10]
    assert "2 of 2 speakers of dev are in train" in capsys.readouterr().out


def test_sets_of_the_source_are_kept_and_completed(csv_of, tmp_path, capsys):
    csv_of({f"s{i}": 2 for i in range(9)}, "train.csv")
    csv_of({"t": 3}, "test.csv")
    assert run(tmp_path, tmp_path / "data", *SPLIT) == 0
    out = capsys.readouterr().out
    assert "the source has its own sets train, test: dev taken from its train" in out
    assert speakers_of(tmp_path / "data/test") == {"t"}
    dev = speakers_of(tmp_path / "data/dev")
    assert len(dev) == 1 and not dev & speakers_of(tmp_path / "data/train")
    csv_of({"d": 3}, "dev.csv")
    assert run(tmp_path, tmp_path / "data", *SPLIT) == 0
    assert "train, dev, test: --split is not used" in capsys.readouterr().out
    assert speakers_of(tmp_path / "data/dev") == {"d"}
    (tmp_path / "train.csv").unlink()
    (tmp_path / "dev.csv").unlink()
    assert run(tmp_path, tmp_path / "other", *SPLIT) == 2
    assert "its own sets test, and no train to take train, dev from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train"], "--split train: share '', expected NAME=SHARE above 0"),
        (["train=0.5", "dev=0.4"], "shares add up to 0.9, expected 1"),
        (["train=1.5", "dev=-0.5"], "share '1.5', expected NAME=SHARE"),
        (["a/b=1"], "set 'a/b', expected a folder name"),
        (["..=1"], "set '..', expected a folder name"),
        (["a=0.5", "a=0.5"], "set 'a' twice"),
    ],
)
def test_senseless_shares(words, expected, csv_of, tmp_path, capsys):
    assert run(csv_of({"a": 1}), tmp_path / "data", "--split", *words) == 2
    assert expected in capsys.readouterr().err


def test_only_data_directories_are_replaced(csv_of, tmp_path, capsys):
    source = csv_of({"a": 2})
    assert run(source, tmp_path) == 2
    assert "so it is no data directory and is not replaced" in capsys.readouterr().err
    assert (tmp_path / "a0.wav").is_file() and source.is_file()
    assert run(source, source) == 2
    assert "a file, expected a new folder" in capsys.readouterr().err
    assert run(source, tmp_path / "data") == 0
    assert run(csv_of({"a": 1}), tmp_path / "data") == 0
    assert (tmp_path / "data/text").read_text() == "a-a0 word\n"


def test_options_that_mean_nothing_for_the_format(csv_of, tmp_path, capsys):
    source = csv_of({"a": 1})
    assert run(source, tmp_path / "data", "--transcripts", source) == 2
    expected = "--transcripts means nothing for the format csv, expected one of: folder;"
    assert expected in capsys.readouterr().err
    assert run(tmp_path, tmp_path / "data", "--format", "folder", "--id_column", "x") == 2
    expected = "--id_column means nothing for the format folder, expected one of: tsv, csv,"
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_formats(csv_of, tmp_path, capsys):
    source = csv_of({"a": 1})
    assert run(source, tmp_path / "data", "--format", "nmeo") == 2
    expected = "unknown format 'nmeo' (did you mean 'nemo'?), expected one of: auto, csv, folder"
    assert expected in capsys.readouterr().err
    assert run(source, tmp_path / "data", "--format", "nemo") == 2
    assert f"{source}:1: not JSON" in capsys.readouterr().err
    assert run(tmp_path / "none", tmp_path / "data") == 2
    assert f"{tmp_path}/none: no such file or folder" in capsys.readouterr().err
    manifest = tmp_path / "m.json"
    manifest.write_text(json.dumps({"audio_filepath": "a0.wav", "text": "a"}) + "\n" + "{}")
    assert run(manifest, tmp_path / "data", "--format", "lhotse") == 2
    assert f"{manifest}:1: a cut of type None, expected MonoCut" in capsys.readouterr().err
    assert run(manifest, tmp_path / "data", "--format", "folder") == 2
    assert "no folder, expected a folder of audio files" in capsys.readouterr().err
    assert run(manifest, tmp_path / "data", "--format", "tsv") == 2
    assert f"{manifest}:1: columns parted by ','" in capsys.readouterr().err
    manifest.write_text(json.dumps({"audio_filepath": "a0.wav", "text": "a"}))
    assert run(manifest, tmp_path / "data") == 0
    assert run(tmp_path / "data", tmp_path / "other") == 2
    assert "a Kaldi data directory already" in capsys.readouterr().err
    (tmp_path / "x.tar.gz").write_bytes(b"")
    assert run(tmp_path / "x.tar.gz", tmp_path / "other") == 2
    assert "an archive, expected its contents; unpack it" in capsys.readouterr().err
    (tmp_path / "metadata.csv").write_text("a0|one|one\n")
    assert run(tmp_path / "metadata.csv", tmp_path / "other") == 2
    assert f"without a header row; give its folder: {tmp_path}" in capsys.readouterr().err


def test_long_ids_are_refused(csv_of, tmp_path, capsys):
    source = csv_of({"a": 1})
    source.write_text(source.read_text().replace(",a", "," + "a" * 240))
    assert run(source, tmp_path / "data") == 2
    assert "of 243 bytes, expected at most 240" in capsys.readouterr().err
