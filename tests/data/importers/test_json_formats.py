"""NeMo manifests, Hugging Face folders and lhotse manifests."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures"


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_nemo_with_offsets(make_audio, run, table, tmp_path):
    make_audio("wavs/anna/1.wav", "wavs/tape.wav")
    manifest = write_lines(
        tmp_path / "m.json",
        [
            {"audio_filepath": "wavs/anna/1.wav", "duration": 0.1, "text": "yes", "speaker": 12},
            {
                "audio_filepath": f"{tmp_path}/wavs/tape.wav",
                "offset": 12.4,
                "duration": 3.5,
                "text": "no",
            },
            {"audio_filepath": "wavs/tape.wav", "offset": 0.0, "duration": 2, "text": None},
        ],
    )
    out = run(manifest)
    assert "read as nemo" in out and "left out 1 without words" in out
    assert table("text") == {"12-anna-1": "yes", "tape-0012400-0015900": "no"}
    assert table("segments") == {
        "12-anna-1": "12-anna-1 0.0 -1",
        "tape-0012400-0015900": "tape-0012400-0015900 12.4 15.9",
    }
    assert "2 utterances, 0.001 hours, 1 speakers, 1 utterances without a speaker's name" in out


def test_nemo_folder_names_sets(make_audio, run, table, tmp_path):
    make_audio("in/1.wav")
    for name in ("train_manifest.json", "validation_manifest.json", "test.jsonl"):
        write_lines(tmp_path / "in" / name, [{"audio_filepath": "1.wav", "text": name[:2]}])
    run(tmp_path / "in")
    assert [table(f"{name}/text") for name in ("train", "dev", "test")] == [
        {"1": "tr"},
        {"1": "va"},
        {"1": "te"},
    ]


GOOD = '{"audio_filepath": "1.wav", "duration": 1.0, "text": "a"}\n'
NEMO_FAULTS = {
    "json": (GOOD + '{"audio_filepath": "1.wav",\n', ":2: not JSON (Expecting property name"),
    "array": ("[" + GOOD.strip() + "]", ":1: a JSON list, expected one object a line; jq -c '.[]'"),
    "text": ("nothing\n", ":1: not JSON (Expecting value at column 1): 'nothing'"),
    "nan": (
        '{"audio_filepath": "1.wav", "duration": NaN, "text": "a"}',
        ":1: not JSON (NaN is no JSON number)",
    ),
    "key twice": (
        '{"audio_filepath": "1.wav", "text": "a", "text": "b"}',
        ":1: not JSON (key 'text' twice in one object)",
    ),
    "half a character": (
        GOOD + '{"audio_filepath": "1.wav", "text": "\\ud83d\\ude00 a\\ud800"}',
        ":2: not JSON (\\ud800 is half of a character)",
    ),
    "deep": ("[" * 100000, ":1: not JSON (nested too deeply)"),
    "key": (
        GOOD + '\n{"audio_filpath": "1.wav", "text": "a"}\n',
        ":3: no column for audio (did you mean 'audio_filpath'?), it has: audio_filpath, text",
    ),
    "negative": (
        '{"audio_filepath": "1.wav", "offset": -1, "duration": 1, "text": "a"}',
        ":1: offset -1, expected seconds from 0",
    ),
    "zero": (
        '{"audio_filepath": "1.wav", "offset": 1, "duration": 0, "text": "a"}',
        ":1: from 1 s to 1 s, expected an end after the start",
    ),
    "huge": (
        '{"audio_filepath": "1.wav", "duration": 1' + "0" * 400 + ', "text": "a"}',
        ":1: duration 1000",
    ),
    "list": (
        '{"audio_filepath": ["1.wav", "2.wav"], "text": "a"}',
        ":1: 'audio_filepath' is a list (one file for each channel)",
    ),
    "words": ('{"audio_filepath": "1.wav", "text": ["a"]}', ":1: 'text' is ['a'], expected text"),
    "tar": ('{"audio_filepath": "1.wav", "shard_id": 0, "text": "a"}', ":1: 'shard_id': the audio"),
    "twice": (GOOD + GOOD, ":2: utterance id '1' is that of {path}:1 too"),
    "empty": ("\n", ": empty manifest, expected one JSON object a line"),
    "bytes": ('{"text": "\xff"}', ":1: byte 0xff is not UTF-8"),
}


@pytest.mark.parametrize("fault", NEMO_FAULTS)
def test_nemo_faults_name_file_and_line(fault, make_audio, run, tmp_path):
    make_audio("1.wav")
    path = tmp_path / "m.jsonl"
    path.write_text(NEMO_FAULTS[fault][0], encoding="latin1")
    expected = NEMO_FAULTS[fault][1].format(path=path)
    assert f"error: {path}{expected}" in run(path, code=2)


def test_hugging_face_split_folders(make_audio, run, table, tmp_path):
    make_audio("hf/train/1.wav", "hf/train/2.wav", "hf/validation/1.wav", "hf/test/a/1.wav")
    (tmp_path / "hf/train/metadata.csv").write_text(
        'file_name,transcription,speaker_id\n1.wav,"yes, sir",7\n2.wav,no,8\n'
    )
    (tmp_path / "hf/validation/metadata.csv").write_text("file_name,text\n1.wav,maybe\n")
    write_lines(
        tmp_path / "hf/test/metadata.jsonl", [{"file_name": "a/1.wav", "sentence": "never"}]
    )
    out = run(tmp_path / "hf")
    assert "read as hugging_face" in out
    assert table("train/text") == {"7-1": "yes, sir", "8-2": "no"}
    assert table("dev/text") == {"1": "maybe"}
    assert table("test/text") == {"a-1": "never"}


def test_hugging_face_one_metadata_file(make_audio, run, table, tmp_path):
    make_audio("hf/data/train/1.wav", "hf/data/test/1.wav")
    names = ("data/train/1.wav", "data/test/1.wav")
    write_lines(
        tmp_path / "hf/metadata.jsonl", [{"file_name": n, "transcription": n[5:7]} for n in names]
    )
    run(tmp_path / "hf")
    assert table("train/text") == {"1": "tr"} and table("test/text") == {"1": "te"}
    assert not (tmp_path / "data" / "dev").exists()


def test_hugging_face_faults(make_audio, run, tmp_path):
    make_audio("hf/1.wav", "hf/train/2.wav")
    (tmp_path / "hf/metadata.csv").write_text("file_name,text\n1.wav,a\ntrain/2.wav,b\n")
    err = run(tmp_path / "hf", code=2)
    assert f"{tmp_path}/hf/metadata.csv:2: '1' is in no set, but" in err
    assert "metadata.csv:3 is in 'train'" in err
    (tmp_path / "hf/metadata.jsonl").write_text('{"file_name": "1.wav"}\n')
    assert "metadata.csv and metadata.jsonl in one folder" in run(tmp_path / "hf", code=2)
    (tmp_path / "hf/metadata.csv").unlink()
    err = run(tmp_path / "hf", code=2)
    assert f"{tmp_path}/hf/metadata.jsonl:1: no column for text, it has: file_name" in err
    folder = tmp_path / "parquet" / "data"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    for source in (folder.parent, folder / "train-00000-of-00001.parquet"):
        err = run(source, code=2)
        assert "train-00000-of-00001.parquet: Parquet with audio inside" in err
        assert "docs/import.md, 'Parquet and Arrow'" in err


@pytest.fixture
def lhotse(tmp_path, make_audio):
    """The fixture that lhotse wrote, its audio beside it."""
    shutil.copytree(FIXTURES / "lhotse", tmp_path / "lhotse")
    make_audio("lhotse/tape.wav", "lhotse/cuts/tape.wav", seconds=3)
    make_audio("lhotse/solo.wav", "lhotse/cuts/solo.wav", seconds=1)
    return tmp_path / "lhotse"


def kaldi_of(folder):
    """Return utterance → (audio, start, end, text, speaker) of the data directory lhotse wrote."""
    tables = {
        name: dict(line.split(maxsplit=1) for line in (folder / name).read_text().splitlines())
        for name in ("wav.scp", "segments", "text", "utt2spk")
    }
    found = {}
    for key, value in tables["segments"].items():
        recording, start, end = value.split()
        audio = Path(tables["wav.scp"][recording]).name
        span = (0.0, -1.0) if key == "bob-2" else (float(start), float(end))
        found[key] = (audio, *span, tables["text"][key], tables["utt2spk"][key])
    return found


@pytest.mark.parametrize(
    "source",
    ["", "supervisions.jsonl.gz", "recordings.jsonl.gz", "cuts/whole.jsonl", "cuts/trimmed.jsonl"],
)
def test_lhotse_as_lhotse_itself_exports_it(source, lhotse, run, tmp_path):
    out = run(lhotse / source)
    assert "read as lhotse" in out and "3 utterances, 0.001 hours, 2 speakers, 5 words" in out
    assert kaldi_of(tmp_path / "data") == kaldi_of(lhotse / "kaldi")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("padded", "padded.jsonl:1: a cut of type 'MixedCut', expected MonoCut"),
        ("speed", "speed.jsonl:1: recording 'tape_sp1.1' is changed by its 'transforms'"),
        ("stereo", "stereo.jsonl:1: a cut of type 'MultiCut', expected MonoCut"),
        ("windows", "windows.jsonl:2: utterance id 'anna-1' is that of"),
    ],
)
def test_lhotse_refuses_what_it_cannot_hold(name, expected, lhotse, run):
    assert expected in run(lhotse / "cuts" / f"{name}.jsonl", code=2)


def edited(lhotse, name, change):
    """Rewrite the first line of a manifest of the fixture."""
    path = lhotse / name
    with gzip.open(path, "rt") as file:
        records = [json.loads(line) for line in file]
    change(records[0])
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        (
            "recordings",
            lambda r: r["sources"][0].update(type="command", source="cat x |"),
            "recordings.jsonl.gz:1: recording 'tape' is of type 'command', expected 'file'",
        ),
        (
            "recordings",
            lambda r: r["sources"][0].update(source="s3://bucket/x.wav"),
            "recordings.jsonl.gz:1: URL 's3://bucket/x.wav'",
        ),
        (
            "recordings",
            lambda r: r["sources"][0].update(channels=[0, 1]),
            "recordings.jsonl.gz:1: recording 'tape' has 2 channels in 1 files, expected 1",
        ),
        (
            "recordings",
            lambda r: r.update(id="solo"),
            "recordings.jsonl.gz:2: recording 'solo' twice, it is at",
        ),
        (
            "supervisions",
            lambda r: r.update(recording_id="disk"),
            "supervisions.jsonl.gz:1: recording 'disk' is not in",
        ),
        (
            "supervisions",
            lambda r: r.update(start=-0.5),
            "supervisions.jsonl.gz:1: start of 'anna-1' in its recording -0.5, expected seconds from 0",
        ),
        (
            "supervisions",
            lambda r: r.update(duration=0),
            "supervisions.jsonl.gz:1: supervision 'anna-1' from 0.25 s to 0.25 s of a recording of 3 s",
        ),
        (
            "supervisions",
            lambda r: r.update(start=3.5),
            "supervisions.jsonl.gz:1: supervision 'anna-1' from 3.5 s to 4.5 s of a recording of 3 s",
        ),
        (
            "supervisions",
            lambda r: r.update(duration=1e-9),
            "supervisions.jsonl.gz:1: supervision 'anna-1' from 0.25 s to 0.25 s of a recording",
        ),
        (
            "supervisions",
            lambda r: r.update(start=10**400),
            "supervisions.jsonl.gz:1: start of 'anna-1' 1000",
        ),
        (
            "recordings",
            lambda r: r["sources"][0].update(channels=2),
            "recordings.jsonl.gz:1: 'channels' of recording 'tape', expected a list",
        ),
        (
            "supervisions",
            lambda r: r.pop("id"),
            "supervisions.jsonl.gz:1: 'id' is None, expected a name; it has: recording_id",
        ),
    ],
)
def test_lhotse_faults(name, change, expected, lhotse, run):
    edited(lhotse, f"{name}.jsonl.gz", change)
    assert expected in run(lhotse, code=2)


def test_lhotse_custom_arrays_and_broken_archives(lhotse, run):
    path = lhotse / "cuts" / "whole.jsonl"
    cut = json.loads(path.read_text().splitlines()[0])
    cut["custom"] = {"codes": {"array": {"storage_type": "numpy_files"}, "start": 0}}
    write_lines(path, [cut])
    assert "whole.jsonl:1: custom field 'codes' holds audio or an array" in run(path, code=2)
    whole = (lhotse / "supervisions.jsonl.gz").read_bytes()
    (lhotse / "supervisions.jsonl.gz").write_bytes(whole[:40])
    assert "supervisions.jsonl.gz: broken gzip file after line 0" in run(lhotse, code=2)
    (lhotse / "recordings.jsonl.gz").unlink()
    err = run(lhotse, code=2)
    assert "supervisions.jsonl.gz: no recordings manifest of the same name beside it" in err


def test_lhotse_two_supervisions_of_a_cut_with_one_id(lhotse, run):
    path = lhotse / "cuts" / "whole.jsonl"
    cut = json.loads(path.read_text().splitlines()[0])
    cut["supervisions"][1] |= {"id": "anna-1", "speaker": "anna"}
    write_lines(path, [cut])
    assert f"{path}:1: utterance id 'anna-1' is that of {path}:1 too" in run(path, code=2)


def test_lhotse_names_of_files_are_sets(lhotse, run, table):
    for part in ("train-clean-5", "dev"):
        for kind in ("recordings", "supervisions"):
            shutil.copy(lhotse / f"{kind}.jsonl.gz", lhotse / f"my_{kind}_{part}.jsonl.gz")
    (lhotse / "recordings.jsonl.gz").unlink()
    (lhotse / "supervisions.jsonl.gz").unlink()
    out = run(lhotse)
    assert list(table("train-clean-5/text")) == ["anna-1", "bob-1", "bob-2"]
    assert list(table("dev/text")) == ["anna-1", "bob-1", "bob-2"] and "3 utterances" in out
