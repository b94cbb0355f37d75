"""Signals to take features of."""

import numpy as np
import pytest
from numpy.typing import NDArray


def speech_like(seconds: float, sample_rate: int, seed: int) -> NDArray[np.float32]:
    """Return a gliding pulse train through three resonances, in syllables, over noise at -50 dB.

    The noise keeps every band above float32's own rounding, 100 dB below the loudest one, where no
    two implementations agree; a DC offset of 0.01 is there to be removed.
    """
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    pitch_hz = 120 + 60 * np.sin(2 * np.pi * 0.7 * time + seed)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / sample_rate
    voice = np.zeros_like(time)
    for harmonic in range(1, 30):
        hz = harmonic * pitch_hz
        gain = sum(np.exp(-(((hz - f) / 150) ** 2)) for f in (600, 1500, 2600))
        voice += np.where(hz < sample_rate / 2, gain + 0.02, 0.0) * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 3 * time), 0, None)
    signal = voice * syllables / (np.abs(voice).max() + 1e-9)
    noise = 10 ** (-50 / 20) * random.standard_normal(time.size)
    return np.round((0.5 * signal + noise + 0.01) * 32768).clip(-32768, 32767).astype(
        np.float32
    ) / np.float32(32768)


@pytest.fixture
def make_speech():
    """Return `speech_like`: (seconds, sample_rate, seed) → samples in [-1, 1]."""
    return speech_like
