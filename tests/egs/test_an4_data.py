"""AN4: a tiny corpus in the official layout, the faults a user meets, and the download."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "egs" / "an4" / "asr1"
LINES = {  # fash stays in train; mblw and ffmm are dev speakers; mdcs sorts before mdcs2
    "train": [
        ("an4_clstk/fash/an251-fash-b", "YES"),
        ("an4_clstk/fash/cen1-fash-b", "ONE FIVE TWO"),
        ("an4_clstk/mdcs2/an9-mdcs2-b", "STOP"),
        ("an4_clstk/mdcs/an8-mdcs-b", "GO"),
        ("an4_clstk/mblw/cen5-mblw-b", "M I L W"),
        ("an4_clstk/ffmm/cen7-ffmm-b", "APOSTROPHE S"),
    ],
    "test": [("an4test_clstk/fcaw/an406-fcaw-b", "RUBOUT G M E F THREE NINE")],
}
FORMATS = {".flac": "FLAC", ".sph": "NIST", ".wav": "WAV"}


def build_corpus(folder: Path, *, suffix: str = ".flac", has_marks: bool = True) -> Path:
    """Make a corpus of seven half-second utterances; with marks as in the SPHERE release."""
    (folder / "etc").mkdir(parents=True)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 8000)
    for part, lines in LINES.items():
        file_ids = "".join(f"{path}\n" for path, _ in lines)
        (folder / "etc" / f"an4_{part}.fileids").write_text(file_ids)
        texts = ""
        for path, text in lines:
            marked = f"<s> {text} </s>" if has_marks and part == "train" else text
            texts += f"{marked} ({Path(path).name})\n"
            audio = folder / "wav" / f"{path}{suffix}"
            audio.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(audio, noise, 16000, format=FORMATS[suffix], subtype="PCM_16")
        (folder / "etc" / f"an4_{part}.transcription").write_text(texts)
    return folder


def prepare(folder: Path, *options: object) -> subprocess.CompletedProcess:
    """Run local/data.sh from the recipe folder, its output below `folder`."""
    command = ["local/data.sh", "--data_dir", folder / "data", "--download-dir", folder / "dl"]
    return subprocess.run(
        [str(word) for word in (*command, *options)],
        cwd=RECIPE,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def local(monkeypatch):
    """The folder of the recipe's own modules, importable for one test."""
    monkeypatch.syspath_prepend(RECIPE / "local")
    yield
    sys.modules.pop("prepare", None)


@pytest.mark.parametrize(("suffix", "has_marks"), [(".flac", False), (".sph", True)])
def test_data_dirs_by_hand(tmp_path, suffix, has_marks):
    corpus = build_corpus(tmp_path / "an4", suffix=suffix, has_marks=has_marks)

    done = prepare(tmp_path, "--corpus", corpus, "--expect_official", "no")

    assert done.returncode == 0, done.stderr
    data = tmp_path / "data"
    assert (data / "train/text").read_text() == (
        "fash-an251-b YES\nfash-cen1-b ONE FIVE TWO\nmdcs-an8-b GO\nmdcs2-an9-b STOP\n"
    )
    assert (data / "train/spk2utt").read_text() == (
        "fash fash-an251-b fash-cen1-b\nmdcs mdcs-an8-b\nmdcs2 mdcs2-an9-b\n"
    )
    assert (data / "dev/text").read_text() == "ffmm-cen7-b APOSTROPHE S\nmblw-cen5-b M I L W\n"
    assert (data / "dev/utt2spk").read_text() == "ffmm-cen7-b ffmm\nmblw-cen5-b mblw\n"
    assert (data / "test/text").read_text() == "fcaw-an406-b RUBOUT G M E F THREE NINE\n"
    audio = corpus / "wav" / "an4test_clstk" / "fcaw" / f"an406-fcaw-b{suffix}"
    assert (data / "test/wav.scp").read_text() == f"fcaw-an406-b {audio}\n"
    assert "test: 1 utterances, 1 speakers, 7 words" in done.stdout


def test_unlabelled_folder_is_a_set_without_texts(tmp_path):
    corpus = build_corpus(tmp_path / "an4")
    chapter = tmp_path / "speech" / "84" / "121550"
    chapter.mkdir(parents=True)
    (chapter / "84-121550.trans.txt").write_text("84-121550-0000 GO\n")
    for name in ("84-121550-0000.flac", "84-121550-0001.flac"):
        soundfile.write(chapter / name, np.zeros(8000), 16000)
    soundfile.write(tmp_path / "speech" / "alone.wav", np.zeros(8000), 16000)

    options = ("--corpus", corpus, "--expect_official", "no")
    done = prepare(tmp_path, *options, "--unlabelled", tmp_path / "speech")

    assert done.returncode == 0, done.stderr
    folder = tmp_path / "data" / "unlabelled"
    ids = [f"121550-84-121550-84-121550-000{number}" for number in (0, 1)]
    assert (folder / "wav.scp").read_text() == (
        f"{ids[0]} {chapter}/84-121550-0000.flac\n{ids[1]} {chapter}/84-121550-0001.flac\n"
        f"alone {tmp_path}/speech/alone.wav\n"
    )
    assert (folder / "utt2spk").read_text() == (f"{ids[0]} 121550\n{ids[1]} 121550\nalone alone\n")
    assert not (folder / "text").exists()
    assert done.stdout.endswith("data/unlabelled: 3 utterances without texts\n")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "speech: no folder, expected a folder of audio files"),
        (lambda folder: folder.mkdir(), "speech: no audio ("),
    ],
    ids=["no folder", "no audio"],
)
def test_unlabelled_folder_that_is_none_is_one_line(tmp_path, make, message):
    corpus = build_corpus(tmp_path / "an4")
    make(tmp_path / "speech")

    options = ("--corpus", corpus, "--expect_official", "no")
    done = prepare(tmp_path, *options, "--unlabelled", tmp_path / "speech")

    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_official_counts_are_checked(tmp_path):
    corpus = build_corpus(tmp_path / "an4")

    done = prepare(tmp_path, "--corpus", corpus)

    assert done.returncode == 2
    assert f"{corpus}: 6 utterances, the published train of AN4 has 948" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


def _remove(file):
    return lambda corpus: (corpus / file).unlink()


def _replace(file, old, new):
    def change(corpus):
        text = (corpus / file).read_text()
        assert old in text
        (corpus / file).write_text(text.replace(old, new))

    return change


def _rename(file, new):
    return lambda corpus: (corpus / file).rename(corpus / new)


FAULTS = {
    "no fileids": (
        _remove("etc/an4_test.fileids"),
        "an4/etc/an4_test.fileids: no such file, so this is not the AN4 corpus",
    ),
    "no transcription": (
        _remove("etc/an4_train.transcription"),
        "an4/etc/an4_train.transcription: no such file, so this is not the AN4 corpus",
    ),
    "no audio": (
        _remove("wav/an4_clstk/fash/cen1-fash-b.flac"),
        "an4_train.fileids:2: no audio",
    ),
    "raw audio": (
        _rename("wav/an4_clstk/fash/cen1-fash-b.flac", "wav/an4_clstk/fash/cen1-fash-b.raw"),
        "cen1-fash-b.raw has no header",
    ),
    "empty transcript": (
        _replace("etc/an4_train.transcription", "ONE FIVE TWO", ""),
        "an4_train.transcription:2: '<s> </s> (cen1-fash-b)', expected capital words",
    ),
    "small letters": (
        _replace("etc/an4_test.transcription", "RUBOUT", "rubout"),
        "an4_test.transcription:1: 'rubout G M E F",
    ),
    "other id": (
        _replace("etc/an4_train.transcription", "cen1-fash-b", "cen2-fash-b"),
        "an4_train.fileids:2: 'cen1-fash-b' has no line in",
    ),
    "more text": (
        _replace("etc/an4_test.transcription", "RUBOUT", "NO (an1-fcaw-b)\nRUBOUT"),
        "an4_test.transcription:1: 'an1-fcaw-b' has no line in",
    ),
    "duplicate text": (
        _replace("etc/an4_train.transcription", "cen1-fash-b", "an251-fash-b"),
        "an4_train.transcription:2: duplicate 'an251-fash-b'",
    ),
    "duplicate file": (
        _replace("etc/an4_train.fileids", "cen1-fash-b", "an251-fash-b"),
        "an4_train.fileids:2: duplicate 'an251-fash-b'",
    ),
    "foreign path": (
        _replace("etc/an4_test.fileids", "an4test_clstk/fcaw", "../../fcaw"),
        "an4_test.fileids:1: '../../fcaw/an406-fcaw-b', expected a line like",
    ),
    "no dev speaker": (
        lambda corpus: (
            [
                _replace(f"etc/an4_train.{kind}", name, other)(corpus)
                for kind in ("fileids", "transcription")
                for name, other in (("cen5-mblw", "cen5-fash"), ("cen7-ffmm", "cen7-fash"))
            ]
            + [
                _replace("etc/an4_train.fileids", f"{name}/", "fash/")(corpus)
                for name in ("mblw", "ffmm")
            ]
            + [
                _rename(
                    f"wav/an4_clstk/{name}/{stem}-{name}-b.flac",
                    f"wav/an4_clstk/fash/{stem}-fash-b.flac",
                )(corpus)
                for name, stem in (("mblw", "cen5"), ("ffmm", "cen7"))
            ]
        ),
        "dev_speakers.txt: no utterances are left for dev of 6 training utterances",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_one_line_with_its_place(tmp_path, local, capsys, fault):
    from prepare import main

    corpus = build_corpus(tmp_path / "an4")
    change, message = FAULTS[fault]
    change(corpus)

    options = ["--corpus", str(corpus), "--expect-official", "no"]
    status = main([*options, "--data_dir", str(tmp_path / "data")])

    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_folder_that_does_not_exist(tmp_path):
    done = prepare(tmp_path, "--corpus", tmp_path / "absent")

    assert done.returncode == 2
    assert f"no such folder: --corpus {tmp_path / 'absent'}" in done.stderr


def test_dev_speakers_are_eight_of_both_sexes():
    speakers = (RECIPE / "local" / "dev_speakers.txt").read_text().split()

    assert speakers == sorted(set(speakers))
    assert [name[0] for name in speakers].count("f") == 2
    assert [name[0] for name in speakers].count("m") == 6


@pytest.fixture
def server(tmp_path, file_server):
    """A server of the tiny corpus as an archive."""
    build_corpus(tmp_path / "source" / "an4", suffix=".sph")
    with tarfile.open(tmp_path / "an4.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "source" / "an4", "an4")
    file_server.files["an4_sphere.tar.gz"] = (tmp_path / "an4.tar.gz").read_bytes()
    return file_server


def test_download_and_prepare_once(tmp_path, server):
    options = ("--url", f"{server.url}/an4_sphere.tar.gz", "--expect_official", "no")

    first = prepare(tmp_path, *options)
    second = prepare(tmp_path, *options)

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert len(server.requests) == 1  # the second run finds the unpacked corpus
    text = (tmp_path / "data/test/text").read_text()
    assert text == "fcaw-an406-b RUBOUT G M E F THREE NINE\n"
    audio = (tmp_path / "data/test/wav.scp").read_text().split()[1]
    assert soundfile.info(audio).format == "NIST"


def test_address_that_does_not_exist(tmp_path, server):
    done = prepare(tmp_path, "--url", f"{server.url}/an4.tar.gz")

    assert done.returncode == 2
    assert "the server answers 404" in done.stderr
    assert "--corpus DIR" in done.stderr
    assert list((tmp_path / "dl").iterdir()) == []


def test_broken_archive_is_one_line_and_fetched_anew(tmp_path, server):
    whole = server.files["an4_sphere.tar.gz"]
    server.files["an4_sphere.tar.gz"] = whole[:-100]
    options = ("--url", f"{server.url}/an4_sphere.tar.gz", "--expect_official", "no")

    broken = prepare(tmp_path, *options)
    server.files["an4_sphere.tar.gz"] = whole
    mended = prepare(tmp_path, *options)

    assert broken.returncode == 2
    assert "an4_sphere.tar.gz: not a whole .tar.gz archive" in broken.stderr
    assert broken.stderr.count("\n") == 1
    assert mended.returncode == 0, mended.stderr
