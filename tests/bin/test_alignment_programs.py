"""align_asr and score_alignment as a user calls them, on a model that hears tones as letters."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from espnet_lite.bin import align_asr, score_alignment
from espnet_lite.data.data_dir import Utterance, write_data_dir
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.runtime.packed_model import PackedModel
from espnet_lite.text.tokenizer import Tokenizer

TOKENS = ["<blank>", "<unk>", "<space>", "A", "B", "<sos/eos>"]
RATE = 16000
LEVELS = {"A": 0.25, "B": 0.5, " ": 0.75}  # of constant samples that stand for a letter
IDS = {"A": 3, "B": 4, " ": 2}


class Levels:
    """A model of frames of 10 ms that knows a letter by the level of its samples."""

    def __init__(self):
        self.sample_rate = RATE
        self.tokenizer = Tokenizer.from_dict({"kind": "char", "nlsyms": [], "tokens": TOKENS})
        self.front_end = self
        self.grid = FrameGrid(RATE, 160, 160)

    def log_probs(self, waveform, lengths):
        frames = self.grid.num_frames(int(lengths[0]))
        means = waveform[0, : frames * 160].reshape(frames, 160).mean(dim=1)
        levels = torch.tensor([0.0, 9.0, LEVELS[" "], LEVELS["A"], LEVELS["B"], 9.0])
        log_probs = (-100 * (means[:, None] - levels).abs()).log_softmax(dim=-1)
        return log_probs[None], torch.tensor([frames])


@pytest.fixture
def model(monkeypatch) -> Levels:
    model = Levels()
    monkeypatch.setattr(PackedModel, "load", lambda path: model)
    return model


def write_audio(path: Path, said: list[tuple[str, int]]) -> None:
    """Write letters and silence ("") of so many frames of 10 ms."""
    samples = [np.full(160 * frames, LEVELS.get(letter, 0.0)) for letter, frames in said]
    soundfile.write(path, np.concatenate(samples), RATE, subtype="PCM_16")


SAID = [("", 10), ("A", 20), ("B", 15), ("", 30), (" ", 1), ("B", 10), ("", 5)]


@pytest.fixture
def data(tmp_path) -> Path:
    """Return a folder with a data directory of two utterances: one a part of a recording."""
    write_audio(tmp_path / "one.wav", SAID)
    write_audio(tmp_path / "two.wav", [("A", 50), *SAID, ("A", 9)])
    utterances = [
        Utterance("s-1", str(tmp_path / "one.wav"), 0.0, 0.91, "AB B", "s", None),
        Utterance("s-2", str(tmp_path / "two.wav"), 0.5, 1.41, "AB B", "s", None),
    ]
    write_data_dir(tmp_path / "data", utterances)
    return tmp_path


def align(data: Path, *more: str, output: str = "aligned") -> int:
    arguments = ["--model", "m.esp", "--data_dir", data / "data", "--output_dir", data / output]
    return align_asr.main([str(argument) for argument in (*arguments, "--threads", "1", *more)])


def test_words_and_tokens_are_where_they_were_said(data, model, capsys):
    assert align(data) == 0
    assert "aligned: 2 utterances aligned" in capsys.readouterr().out
    words = (data / "aligned" / "words.ctm").read_text().splitlines()
    # bare: AB 0.10 to 0.45, B 0.76 to 0.86; each 40 ms further, where there is a pause
    times = [line.rsplit(" ", 1)[0] for line in words]
    expected = ["1 0.060 0.430 AB", "1 0.720 0.180 B"]
    assert times == [f"{name} {one}" for name in ("s-1", "s-2") for one in expected]
    tokens = (data / "aligned" / "tokens.ctm").read_text().splitlines()
    assert [line.rsplit(" ", 1)[0] for line in tokens[:4]] == [
        "s-1 1 0.100 0.200 A",
        "s-1 1 0.300 0.150 B",
        "s-1 1 0.750 0.010 <space>",
        "s-1 1 0.760 0.100 B",
    ]
    assert {path.name for path in (data / "aligned" / "textgrid").iterdir()} == {
        "s-1.TextGrid",
        "s-2.TextGrid",
    }


def test_boundaries_are_compared_with_other_textgrids(data, model, capsys):
    assert align(data) == 0
    reference = data / "reference"
    reference.mkdir()
    text = (data / "aligned" / "textgrid" / "s-1.TextGrid").read_text()
    (reference / "s-1.TextGrid").write_text(text.replace("0.06\n", "0.09\n").replace("AB", "ab"))
    (data / "aligned" / "textgrid" / "s-2.TextGrid").rename(reference / "s-2.TextGrid")
    arguments = ["--alignment", data / "aligned", "--reference", reference]
    arguments += ["--output", data / "found.json"]
    assert score_alignment.main([str(argument) for argument in arguments]) == 0
    assert "2 words of 1 utterances; 0 have other words" in capsys.readouterr().out
    found = json.loads((data / "found.json").read_text())
    assert found["starts"]["mean_ms"] == 15.0 and found["ends"]["mean_ms"] == 0.0
    (reference / "s-1.TextGrid").write_text(text.replace("AB", "BB"))
    assert score_alignment.main([str(argument) for argument in arguments]) == 2
    assert "none of 1 utterances has the words of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AB C", "token 'C' of word 2, 'C', is not in the model's table of 6; write it with"),
        ("A" * 60, "0.91 s of audio, 91 frames, for 60 tokens, which need 119 or more"),
    ],
)
def test_what_cannot_be_aligned_is_named_before_anything_is_written(
    data, model, capsys, text, message
):
    path = data / "data" / "text"
    path.write_text(path.read_text().replace("s-2 AB B", f"s-2 {text}"))
    assert align(data) == 2
    error = capsys.readouterr().err
    assert f"data, utterance 's-2': {message}" in error
    assert error.endswith("(1 of 2 utterances cannot be aligned); or leave them out: --skip\n")
    assert not (data / "aligned").exists()
    assert align(data, "--skip") == 0
    printed = capsys.readouterr()
    assert "1 utterances aligned" in printed.out
    assert f"warning: left out: utterance 's-2': {message}" in printed.err
    assert align(data, "--skip") == 2
    assert "aligned: is there already; choose another folder" in capsys.readouterr().err
