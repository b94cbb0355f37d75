"""Noise mixing: the ratio measured apart, the draws, what is left alone, what is refused."""

import math

import numpy as np
import pytest
import soundfile

from espnet_lite.data.noise import NoiseMixer
from espnet_lite.errors import InputError

RATE = 16000


def white(num_samples, seed=0, level=3000):
    return np.random.default_rng(seed).integers(-level, level, num_samples).astype(np.int16)


def speech(num_samples=8000, seed=9):
    return (white(num_samples, seed) / 32768).astype(np.float32)


def mixer(folder, *, probability=1.0, snr_db=(10, 10), **options):
    return NoiseMixer(folder, sample_rate=RATE, probability=probability, snr_db=snr_db, **options)


@pytest.fixture
def folder(tmp_path):
    """Two recordings, one in a subfolder, and a file that is no audio."""
    (tmp_path / "noise/free").mkdir(parents=True)
    soundfile.write(tmp_path / "noise/a.wav", white(6000, 1), RATE)
    soundfile.write(tmp_path / "noise/free/b.FLAC", white(2000, 2), RATE, format="FLAC")
    (tmp_path / "noise/README").write_text("where it comes from")
    (tmp_path / "noise/._a.wav").write_bytes(b"what macOS leaves beside files")
    return tmp_path / "noise"


def measured_db(clean, noisy):
    """Return the ratio of speech to what was added, by Python's own sums."""
    added = [float(b) - float(a) for a, b in zip(clean, noisy, strict=True)]
    energy = math.fsum(float(a) ** 2 for a in clean)
    return 10 * math.log10(energy / math.fsum(x * x for x in added))


@pytest.mark.parametrize("snr_db", [-5, 0, 7.5, 20])
def test_the_ratio_is_the_one_asked_for(folder, snr_db):
    clean = speech()
    before = clean.copy()
    noisy = mixer(folder, snr_db=(snr_db, snr_db)).add(clean, np.random.default_rng(0))
    assert noisy.dtype == np.float32 and noisy.shape == clean.shape
    assert measured_db(clean, noisy) == pytest.approx(snr_db, abs=0.01)
    np.testing.assert_array_equal(clean, before)


def test_ratios_are_uniform_in_db(folder):
    add, generator, clean = mixer(folder, snr_db=(5, 15)).add, np.random.default_rng(1), speech(500)
    ratios = [measured_db(clean, add(clean, generator)) for _ in range(300)]
    assert min(ratios) >= 4.99 and max(ratios) <= 15.01
    counts, _ = np.histogram(ratios, bins=5, range=(4.99, 15.01))
    assert counts.min() > 35  # 60 expected, standard deviation 7


def test_what_is_added_is_a_stretch_of_a_recording_chosen_by_length(folder):
    stretches = {
        name: np.lib.stride_tricks.sliding_window_view(recording.astype(np.float32), 400)
        for name, recording in (("a", white(6000, 1)), ("b", white(2000, 2)))
    }
    add, generator, clean = mixer(folder).add, np.random.default_rng(2), speech(400)
    chosen, starts = [], []
    for _ in range(150):
        added = add(clean, generator) - clean
        # The place is where the correlation is complete.
        for name, pieces in stretches.items():
            likeness = pieces @ added / np.linalg.norm(added)
            place = int(np.argmax(likeness))
            if likeness[place] > 0.999 * np.linalg.norm(pieces[place]):
                chosen.append(name)
                starts.append(place / len(pieces))
    assert len(chosen) == 150
    assert 0.64 < chosen.count("a") / 150 < 0.86  # 0.75 expected, standard deviation 0.035
    counts, _ = np.histogram(starts, bins=4, range=(0, 1))
    assert counts.min() > 20  # 37 expected, standard deviation 5.3


def test_a_short_recording_is_repeated(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([100, 200, 300], dtype=np.int16), RATE)
    clean = speech(8)
    for seed in range(5):
        added = mixer(tmp_path).add(clean, np.random.default_rng(seed)) - clean
        steps = np.rint(added / (added.max() / 3)).astype(int).tolist()
        assert steps in [([1, 2, 3] * 4)[first : first + 8] for first in range(3)]


def test_draws_are_the_same_whatever_happens(folder, tmp_path):
    clean, silence = speech(), np.zeros(8000, dtype=np.float32)
    sure, never = mixer(folder), mixer(folder, probability=0)
    first = [sure.add(clean, np.random.default_rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(*first)
    states = []
    for noise, samples in ((sure, clean), (never, clean), (sure, silence), (sure, clean[:10])):
        generator = np.random.default_rng(5)
        noise.add(samples, generator)
        states.append(generator.bit_generator.state)
    assert all(state == states[0] for state in states)
    assert never.add(clean, np.random.default_rng(5)) is clean


def test_probability(folder):
    add, generator = mixer(folder, probability=0.3).add, np.random.default_rng(3)
    clean = speech(100)
    noisy = sum(add(clean, generator) is not clean for _ in range(1000))
    assert 250 < noisy < 350  # 300 expected, standard deviation 14.5


def test_silence_stays_as_it_is(tmp_path, folder):
    silence = np.zeros(1000, dtype=np.float32)
    assert mixer(folder).add(silence, np.random.default_rng(0)) is silence
    (tmp_path / "still").mkdir()
    soundfile.write(tmp_path / "still/a.wav", np.zeros(5000, dtype=np.int16), RATE)
    clean = speech()
    assert mixer(tmp_path / "still").add(clean, np.random.default_rng(0)) is clean


def test_other_rates_and_channels(tmp_path):
    time = np.arange(8000) / 8000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, np.zeros(8000)], axis=1), 8000)
    clean = speech(16000)
    added = mixer(tmp_path).add(clean, np.random.default_rng(0)) - clean
    spectrum = np.abs(np.fft.rfft(added * np.hanning(16000)))
    assert np.argmax(spectrum) == pytest.approx(1000, abs=1)  # Hz: one second


@pytest.mark.parametrize(
    "options, fault",
    [
        ({"probability": 1.5}, r"probability of noise 1\.5, expected 0 to 1"),
        ({"probability": math.nan}, "probability of noise nan"),
        ({"snr_db": (20, 5)}, r"ratios \[20, 5\] dB, expected the lowest and the highest"),
        ({"snr_db": (0, math.inf)}, r"ratios \[0, inf\] dB"),
        ({"snr_db": (math.nan, 5)}, r"ratios \[nan, 5\] dB"),
        ({"snr_db": (5,)}, r"ratios \[5\] dB"),
        ({"max_gigabytes": 5e-6}, r"noise: 2 files of noise take 0\.00 GB.*at most 5e-06 GB"),
    ],
)
def test_senseless_numbers_are_refused(folder, options, fault):
    with pytest.raises(InputError, match=fault):
        mixer(folder, **options)


def test_bad_folders_are_refused(tmp_path, folder):
    with pytest.raises(InputError, match=r"none: no such folder of noise"):
        mixer(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").touch()
    with pytest.raises(InputError, match=r"empty: no noise recordings, expected .*\.wav"):
        mixer(tmp_path / "empty")
    (folder / "free/c.wav").write_text("this is no audio, whatever its name says")
    with pytest.raises(InputError, match=r"noise/free/c\.wav: cannot be decoded as audio"):
        mixer(folder)
    soundfile.write(folder / "free/c.wav", white(1000), RATE)
    (folder / "free/c.wav").write_bytes((folder / "free/c.wav").read_bytes()[:-500])
    with pytest.raises(InputError, match=r"c\.wav: truncated: the header says 1000 frames"):
        mixer(folder)


@pytest.mark.parametrize("samples, rate", [(1, 48000), (3, 44100), (9, 8000), (9, 16000)])
def test_a_recording_of_a_few_samples_is_repeated(tmp_path, samples, rate):
    soundfile.write(tmp_path / "n.wav", np.full(samples, 0.5), rate)
    mixer = NoiseMixer(tmp_path, sample_rate=16000, probability=1, snr_db=(0, 0))
    speech = np.sin(np.arange(1000, dtype=np.float32))
    mixed = mixer.add(speech, np.random.default_rng(0))
    assert mixed.dtype == np.float32 and mixed.shape == speech.shape
    added = np.square(mixed - speech, dtype=np.float64).sum()
    silent = (
        len(mixer._recordings[0]) == 1 and added == 0
    )  # resampling leaves one sample of nothing
    assert silent or added == pytest.approx(np.square(speech, dtype=np.float64).sum(), rel=1e-4)
