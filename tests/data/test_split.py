"""Splitting: who goes where, that nothing is lost, what is refused."""

import subprocess
from pathlib import Path

import pytest

from espnet_lite.data.combine import combine_data_dirs
from espnet_lite.data.split import split_data_dir
from espnet_lite.data.tables import read_table
from espnet_lite.data.validate import validate_data_dir
from espnet_lite.errors import InputError


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    """Ten utterances of four speakers, ann to dan with 1 to 4, in segments, with further tables."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("rec1", "rec2", "unused"):
        (tmp_path / f"{name}.wav").write_bytes(b"RIFF")
    keys = [
        f"{name}-{i}" for n, name in enumerate(("ann", "bob", "cat", "dan")) for i in range(n + 1)
    ]
    recordings = {key: f"rec{1 + i % 2}" for i, key in enumerate(keys)}
    tables = {
        "wav.scp": [f"{name} {tmp_path}/{name}.wav" for name in ("rec1", "rec2", "unused")],
        "segments": [f"{key} {recordings[key]} {i}.25 {i + 1}" for i, key in enumerate(keys)],
        "text": [f"{key} the words  of {key}" for key in keys],
        "utt2spk": [f"{key} {key[:3]}" for key in keys],
        "utt2lang": [f"{key} en" for key in keys],
        "spk2gender": ["ann f", "bob m", "cat f", "dan m"],
        "reco2dur": ["rec1 20", "rec2 21", "unused 3"],
        "spk2utt": [
            f"{name} {' '.join(key for key in keys if key.startswith(name))}"
            for name in ("ann", "bob", "cat", "dan")
        ],
    }
    for name, lines in tables.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    validate_data_dir(folder)
    return folder


def test_speakers_stay_whole_and_parts_are_like_in_size(folder):
    split = split_data_dir(folder, 2)
    assert split.folder == folder / "split2" and split.utterances == [5, 5]
    # The largest speaker goes to part 1, cat and bob to part 2, ann where fewer are.
    assert list(read_table(folder / "split2/1/spk2utt")) == ["ann", "dan"]
    assert list(read_table(folder / "split2/2/spk2utt")) == ["bob", "cat"]
    for part in ("1", "2"):
        validate_data_dir(folder / "split2" / part)
        kinds = {
            name: len(read_table(folder / "split2" / part / name)) for name in contents(folder)
        }
        assert kinds == {
            "wav.scp": 2,
            "reco2dur": 2,
            "spk2gender": 2,
            "spk2utt": 2,
            **dict.fromkeys(["segments", "text", "utt2spk", "utt2lang"], 5),
        }
    assert (folder / "split2/1/reco2dur").read_text() == "rec1 20\nrec2 21\n"


@pytest.mark.parametrize("by, number", [("speaker", 4), ("utterance", 10), ("utterance", 3)])
def test_split_and_combined_it_is_the_same_again(folder, tmp_path, by, number):
    (folder / "wav.scp").write_text("".join((folder / "wav.scp").read_text().splitlines(True)[:2]))
    (folder / "reco2dur").write_text("rec1 20\nrec2 21\n")
    split = split_data_dir(folder, number, by=by)
    parts = [split.folder / str(i + 1) for i in range(number)]
    assert sorted(split.folder.iterdir()) == sorted(parts)
    assert min(split.utterances) >= 1 and sum(split.utterances) == 10
    combine_data_dirs(tmp_path / "again", parts)
    assert contents(tmp_path / "again") == contents(folder)


def test_by_utterance_gives_runs_of_the_list(folder):
    split = split_data_dir(folder, 3, by="utterance")
    assert split.folder == folder / "split3utt"
    runs = [list(read_table(split.folder / str(i) / "utt2spk")) for i in (1, 2, 3)]
    assert [*runs[0], *runs[1], *runs[2]] == list(read_table(folder / "utt2spk"))
    assert split.utterances == [3, 4, 3]


def test_seconds_count_where_they_are_known(folder):
    # dan has 4 utterances of 1 s; ann's only one lasts 100 s.
    keys = list(read_table(folder / "utt2spk"))
    seconds = {key: 100 if key == "ann-0" else 1 for key in keys}
    (folder / "utt2dur").write_text("".join(f"{key} {seconds[key]}.0\n" for key in keys))
    split_data_dir(folder, 2)
    assert (folder / "split2/1/spk2gender").read_text() == "ann f\n"
    split = split_data_dir(folder, 2, by="utterance")
    assert split.utterances == [1, 9]
    # Samples go before seconds; the long one now stands in the middle, and no part is empty.
    samples = {key: 10**9 if key == "cat-1" else 1 for key in keys}
    (folder / "utt2num_samples").write_text("".join(f"{key} {samples[key]}\n" for key in keys))
    for number in (2, 10):
        split = split_data_dir(folder, number, by="utterance")
        assert min(split.utterances) >= 1 and sum(split.utterances) == 10
    assert split_data_dir(folder, 3, by="utterance").utterances == [4, 1, 5]


def test_kaldi_agrees_on_parts_of_equal_number(folder, tmp_path):
    """`split -n l/N` cuts a list of equally long lines into runs as Kaldi's split_scp.pl does."""
    (folder / "segments").unlink()
    keys = [f"s-{i:02d}" for i in range(24)]
    (folder / "wav.scp").write_text("".join(f"{key} {tmp_path}/rec1.wav\n" for key in keys))
    (folder / "utt2spk").write_text("".join(f"{key} s\n" for key in keys))
    for name in ("text", "spk2utt", "utt2lang", "reco2dur"):
        (folder / name).unlink()
    split = split_data_dir(folder, 6, by="utterance")
    subprocess.run(["split", "-n", "l/6", folder / "utt2spk", tmp_path / "theirs."], check=True)
    theirs = sorted(tmp_path.glob("theirs.*"))
    for part, path in enumerate(theirs, start=1):
        assert (split.folder / str(part) / "utt2spk").read_bytes() == path.read_bytes()


def test_a_new_run_replaces_the_parts(folder):
    split_data_dir(folder, 2)
    (folder / "split2/3").mkdir()
    (folder / "split2/1/old").touch()
    split_data_dir(folder, 2)
    assert {path.name for path in (folder / "split2").iterdir()} == {"1", "2"}
    assert not (folder / "split2/1/old").exists()


def test_what_cannot_be_split(folder):
    for number in (0, 5):
        with pytest.raises(
            InputError, match=rf"{number} parts asked for, expected 1 to 4.*--by utt"
        ):
            split_data_dir(folder, number)
    with pytest.raises(
        InputError, match=r"11 parts asked for, expected 1 to 10, the number of utt"
    ):
        split_data_dir(folder, 11, by="utterance")
    with pytest.raises(InputError, match="unknown way to split 'spaeker'"):
        split_data_dir(folder, 2, by="spaeker")
    before = set(folder.iterdir())
    (folder / "text").write_text("ann-0 only this\n")
    with pytest.raises(InputError, match=r"segments:2: utterance 'bob-0' is not in text"):
        split_data_dir(folder, 2)
    assert set(folder.iterdir()) == before


def test_a_folder_of_that_name_with_other_things_stays(make_corpus):
    folder = make_corpus()
    (folder / "split2").mkdir()
    (folder / "split2/notes").write_text("mine")
    with pytest.raises(InputError, match="split2: holds 'notes' and no 1, so it is not replaced"):
        split_data_dir(folder, 2)
    assert (folder / "split2/notes").read_text() == "mine"
    (folder / "split2/notes").unlink()
    for _ in range(2):
        assert split_data_dir(folder, 2).utterances == [2, 2]
