"""Fbank against kaldi-native-fbank, a readable float64 version, and its own padding."""

import kaldi_native_fbank
import numpy as np
import pytest
import torch

from espnet_lite.errors import InputError
from espnet_lite.features.fbank import CPU_CHUNK_FRAMES, Fbank, num_frames


def kaldi_fbank(samples, sample_rate, num_mels):
    """Return kaldi-native-fbank's features, (frames, mels)."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.samp_freq = sample_rate
    options.mel_opts.num_bins = num_mels
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(sample_rate, (samples * 32768).tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])


def slow_fbank(samples, fbank):
    """Return the definition, frame by frame in float64, with Kaldi's rule for the first sample."""
    signal = samples.astype(np.float64) * 32768
    index = np.arange(fbank.window)
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * index / (fbank.window - 1))) ** 0.85
    frames = []
    for start in range(0, len(signal) - fbank.window + 1, fbank.shift):
        frame = signal[start : start + fbank.window]
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * povey, fbank.fft_samples)) ** 2
        mels = power @ fbank.mel_filters.numpy().astype(np.float64)
        frames.append(np.log(np.maximum(mels, np.finfo(np.float32).eps)))
    return np.stack(frames)


def features_of(fbank, samples):
    """Return the features of one utterance, (frames, mels)."""
    features, lengths = fbank(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    assert lengths.tolist() == [features.size(1)]
    return features[0].numpy()


@pytest.mark.parametrize("num_mels", [23, 40, 80])
@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050])
def test_equals_kaldi(sample_rate, num_mels, make_speech):
    samples = make_speech(1.7, sample_rate, seed=num_mels)
    ours = features_of(Fbank(sample_rate, num_mels=num_mels), samples)
    kaldi = kaldi_fbank(samples, sample_rate, num_mels)
    assert ours.shape == kaldi.shape
    assert np.abs(ours - kaldi).max() <= 1e-3


@pytest.mark.parametrize("signal", ["chirp", "noise", "impulses"])
def test_equals_kaldi_on_plain_signals(signal):
    time = np.arange(16000) / 16000
    random = np.random.default_rng(1)
    samples = {
        "chirp": 0.4 * np.sin(2 * np.pi * (50 * time + 3900 * time**2))
        + 3e-2 * random.normal(size=16000),
        "noise": 0.2 * random.normal(size=16000),
        "impulses": (np.arange(16000) % 97 == 0) * 0.9,
    }[signal].astype(np.float32)
    ours = features_of(Fbank(num_mels=40), samples)
    assert np.abs(ours - kaldi_fbank(samples, 16000, 40)).max() <= 1e-3


def test_equals_the_definition_in_float64(make_speech):
    fbank = Fbank()
    samples = make_speech(1.0, 16000, seed=3)
    assert np.abs(features_of(fbank, samples) - slow_fbank(samples, fbank)).max() <= 5e-4


def test_silence_is_the_floor():
    features = features_of(Fbank(), np.full(800, 0.25, dtype=np.float32))
    assert features == pytest.approx(np.log(np.finfo(np.float32).eps))


def test_padding_and_neighbours_change_nothing(make_speech):
    fbank = Fbank()
    # Long enough for several passes of CPU_CHUNK_FRAMES, in none of which a row begins.
    utterances = [make_speech(seconds, 16000, seed=i) for i, seconds in enumerate((9.3, 1.1, 4.07))]
    lengths = torch.tensor([len(u) for u in utterances])
    batch = torch.full((3, int(lengths.max()) + 777), 123.0)
    for row, samples in zip(batch, utterances, strict=True):
        row[: len(samples)] = torch.from_numpy(samples)
    features, frames = fbank(batch, lengths)
    assert features.size(0) * features.size(1) > 2 * CPU_CHUNK_FRAMES
    for row, samples, count in zip(features, utterances, frames.tolist(), strict=True):
        torch.testing.assert_close(
            row[:count].numpy(), features_of(fbank, samples), rtol=0, atol=2e-5
        )
        assert count == 1 + (len(samples) - 400) // 160
        assert (row[count:] == 0).all()


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (1, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16000, 98)]
)
def test_frame_counts(samples, frames):
    assert num_frames(samples, 400, 160) == frames
    features, lengths = Fbank()(torch.zeros(2, samples), torch.tensor([samples, 0]))
    assert features.shape == (2, frames, 80)
    assert lengths.tolist() == [frames, 0]


@pytest.mark.parametrize("window_ms", [25.0, 32.0])
def test_a_broken_waveform_stays_alone(window_ms):
    waveform = torch.full((3, 1600), 0.1)
    waveform[1] = float("nan")
    features, _ = Fbank(window_ms=window_ms)(waveform, torch.tensor([1600, 1600, 1600]))
    assert features[1].isnan().all()
    assert features[[0, 2]].isfinite().all()


def test_float32_under_autocast_and_fast_matmul(make_speech):
    fbank = Fbank()
    waveform = torch.from_numpy(make_speech(1.0, 16000, seed=5))[None]
    lengths = torch.tensor([waveform.size(1)])
    expected, _ = fbank(waveform, lengths)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features, _ = fbank(waveform, lengths)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert features.dtype == torch.float32
    assert torch.equal(features, expected)


def test_leaves_the_input_and_the_checkpoint_alone():
    fbank = Fbank()
    waveform = torch.ones(1, 1000)
    fbank(waveform, torch.tensor([1000]))
    assert (waveform == 1).all()
    assert fbank.state_dict() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_mels": 200}, "num_mels is 200, too many for 512 FFT samples at 16000 Hz"),
        ({"num_mels": 0}, "num_mels is 0, expected 1 or more"),
        ({"high_hz": 9000.0}, "from 20 to 9000 Hz, expected 0 <= low_hz < high_hz <= 8000 Hz"),
        ({"low_hz": 400.0, "high_hz": 300.0}, "from 400 to 300 Hz"),
        ({"shift_ms": 0.0}, "400 and 0 samples at 16000 Hz"),
    ],
)
def test_refuses_what_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        Fbank(**options)
