"""LibriSpeech: tiny sets in the official layout, the faults a user meets, the download, the choice."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
RECIPES = {name: ROOT / "egs" / name / "asr1" for name in ("librispeech", "mini_librispeech")}
LOCAL = RECIPES["librispeech"] / "local"
LINES = {
    "dev-clean": {
        "84-121550": ["BUT WITH FULL RAVISHMENT", "ALL WATERS", "SO I"],
        "84-121123": ["GO", "DO YOU HEAR"],
        "8455-210777": ["I REMAINED THERE ALONE"],
    },
    "train-own": {"103-1240": ["MISSUS RACHEL LYNDE'S", "'TIS"]},
}
FORMATS = {
    ".flac": ("FLAC", "PCM_16"),
    ".opus": ("OGG", "OPUS"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".wav": ("WAV", "PCM_16"),
}


def build_corpus(folder: Path, *, suffix: str = ".flac", sets: dict | None = None) -> Path:
    """Make LibriSpeech with `sets`; without, two: eight utterances of half a second, three readers."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 8000)
    kind, subtype = FORMATS[suffix]
    for set_name, chapters in (sets or LINES).items():
        for chapter, texts in chapters.items():
            place = folder / set_name / chapter.replace("-", "/")
            place.mkdir(parents=True)
            lines = [f"{chapter}-{number:04d} {text}\n" for number, text in enumerate(texts)]
            (place / f"{chapter}.trans.txt").write_text("".join(lines))
            for line in lines:
                audio = place / f"{line.split()[0]}{suffix}"
                soundfile.write(audio, noise, 16000, format=kind, subtype=subtype)
    (folder / "SPEAKERS.TXT").write_text("; readers\n")
    return folder


def prepare(
    folder: Path, *options: object, recipe: str = "librispeech"
) -> subprocess.CompletedProcess:
    """Run local/data.sh from the recipe folder, its output below `folder`."""
    command = ["local/data.sh", "--data_dir", folder / "data", "--download-dir", folder / "dl"]
    return subprocess.run(
        [str(word) for word in (*command, *options)],
        cwd=RECIPES[recipe],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def main(monkeypatch):
    """The program of local/data.sh, in this process."""
    monkeypatch.syspath_prepend(LOCAL)
    from prepare import main

    yield main
    for name in ("prepare", "layout", "published", "subsets"):
        sys.modules.pop(name, None)


@pytest.fixture
def published(main):
    """The table of published sets, which a test may change: the module is loaded for it alone."""
    from published import PUBLISHED

    return PUBLISHED


@pytest.mark.parametrize("suffix", FORMATS)
def test_data_dirs_by_hand(tmp_path, main, suffix):
    corpus = build_corpus(tmp_path / "LibriSpeech", suffix=suffix)
    data = tmp_path / "data"

    options = ["--corpus", str(corpus), "--data_dir", str(data), "--expect_official", "no"]
    assert main([*options, "--sets", "dev-clean", "train-own"]) == 0

    assert (data / "dev-clean/text").read_text() == (
        "84-121123-0000 GO\n84-121123-0001 DO YOU HEAR\n84-121550-0000 BUT WITH FULL RAVISHMENT\n"
        "84-121550-0001 ALL WATERS\n84-121550-0002 SO I\n8455-210777-0000 I REMAINED THERE ALONE\n"
    )
    assert (data / "dev-clean/spk2utt").read_text() == (
        "84 84-121123-0000 84-121123-0001 84-121550-0000 84-121550-0001 84-121550-0002\n"
        "8455 8455-210777-0000\n"
    )
    audio = corpus / "train-own/103/1240"
    assert (data / "train-own/wav.scp").read_text() == (
        f"103-1240-0000 {audio}/103-1240-0000{suffix}\n103-1240-0001 {audio}/103-1240-0001{suffix}\n"
    )
    assert (data / "train-own/text").read_text() == (
        "103-1240-0000 MISSUS RACHEL LYNDE'S\n103-1240-0001 'TIS\n"
    )
    assert (data / "train-own/utt2spk").read_text() == "103-1240-0000 103\n103-1240-0001 103\n"


@pytest.mark.parametrize("recipe", RECIPES)
def test_data_sh_takes_sets_as_words_or_one_word(tmp_path, recipe):
    build_corpus(tmp_path / "got" / "LibriSpeech")

    done = prepare(
        tmp_path,
        *("--corpus", tmp_path / "got", "--expect_official", "no"),  # the folder above will do
        *("--sets", "train-own dev-clean", "train-own"),
        recipe=recipe,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{tmp_path}/data/train-own: 2 utterances, 1 speakers, 4 words\n"
        f"{tmp_path}/data/dev-clean: 6 utterances, 2 speakers, 16 words\n"
    )
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["dev-clean", "train-own"]
    assert not (tmp_path / "dl").exists()


def test_wav_scp_is_right_from_every_folder(tmp_path, main, monkeypatch):
    build_corpus(tmp_path / "LibriSpeech")
    monkeypatch.chdir(tmp_path)

    assert main(["--corpus", "LibriSpeech", "--sets", "train-own"]) == 0

    audio = (tmp_path / "data/train-own/wav.scp").read_text().split()[1]
    assert audio == str(tmp_path / "LibriSpeech/train-own/103/1240/103-1240-0000.flac")


def test_set_under_a_published_name_is_counted(tmp_path, main, capsys):
    corpus = build_corpus(tmp_path / "LibriSpeech")

    options = ["--corpus", str(corpus), "--data_dir", str(tmp_path / "data")]
    assert main([*options, "--sets", "train-own", "dev-clean"]) == 2

    error = capsys.readouterr().err
    assert f"{corpus}/dev-clean: 6 utterances, the published dev-clean has 2703" in error
    assert "--expect_official no" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_speakers_and_words_are_counted_too(tmp_path, main, published, capsys):
    corpus = build_corpus(tmp_path / "LibriSpeech")
    counts = published["dev-clean"].counts
    options = ["--corpus", str(corpus), "--data_dir", str(tmp_path / "data"), "--sets", "dev-clean"]

    counts |= {"utterances": 6, "speakers": 2, "words": 17}
    assert main(options) == 2
    assert "16 words, the published dev-clean has 17" in capsys.readouterr().err
    counts |= {"words": 16}
    assert main(options) == 0


def test_published_sets_have_the_known_sizes(published):
    words = {name: entry.counts.get("words") for name, entry in published.items()}
    assert {name: words[name] for name in words if words[name]} == {
        "dev-clean": 54402,
        "dev-other": 50948,
        "test-clean": 52576,
        "test-other": 52343,
        "train-clean-5": 52766,
    }
    large = [entry for entry in published.values() if entry.resource == 12]
    assert sum(entry.counts["utterances"] for entry in large) == 292367  # of the whole corpus
    assert all(len(entry.sha256) == 64 for entry in large)
    small = [entry for entry in published.values() if entry.resource == 31]
    assert [len(entry.md5) for entry in small] == [32, 32]


def prepare_subsets(main, tmp_path: Path, *, table: str, listed: str) -> int:
    """Make `part`, a subset of dev-clean, by a table and the list beside it."""
    corpus = build_corpus(tmp_path / "LibriSpeech")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "subsets").write_text(table)
    (lists / "part.list").write_text(listed)
    options = ["--corpus", str(corpus), "--data_dir", str(tmp_path / "data")]
    options += ["--expect_official", "no", "--subsets", str(lists / "subsets")]
    return main([*options, "--sets", "part", "train-own"])


@pytest.mark.parametrize(
    ("rule", "listed", "left"),
    [
        ("keep", "84-121550-0002\n84-121123-0000\n", ["84-121123-0000", "84-121550-0002"]),
        ("keep", "8455\n\n84-121550-0001\n", ["84-121550-0001", "8455-210777-0000"]),
        ("drop", "84\n", ["8455-210777-0000"]),
    ],
    ids=["utterances", "a speaker too", "drop"],
)
def test_subset_is_a_set_of_its_own(tmp_path, main, rule, listed, left):
    table = f"# name, whole, rule, list\n\npart dev-clean {rule} part.list\n"

    assert prepare_subsets(main, tmp_path, table=table, listed=listed) == 0

    lines = (tmp_path / "data/part/text").read_text().splitlines()
    assert [line.split()[0] for line in lines] == left
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["part", "train-own"]


@pytest.mark.parametrize(
    ("table", "listed", "message"),
    [
        ("part dev-clean part.list\n", "84\n", "subsets:1: 'part dev-clean part.list' is not NAME"),
        ("\npart dev-clean have part.list\n", "84\n", "subsets:2: 'part dev-clean have"),
        (
            "part dev-clean keep part.list\n",
            "84\n103-1240-0000\n",
            "part.list:2: '103-1240-0000' is no utterance and no speaker of dev-clean",
        ),
        ("part dev-clean keep other.list\n", "84\n", "other.list"),
        ("part dev-other keep part.list\n", "84\n", "no set 'dev-other', there are"),
        ("other dev-clean keep part.list\n", "84\n", "no set 'part', there are"),
        ("part dev-clean keep part.list\n", "", "no utterances to write"),
    ],
    ids=["fields", "rule", "unknown name", "no list", "no whole", "not in the table", "empty"],
)
def test_fault_of_a_subset_is_one_line(tmp_path, main, capsys, table, listed, message):
    assert prepare_subsets(main, tmp_path, table=table, listed=listed) == 2

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


CHAPTER = "dev-clean/84/121550"
TRANSCRIPTS = f"{CHAPTER}/84-121550.trans.txt"


def _remove(file):
    return lambda corpus: (corpus / file).unlink()


def _rename(file, new):
    return lambda corpus: (corpus / file).rename(corpus / new)


def _copy(file, new):
    def change(corpus):
        (corpus / new).parent.mkdir(parents=True, exist_ok=True)
        (corpus / new).write_bytes((corpus / file).read_bytes())

    return change


def _replace(old, new):
    def change(corpus):
        text = (corpus / TRANSCRIPTS).read_text()
        assert old in text
        (corpus / TRANSCRIPTS).write_bytes(text.replace(old, new).encode("latin1"))

    return change


FAULTS = {
    "no audio": (
        _remove(f"{CHAPTER}/84-121550-0001.flac"),
        "84-121550.trans.txt:2: no audio",
    ),
    "no line": (
        _replace("84-121550-0001 ALL WATERS\n", ""),
        "84-121550-0001.flac: '84-121550-0001' has no line in",
    ),
    "no transcripts": (
        _remove(TRANSCRIPTS),
        "84-121550.trans.txt: no such file: every chapter has its transcripts",
    ),
    "no words": (
        _replace("-0001 ALL WATERS", "-0001"),
        "84-121550.trans.txt:2: '84-121550-0001' has no words",
    ),
    "blank line": (
        _replace("ALL WATERS\n", "ALL WATERS\n\n"),
        "84-121550.trans.txt:3: '', expected a line like '84-121550-0000 AND SO ON'",
    ),
    "id of another chapter": (
        _replace("84-121550-0001", "84-121551-0001"),
        "84-121550.trans.txt:2: '84-121551-0001 ALL WATERS', expected a line like '84-121550-0000",
    ),
    "path for an id": (
        _replace("84-121550-0001", "84-121550-../../x"),
        "84-121550.trans.txt:2: '84-121550-../../x ALL WATERS', expected a line like",
    ),
    "duplicate": (
        _replace("84-121550-0001", "84-121550-0000"),
        "84-121550.trans.txt:2: duplicate '84-121550-0000'",
    ),
    "two files": (
        _copy(f"{CHAPTER}/84-121550-0001.flac", f"{CHAPTER}/84-121550-0001.wav"),
        "84/121550: two audio files of one utterance, 84-121550-0001.flac and 84-121550-0001.wav",
    ),
    "small letters": (
        _replace("ALL WATERS", "ALL waters"),
        "84-121550.trans.txt:2: 'w' in the transcript of '84-121550-0001', expected capital",
    ),
    "full stop": (
        _replace("SO I", "SO I."),
        "84-121550.trans.txt:3: '.' in the transcript of '84-121550-0002', expected capital",
    ),
    "tab": (
        _replace("84-121550-0002 SO I", "84-121550-0002\tSO I"),
        "84-121550.trans.txt:3: '84-121550-0002 SO I', expected a line like",
    ),
    "bytes of another encoding": (
        _replace("SO I", "SO \xc9"),
        "84-121550.trans.txt:3: byte 0xc9 is not UTF-8",
    ),
    "carriage return": (
        _replace("WATERS\n", "WATERS\r\n"),
        "84-121550.trans.txt:2: carriage return",
    ),
    "empty chapter": (
        lambda corpus: (corpus / "dev-clean/84/5").mkdir(),
        "dev-clean/84/5/84-5.trans.txt: no such file: every chapter has its transcripts",
    ),
    "flat folder": (
        lambda corpus: (corpus / "dev-clean").rename(corpus / "84"),
        "no set 'dev-clean', there are: 84, train-own",
    ),
    "odd folder": (
        lambda corpus: (corpus / "dev-clean/84").rename(corpus / "dev-clean/84-old"),
        "dev-clean: a folder '84-old', expected <speaker>/<chapter>/<speaker>-<chapter>.trans.txt",
    ),
    "audio without folders": (
        lambda corpus: [
            (corpus / "dev-clean").rename(corpus / "old"),
            (corpus / "dev-clean").mkdir(),
            _copy("old/84/121550/84-121550-0001.flac", "dev-clean/84-121550-0001.flac")(corpus),
        ],
        "dev-clean: no utterances, expected <speaker>/<chapter>/",
    ),
    "utterance in two sets": (
        lambda corpus: [
            _copy(f"{CHAPTER}/{name}", f"train-own/84/121550/{name}")(corpus)
            for name in [path.name for path in (corpus / CHAPTER).iterdir()]
        ],
        "utterance '84-121550-0000' is in train-own and in dev-clean; leave one set out",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_one_line_with_its_place(tmp_path, main, capsys, fault):
    corpus = build_corpus(tmp_path / "LibriSpeech")
    change, message = FAULTS[fault]
    change(corpus)

    options = ["--corpus", str(corpus), "--data_dir", str(tmp_path / "data")]
    status = main([*options, "--expect-official", "no", "--sets", "train-own", "dev-clean"])

    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_files_that_are_no_audio_are_left_alone(tmp_path, main):
    corpus = build_corpus(tmp_path / "LibriSpeech")
    for name in ("README", "84-121550-0000.normalized.txt", "._84-121550-0000.flac"):
        (corpus / CHAPTER / name).write_text("x")
    (corpus / "dev-clean/.cache").mkdir()

    options = ["--corpus", str(corpus), "--data_dir", str(tmp_path / "data")]
    assert main([*options, "--expect_official", "no", "--sets", "dev-clean"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corpus", "/absent", "--sets", "dev-clean"], "no such folder: --corpus /absent"),
        (["--corpus", "{corpus}"], "the following arguments are required: --sets"),
        (
            ["--corpus", "{corpus}", "--sets", "dev-other"],
            "LibriSpeech: no set 'dev-other', there are: dev-clean, train-own",
        ),
        (
            ["--corpus", "{corpus}", "--sets", "../LibriSpeech"],
            "LibriSpeech: no set '../LibriSpeech', there are",
        ),
        (["--corpus", "{corpus}", "--sets", " "], "--sets names no set"),
        (
            ["--sets", "dev-clean", "train-clean-more"],
            "unknown published set 'train-clean-more' (did you mean 'train-clean-",
        ),
    ],
    ids=["corpus", "no sets", "absent", "outside", "blank", "unpublished"],
)
def test_wrong_options_are_one_line(tmp_path, main, capsys, monkeypatch, options, message):
    corpus = build_corpus(tmp_path / "LibriSpeech")
    monkeypatch.chdir(tmp_path)

    try:
        status = main([word.format(corpus=corpus) for word in options])
    except SystemExit as end:  # argparse's own
        status = end.code

    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["LibriSpeech"]


@pytest.fixture
def server(tmp_path, file_server, published):
    """A server of two tiny sets under published names, 12/dev-clean and 31/train-clean-5."""
    corpus = build_corpus(tmp_path / "source" / "LibriSpeech")
    (corpus / "train-own").rename(corpus / "train-clean-5")
    for name, resource in (("dev-clean", 12), ("train-clean-5", 31)):
        archive = tmp_path / f"{name}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(corpus / "SPEAKERS.TXT", "LibriSpeech/SPEAKERS.TXT")
            tar.add(corpus / name, f"LibriSpeech/{name}")
        raw = archive.read_bytes()
        file_server.files[f"{resource}/{name}.tar.gz"] = raw
        entry = published[name]
        published[name] = type(entry)(
            resource=resource,
            sha256=hashlib.sha256(raw).hexdigest() if resource == 12 else None,
            md5=hashlib.md5(raw).hexdigest() if resource == 31 else None,
            size_bytes=len(raw) if resource == 31 else None,
        )
    return file_server


def download(main, server, folder: Path, *sets: str) -> int:
    options = ["--mirror", f"{server.url}/", "--data_dir", str(folder / "data")]
    return main([*options, "--download_dir", str(folder / "dl"), "--sets", *sets])


def test_download_and_prepare_once(tmp_path, main, server):
    assert download(main, server, tmp_path, "train-clean-5", "dev-clean") == 0
    assert download(main, server, tmp_path, "train-clean-5", "dev-clean") == 0

    asked = [path for path, _ in server.requests]
    assert asked == ["31/train-clean-5.tar.gz", "12/dev-clean.tar.gz"]
    unpacked = tmp_path / "dl" / "LibriSpeech"
    assert sorted(path.name for path in unpacked.iterdir()) == ["dev-clean", "train-clean-5"]
    audio = (tmp_path / "data/train-clean-5/wav.scp").read_text().split()[1]
    assert audio == str(unpacked / "train-clean-5/103/1240/103-1240-0000.flac")
    # what was downloaded is a corpus like any other
    options = ["--corpus", str(tmp_path / "dl"), "--data_dir", str(tmp_path / "again")]
    assert main([*options, "--sets", "dev-clean"]) == 0


def test_wrong_archive_is_one_line_and_nothing_is_kept(tmp_path, main, server, capsys):
    raw = server.files["12/dev-clean.tar.gz"]
    server.files["12/dev-clean.tar.gz"] = raw[:-1] + b"?"

    assert download(main, server, tmp_path, "dev-clean") == 2

    error = capsys.readouterr().err
    assert f"expected {hashlib.sha256(raw).hexdigest()}; it has been removed" in error
    assert "--corpus DIR" in error
    assert error.count("\n") == 1
    assert list((tmp_path / "dl").iterdir()) == []
    assert not (tmp_path / "data").exists()


def test_first_set_stays_when_the_second_is_refused(tmp_path, main, server, capsys):
    del server.files["12/dev-clean.tar.gz"]

    assert download(main, server, tmp_path, "train-clean-5", "dev-clean") == 2

    assert "the server answers 404 Not Found; give a copy" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "dl/LibriSpeech").iterdir()] == ["train-clean-5"]
    assert not (tmp_path / "data").exists()


def test_killed_while_unpacking_leaves_no_set(tmp_path, main, server, monkeypatch):
    whole, copied = shutil.copyfileobj, []

    def stop_at_the_second(source, copy):
        if copied:
            raise KeyboardInterrupt
        copied.append(whole(source, copy))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfileobj", stop_at_the_second)
        download(main, server, tmp_path, "dev-clean")

    assert list((tmp_path / "dl/LibriSpeech").iterdir()) == []
    assert download(main, server, tmp_path, "dev-clean") == 0
    assert len(server.requests) == 1  # the archive was whole


# To train on, to validate on, to test on; to pre-train on, to validate that on.
PARTS = "train-clean-5 / dev-clean-part / test-clean-part / "
PARTS += "train-clean-5 train-clean-more-rest / pretrain-dev"
OFFICIAL = "train-clean-5 / dev-clean-2 /  / train-clean-5 / dev-clean-2"


@pytest.fixture
def places(tmp_path):
    """Folders as users have them, below tmp_path."""
    for folder in ("parts", "above/LibriSpeech", "prepared"):
        (tmp_path / folder / "dev-clean-part").mkdir(parents=True)
    for folder in ("official", "empty"):
        (tmp_path / folder / "dev-clean-2").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "sets"),
    [
        ("--corpus parts", PARTS),
        ("--stage 2 --corpus=parts --nj 1", PARTS),
        ("--corpus official --corpus parts", PARTS),  # the last one counts
        ("--corpus above", PARTS),
        ("--corpus parts/../official", OFFICIAL),
        ("--corpus official --datadir prepared", OFFICIAL),
        ("--datadir prepared", PARTS),
        ("--datadir empty --model m.esp", OFFICIAL),
        ("", OFFICIAL),
    ],
)
def test_mini_chooses_the_sets_that_are_there(places, arguments, sets):
    script = """
        set -euo pipefail
        recipe=$PWD/recipe
        source "$0"
        echo "$train_sets / $dev_sets / $test_sets / $pretrain_sets / $pretrain_dev_sets"
    """
    choose = RECIPES["mini_librispeech"] / "local" / "choose_sets.sh"
    done = subprocess.run(
        ["bash", "-c", script, str(choose), *arguments.split()],
        cwd=places,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{sets}\n", done.stderr


def test_mini_run_sh_goes_on_with_what_is_prepared(tmp_path):
    scored = ("dev-clean-part", "test-clean-part")
    for name in ("train-clean-5", "train-clean-more-rest", "pretrain-dev", *scored):
        (tmp_path / "prepared" / name).mkdir(parents=True)

    done = subprocess.run(
        [
            str(RECIPES["mini_librispeech"] / "run.sh"),
            *("--datadir", "prepared", "--dry_run", "--stop_stage", "dump"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert "stage 1 data: up to date" in done.stdout
    assert "prepared/test-clean-part" in done.stdout
