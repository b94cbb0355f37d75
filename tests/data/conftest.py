"""Small corpora for the tests of the data package."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile


def noise(num_samples: int, *, seed: int = 0) -> np.ndarray:
    """Return 16-bit noise."""
    return np.random.default_rng(seed).integers(-9000, 9000, num_samples).astype(np.int16)


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes WAV files and a valid data directory, and returns the latter.

    Utterance i belongs to speaker i // 2 and has `lengths[i]` samples.
    """

    def make(lengths=(1600, 3200, 2400, 4000), *, rate: int = 16000, name: str = "data") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        audio = tmp_path / f"{name}_audio"
        audio.mkdir()
        tables: dict[str, list[str]] = {"wav.scp": [], "text": [], "utt2spk": []}
        for i, length in enumerate(lengths):
            speaker = f"spk{i // 2:03d}"
            key = f"{speaker}-utt{i:03d}"
            soundfile.write(audio / f"{key}.wav", noise(length, seed=i), rate)
            tables["wav.scp"].append(f"{key} {audio / key}.wav\n")
            tables["text"].append(f"{key} word{i} some words\n")
            tables["utt2spk"].append(f"{key} {speaker}\n")
        for table, lines in tables.items():
            (folder / table).write_text("".join(lines), encoding="utf-8")
        return folder

    return make
