"""Recordings to text: windows, segments, and the program, with an untrained model of three letters."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from espnet_lite.bin.transcribe import main
from espnet_lite.decode.greedy import ctc_greedy
from espnet_lite.decode.transcriber import Transcriber
from espnet_lite.errors import InputError
from espnet_lite.runtime.format import write_packed
from espnet_lite.runtime.packed_model import PackedModel

TOKENS = ["<blank>", "<unk>", "<space>", "a", "b", "c", "<sos/eos>"]
HEADER = {
    "architecture": {
        "front_end": {"name": "log_mel", "num_mels": 20, "channels": 4},
        "encoder": {
            "name": "sparseformer",
            "dim": 16,
            "layers": 2,
            "heads": 2,
            "feed_forward": 32,
            "window_seconds": 0.12,
        },
        "decoder": None,
        "vocab": len(TOKENS),
    },
    "sample_rate": 16000,
    "policy": {"weights": "fp32", "decoder": False},
    "tokenizer": {"kind": "char", "nlsyms": [], "tokens": TOKENS},
    "record": {"updates": 0},
}
FRAME_SECONDS = 0.04


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Return the packed file of a model of random weights that sees ±0.24 s."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        tensors = PackedModel(HEADER).state_dict()
    tensors["ctc_head.weight"] *= 20  # so that the best token changes from frame to frame
    path = tmp_path_factory.mktemp("packed") / "model.esp"
    write_packed(path, tensors, HEADER)
    return path


def noise(seconds: float, *, rate: int = 16000, seed: int = 0) -> np.ndarray:
    count = int(seconds * rate)
    loudness = 0.1 + 0.09 * np.sin(np.arange(count) / rate * 5)
    return (loudness * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def test_windows_give_what_the_whole_recording_gives(path):
    """Each frame sees 0.24 s and the windows overlap by 1 s."""
    for seconds in (0.05, 0.09, 2.9, 3.0, 5.0, 5.04, 11.3):
        samples = noise(seconds)
        short = Transcriber.load(path, window_seconds=3.0, overlap_seconds=1.0)
        log_probs, lengths = short.model.log_probs(
            torch.from_numpy(samples)[None], torch.tensor([len(samples)])
        )
        (ids,) = ctc_greedy(log_probs, lengths)
        assert [token.id for token in short._tokens(torch.from_numpy(samples))] == ids
        found = short.transcribe(samples)
        assert found.text == " ".join(short.model.tokenizer.decode(ids).split())
        assert found.audio_seconds == pytest.approx(seconds)


def test_segments_are_parted_at_pauses_between_words(path):
    recognizer = Transcriber.load(path)
    space, a, b = (TOKENS.index(token) for token in ("<space>", "a", "b"))
    frames = [a, 0, a, space, b] + [0] * 20 + [space, b, b] + [0] * 20 + [a, 0, 0]
    recognizer._best_ids = lambda samples: torch.tensor(frames)
    found = recognizer.transcribe(noise(2.0))
    assert found.text == "aa b ba"  # no cut within a word, however long the pause
    assert [(s.text, s.start_seconds, s.end_seconds) for s in found.segments] == [
        ("aa b", 0.0, round(5 * FRAME_SECONDS, 3)),
        ("ba", round(25 * FRAME_SECONDS, 3), round(49 * FRAME_SECONDS, 3)),
    ]
    recognizer._best_ids = lambda samples: torch.tensor(([a] * 3 + [space] * 7) * 50)
    long = recognizer.transcribe(noise(20.0)).segments
    assert " ".join(segment.text for segment in long) == " ".join(["a"] * 50)
    assert all(s.end_seconds - s.start_seconds <= 8.0 for s in long)


def test_bad_windows(path):
    with pytest.raises(InputError, match=r"windows of 5 s that overlap by 4 s"):
        Transcriber.load(path, window_seconds=5.0, overlap_seconds=4.0)


def test_files_folders_and_formats(path, tmp_path, capsys):
    folder = tmp_path / "audio"
    (folder / "b").mkdir(parents=True)
    soundfile.write(folder / "b" / "one.flac", noise(2.0), 16000)
    soundfile.write(folder / "two.wav", noise(3.0, rate=8000), 8000)
    soundfile.write(folder / "three.wav", noise(1.0, rate=8000), 8000)
    (folder / "notes.txt").write_text("no audio")
    assert main([str(path), str(folder)]) == 0
    out, err = capsys.readouterr()
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert names == [str(folder / name) for name in ("b/one.flac", "three.wav", "two.wav")]
    said, rtf = err.splitlines()
    assert said == f"{folder / 'three.wav'}: 8000 Hz, resampled to the model's 16000 Hz"
    assert rtf.startswith("3 recordings, 6.0 s of audio in ") and "RTF 0." in rtf

    one = str(folder / "b" / "one.flac")
    assert main([str(path), one, "--format", "json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert (plain["audio"], plain["audio_seconds"]) == (one, 2.0)
    expected = Transcriber.load(path).transcribe(one)
    assert plain["text"] == expected.text != ""
    assert len(plain["segments"]) == len(expected.segments)

    assert main([str(path), one, "--format", "srt", "--output_dir", str(tmp_path / "out")]) == 0
    lines = (tmp_path / "out" / "one.srt").read_text().splitlines()
    assert lines[0] == "1" and lines[1].startswith("00:00:00,") and " --> 00:00:0" in lines[1]
    assert capsys.readouterr().out == ""


def test_raw_samples_on_stdin(path, tmp_path):
    samples = (noise(1.5) * 32768).astype("<i2")
    soundfile.write(tmp_path / "same.wav", samples, 16000)
    command = [sys.executable, "-m", "espnet_lite.bin.transcribe", str(path), "-"]
    done = subprocess.run(command, input=samples.tobytes(), capture_output=True, check=True)
    expected = Transcriber.load(path).transcribe(tmp_path / "same.wav").text
    assert done.stdout.decode() == expected + "\n"
    odd = subprocess.run(command, input=b"\0\0\0", capture_output=True, check=False)
    assert (odd.returncode, odd.stderr) == (2, b"error: stdin: 3 bytes, expected 16-bit samples\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(path, tmp_path):
    soundfile.write(tmp_path / "one.wav", noise(1.5), 16000)
    command = [sys.executable, "-m", "espnet_lite.bin.transcribe", path, tmp_path / "one.wav"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    told = done.stderr.decode()
    assert done.returncode == 2
    assert told == f"error: stdout: No space left on device, at {tmp_path / 'one.wav'}\n"


def test_bad_input_is_one_line(path, tmp_path, capsys):
    def refused(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err.strip()

    good = tmp_path / "good.wav"
    soundfile.write(good, noise(1.0), 16000)
    assert "no such file or folder" in refused(path, tmp_path / "none.wav")
    (tmp_path / "empty").mkdir()
    assert "no recordings (.wav .flac" in refused(path, tmp_path / "empty")
    assert "not a packed model" in refused(good, good)
    assert "no such packed model" in refused(tmp_path / "none.esp", good)
    samples = noise(1.0)
    samples[700] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    assert "nan.wav: samples that are not numbers" in refused(path, tmp_path / "nan.wav")
    with pytest.raises(InputError, match=r"sample 700 is nan, expected a number in \[-1, 1\]"):
        Transcriber.load(path).transcribe(samples)
    soundfile.write(tmp_path / "stereo.wav", np.stack([samples * 0, samples * 0], 1)[:9], 16000)
    assert "channel" in refused(path, tmp_path / "stereo.wav")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "good.wav").write_bytes(good.read_bytes())
    both = refused(path, good, tmp_path / "more", "--output_dir", tmp_path / "out")
    assert f"has the name of {good}" in both and not (tmp_path / "out").exists()
    assert "--threads: 0, expected 1 or more" in refused(path, good, "--threads", 0)
    assert "--channel: 'left', expected a number" in refused(path, good, "--channel", "left")
    assert "stdin is named twice" in refused(path, "-", "-")


def test_too_short_for_a_frame(path, tmp_path, capsys):
    soundfile.write(tmp_path / "short.wav", noise(0.05), 16000)
    assert main([str(path), str(tmp_path / "short.wav")]) == 0
    out, err = capsys.readouterr()
    assert out == "\n" and "0.050 s are shorter than a frame of 0.085 s: no words" in err
