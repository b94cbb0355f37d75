"""The synthesised corpus: what is planned, and that it comes out the same in every process."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

RECIPE = Path(__file__).parents[2] / "egs" / "mini" / "asr1"


def make(data: Path, *options: object, python_path: Path | None = None):
    """Run local/data.sh from the recipe folder, its output in `data`."""
    environment = os.environ | {"PYTHON": sys.executable}
    if python_path:
        environment["PYTHONPATH"] = str(python_path)
    return subprocess.run(
        [str(word) for word in ("local/data.sh", "--data_dir", data, *options)],
        cwd=RECIPE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def counts(train: int, dev: int, test: int) -> list[str]:
    return [
        f"--train_utterances={train}",
        f"--dev_utterances={dev}",
        f"--test_utterances={test}",
    ]


def digests(data: Path) -> dict[str, str]:
    """Return sha256 of every file below `data`, wav.scp with the folder's name taken out."""
    found = {}
    for path in sorted(data.rglob("*")):
        if path.is_file():
            content = path.read_bytes().replace(str(data).encode(), b"DATA")
            found[str(path.relative_to(data))] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture
def local(monkeypatch):
    """The recipe's own modules, importable for one test."""
    monkeypatch.syspath_prepend(RECIPE / "local")
    yield
    for name in ("espeak", "sentences", "synthesize"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Six, two and two utterances, made by the recipe's own command."""
    pytest.importorskip("espeakng_loader")
    data = tmp_path_factory.mktemp("mini") / "data"
    done = make(data, *counts(6, 2, 2))
    assert done.returncode == 0, done.stderr
    return data


def test_two_runs_are_the_same_bit_for_bit(small, tmp_path):
    again = tmp_path / "data"

    done = make(again, *counts(6, 2, 2))

    assert done.returncode == 0, done.stderr
    assert digests(again) == digests(small)
    assert len(list(again.rglob("*.flac"))) == 10


def test_small_set_is_the_beginning_of_a_larger_one(small, tmp_path):
    command = [sys.executable, "local/synthesize.py", "--set=train", f"--data_dir={tmp_path}"]
    subprocess.run(
        [*command, "--train-utterances", "3"],
        cwd=RECIPE,
        env=os.environ | {"PYTHONPATH": str(RECIPE.parents[2])},
        check=True,
    )

    audio = list((tmp_path / "audio" / "train").iterdir())
    assert len(audio) == 3
    for path in audio:
        assert path.read_bytes() == (small / "audio" / "train" / path.name).read_bytes()


def test_tables_and_audio_agree(small):
    for name, count in (("train", 6), ("dev", 2), ("test", 2)):
        rows = [
            line.split(maxsplit=1)
            for line in (small / name / "wav.scp").read_text().split("\n")
            if line
        ]
        texts = dict(
            line.split(maxsplit=1)
            for line in (small / name / "text").read_text().split("\n")
            if line
        )
        assert [key for key, _ in rows] == sorted(texts)
        assert len(rows) == count
        for key, path in rows:
            info = soundfile.info(path)
            assert (info.samplerate, info.channels, info.subtype) == (22050, 1, "PCM_16")
            # 3 to 10 words at 105 to 150 words a minute, and up to 0.6 s of silence
            assert 0.15 < info.duration / len(texts[key].split()) < 1.3
            samples, _ = soundfile.read(path)
            assert 0.29 < np.abs(samples).max() < 0.91
            assert np.sqrt(np.mean(samples**2)) > 0.01


def test_full_plan_by_brute_force(local):
    from sentences import VOICES, WORDS
    from synthesize import check_plan, plan

    check_plan()
    plans = {name: plan(name) for name in ("train", "dev", "test")}
    assert {name: len(lines) for name, lines in plans.items()} == {
        "train": 520,
        "dev": 56,
        "test": 84,
    }
    sentences = [line.text for lines in plans.values() for line in lines if " " in line.text]
    assert len(set(sentences)) == len(sentences) == 280 + 56 + 84
    alone = Counter(line.text for line in plans["train"] if " " not in line.text)
    assert alone == dict.fromkeys(WORDS, 4)
    ids = [line.id for lines in plans.values() for line in lines]
    assert len(set(ids)) == len(ids)
    variants = [{voice.variant for voice in VOICES[name]} for name in plans]
    assert sum(map(len, variants)) == len(set.union(*variants))
    spoken = Counter(word for line in plans["train"] for word in line.text.split())
    assert set(spoken) == set(WORDS)
    assert len(WORDS) == 60
    assert min(spoken.values()) >= 15
    for line in (line for lines in plans.values() for line in lines):
        assert line.id.startswith(line.voice.speaker + "-")
        assert line.text in WORDS or 3 <= len(line.text.split()) <= 10


def test_plan_is_the_same_everywhere(local):
    """Sentences are drawn from random.random() alone: this digest holds for every Python."""
    from synthesize import plan

    text = "\n".join(
        f"{line.id} {line.text}" for name in ("train", "dev", "test") for line in plan(name)
    )
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "500f4f12aff003da022a51c8679450fbdbfe3d439088173f6ebae8cfe58c1317"
    )


def test_facts_that_do_not_hold_stop_the_run(local, monkeypatch):
    import synthesize

    wrong = synthesize.Facts(sentences=56, words_alone=0, words=394, speakers=4, minutes=(2, 4))
    monkeypatch.setitem(synthesize.FACTS, "dev", wrong)
    with pytest.raises(AssertionError, match="dev: 395 words, expected 394"):
        synthesize.check_plan()


def test_noise_has_its_level_and_colour(local):
    """Fit the known tone to each output: what is left over is the noise that was added."""
    from sentences import VOICES
    from synthesize import NOISY, SNR_DB, Line, finish

    rate = 22050
    tone = np.rint(8000 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)).astype(np.int16)
    phase = 2 * np.pi * 440 * np.arange(rate) / rate
    waves = np.stack([np.sin(phase), np.cos(phase)])
    ratios, slopes = [], []
    for index in range(60):
        line = Line(f"tone-{index:04d}", "a tone", VOICES["train"][0])
        out = finish(tone, line, rate).astype(float)
        assert 0.3 * 32767 - 1 <= np.abs(out).max() <= 0.9 * 32767 + 1
        part = out[rate // 2 : rate // 2 + rate]  # within the tone, whatever silence came before
        fitted = waves.T @ (np.linalg.lstsq(waves.T, part, rcond=None)[0])
        rest = part - fitted
        ratio = 10 * np.log10(np.sum(fitted**2) / np.sum(rest**2))
        if ratio < 40:  # below it only rounding to 16 bits is left
            ratios.append(ratio)
            power = np.abs(np.fft.rfft(rest)) ** 2
            slopes.append(10 * np.log10(power[100:1000].mean() / power[10000:20000].mean()))
    assert abs(len(ratios) / 60 - NOISY) < 0.2
    assert SNR_DB[0] - 0.5 < min(ratios) and max(ratios) < SNR_DB[1] + 0.5
    assert all(abs(slope) < 1.5 or slope > 10 for slope in slopes)  # white is flat, pink falls
    assert any(slope > 10 for slope in slopes) and any(slope < 1.5 for slope in slopes)


@pytest.mark.parametrize(
    ("samples", "words"), [(np.zeros(40000, np.int16), "RMS 0.0000"), (np.full(100, 9000), "in 0.")]
)
def test_speech_that_is_none_is_named(local, samples, words):
    from sentences import VOICES
    from synthesize import Line, finish

    from espnet_lite.errors import InputError

    line = Line("spk-0001", "open the window", VOICES["train"][0])
    with pytest.raises(InputError, match=rf"spk-0001: .*'open the window'.*{words}"):
        finish(samples, line, 22050)


def test_missing_wheel_names_the_command(tmp_path):
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError('not here')\n")

    done = make(tmp_path / "data", python_path=tmp_path)

    assert done.returncode == 2
    assert "espeakng-loader is not installed" in done.stderr
    assert "python -m pip install espeakng-loader" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_long_path_of_the_wheel_works(tmp_path, small):
    """espeak-ng cuts paths at 160 bytes, and virtual environments can lie deep."""
    real = pytest.importorskip("espeakng_loader")
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / "espeak-ng-data").symlink_to(real.get_data_path())
    (tmp_path / "espeakng_loader.py").write_text(
        f"def get_library_path():\n    return {real.get_library_path()!r}\n"
        f"def get_data_path():\n    return {str(deep / 'espeak-ng-data')!r}\n"
    )

    done = make(tmp_path / "data", *counts(1, 1, 1), python_path=tmp_path)

    assert done.returncode == 0, done.stderr
    made = next((tmp_path / "data/audio/train").iterdir())
    assert made.read_bytes() == (small / "audio/train" / made.name).read_bytes()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--corpus=/some/where", "--corpus /some/where: the mini corpus is synthesised here"),
        ("--train-utterances=521", "--train_utterances 521, expected 1 to 520"),
        ("--dev_utterances=0", "--dev_utterances 0, expected 1 to 56"),
        ("--nj=2", "unknown option '--nj'"),
    ],
)
def test_options_that_are_refused(tmp_path, option, message):
    done = make(tmp_path / "data", option)

    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "data").exists()


def test_help_is_the_header(tmp_path):
    done = make(tmp_path, "--help")

    assert done.returncode == 0
    assert "--train_utterances N" in done.stdout
