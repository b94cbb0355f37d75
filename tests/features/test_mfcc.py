"""Mfcc against kaldi-native-fbank and its own padding."""

import kaldi_native_fbank
import numpy as np
import pytest
import torch

from espnet_lite.errors import InputError
from espnet_lite.features.mfcc import Mfcc


def kaldi_mfcc(samples, sample_rate, use_energy, lifter):
    """Return kaldi-native-fbank's cepstra, (frames, 13)."""
    options = kaldi_native_fbank.MfccOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.samp_freq = sample_rate
    options.use_energy = use_energy
    options.cepstral_lifter = lifter
    mfcc = kaldi_native_fbank.OnlineMfcc(options)
    mfcc.accept_waveform(sample_rate, (samples * 32768).tolist())
    mfcc.input_finished()
    return np.stack([mfcc.get_frame(i) for i in range(mfcc.num_frames_ready)])


@pytest.mark.parametrize("lifter", [22.0, 0.0])
@pytest.mark.parametrize("use_energy", [True, False])
@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_equals_kaldi(sample_rate, use_energy, lifter, make_speech):
    samples = make_speech(1.5, sample_rate, seed=2)
    mfcc = Mfcc(sample_rate, use_energy=use_energy, cepstral_lifter=lifter)
    cepstra, lengths = mfcc(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    kaldi = kaldi_mfcc(samples, sample_rate, use_energy, lifter)
    assert lengths.tolist() == [len(kaldi)]
    assert np.abs(cepstra[0].numpy() - kaldi).max() <= 1e-3


def test_padding_changes_nothing(make_speech):
    mfcc = Mfcc()
    long, short = (torch.from_numpy(make_speech(s, 16000, seed=4)) for s in (2.0, 0.9))
    batch = torch.full((2, 40000), 123.0)
    batch[0, : len(long)], batch[1, : len(short)] = long, short
    cepstra, lengths = mfcc(batch, torch.tensor([len(long), len(short)]))
    for row, samples, count in zip(cepstra, (long, short), lengths.tolist(), strict=True):
        alone, _ = mfcc(samples[None], torch.tensor([len(samples)]))
        torch.testing.assert_close(row[:count], alone[0], rtol=0, atol=1e-4)
        assert (row[count:] == 0).all()


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1)])
def test_short_input(samples, frames):
    cepstra, lengths = Mfcc()(torch.zeros(1, samples), torch.tensor([samples]))
    assert cepstra.shape == (1, frames, 13)
    assert lengths.tolist() == [frames]


def test_refuses_more_cepstra_than_filters():
    with pytest.raises(InputError, match="num_ceps is 24, expected 1 to num_mels, which is 23"):
        Mfcc(num_ceps=24)
