"""Audio that a browser plays is pointed at; of the rest there are copies with the same samples."""

import os
import urllib.parse
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from espnet_lite.data.data_dir import Utterance
from espnet_lite.report.audio_files import audio_addresses

SAMPLES = np.arange(-800, 800, dtype=np.int16)


def utterance(name: str, audio: object, start: float | None = None, end: float | None = None):
    return Utterance(name, str(audio), start, end, None, "s", None)


def addresses(folder: Path, *utterances: Utterance) -> dict[str, str]:
    page = folder / "exp" / "report.html"
    by_id = {one.id: one for one in utterances}
    return audio_addresses(by_id, page=page, copies=page.parent / "report_audio" / "dev")


def samples_at(folder: Path, address: str) -> np.ndarray:
    path = folder / "exp" / urllib.parse.unquote(address)
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 16000
    return samples


@pytest.fixture
def audio(tmp_path):
    """Return a writer of the samples: format to path."""
    (tmp_path / "exp").mkdir()

    def write(name: str, **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, SAMPLES, 16000, **options)
        return path

    return write


@pytest.mark.parametrize("name", ["a b#1?.wav", "a.flac", "a.ogg", "a.mp3", "über/a%20.wav"])
def test_what_a_browser_plays_is_pointed_at(tmp_path, audio, name):
    path = audio(name)
    found = addresses(tmp_path, utterance("u", path))
    assert found == {"u": urllib.parse.quote(f"../{name}")}
    assert not (tmp_path / "exp" / "report_audio").exists()


def test_sphere_is_copied_once(tmp_path, audio):
    path = audio("a.WAV", format="NIST", subtype="PCM_16")  # the name that TIMIT gives to SPHERE
    found = addresses(tmp_path, utterance("s/1", path))
    copy = tmp_path / "exp" / "report_audio" / "dev" / "s%2F1.flac"
    assert found == {"s/1": "report_audio/dev/s%252F1.flac"}
    np.testing.assert_array_equal(samples_at(tmp_path, found["s/1"]), SAMPLES)
    before = copy.stat().st_mtime_ns
    addresses(tmp_path, utterance("s/1", path))
    assert copy.stat().st_mtime_ns == before
    os.utime(path, (copy.stat().st_mtime + 10,) * 2)
    addresses(tmp_path, utterance("s/1", path))
    assert copy.stat().st_mtime_ns != before


def test_a_segment_and_an_archive_are_copied(tmp_path, audio):
    path = audio("a.wav")
    kaldiio.save_ark(str(tmp_path / "a.ark"), {"k": (16000, SAMPLES)}, scp=str(tmp_path / "scp"))
    [entry] = [line.split()[1] for line in (tmp_path / "scp").read_text().splitlines()]
    found = addresses(tmp_path, utterance("cut", path, 0.01, 0.05), utterance("ark", entry))
    np.testing.assert_array_equal(samples_at(tmp_path, found["cut"]), SAMPLES[160:800])
    np.testing.assert_array_equal(samples_at(tmp_path, found["ark"]), SAMPLES)


def test_what_is_not_there_or_cannot_be_read_has_no_address(tmp_path):
    (tmp_path / "exp").mkdir()
    (tmp_path / "text.wav").write_text("no audio at all")
    wanted = [
        utterance("gone", tmp_path / "gone.wav"),
        utterance("pipe", "touch ran |"),
        utterance("text", tmp_path / "text.wav"),
    ]
    assert addresses(tmp_path, *wanted) == {}
    assert not (tmp_path / "exp" / "report_audio").exists()
