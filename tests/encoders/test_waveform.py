"""HuBERT's front end: normalization of waveform and channels, and its faults.

tests/encoders/test_hubert.py compares its numbers with transformers'.
"""

import pytest
import torch
from torch.nn import functional

from espnet_lite.encoders.waveform import WaveformConfig, WaveformFrontEnd, normalized
from espnet_lite.features.frame_grid import FrameGrid

LENGTHS = torch.tensor([8000, 5217])


def build(**choices) -> WaveformFrontEnd:
    torch.manual_seed(0)
    convolutions = tuple((4, kernel, stride) for _, kernel, stride in WaveformConfig.convolutions)
    config = WaveformConfig(**{"convolutions": convolutions, "dropout": 0.0, **choices})
    return WaveformFrontEnd(config, dim=8).eval()


def noise() -> torch.Tensor:
    return 0.3 + 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(1))


def test_the_default_is_huberts():
    config = WaveformConfig()
    assert config.convolutions == ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
    with torch.device("meta"):
        front_end = WaveformFrontEnd(config, dim=768)
    assert front_end.grid == FrameGrid(16000, 400, 320)
    assert front_end.grid.frame_ms == 20.0
    # 4.2 M of HuBERT Base's 94.7 M parameters are the convolutions'; 512·768 the projection's.
    parameters = sum(p.numel() for p in front_end.convolutions.parameters())
    assert parameters == 512 * 10 + 4 * 512 * 512 * 3 + 2 * 512 * 512 * 2 + 2 * 512


def test_a_waveform_is_normalized_as_fairseq_does_each_alone():
    wave = normalized(noise(), LENGTHS)
    for row, samples in enumerate(LENGTHS.tolist()):
        expected = functional.layer_norm(noise()[row, :samples], (samples,))
        torch.testing.assert_close(wave[row, :samples], expected, atol=1e-5, rtol=1e-5)
        assert not wave[row, samples:].any()


def test_a_waveform_is_normalized_as_transformers_does_but_for_its_epsilon():
    transformers = pytest.importorskip("transformers")
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    clips = [noise()[row, :samples].numpy() for row, samples in enumerate(LENGTHS.tolist())]
    theirs = extractor(clips, sampling_rate=16000, padding=True, return_tensors="pt").input_values
    # Variance 0.01 beside 1e-5 and 1e-7: half a thousandth.
    torch.testing.assert_close(normalized(noise(), LENGTHS), theirs, atol=1e-5, rtol=6e-4)


def test_silence_stays_silence():
    assert not normalized(torch.zeros(1, 500), torch.tensor([500])).any()


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_normalizing_makes_level_and_offset_irrelevant(norm):
    front_end = build(norm=norm, normalize=True)
    with torch.no_grad():
        plain, _ = front_end(noise(), LENGTHS)
        louder, _ = front_end(3 * noise() - 1, LENGTHS)
    torch.testing.assert_close(plain[0], louder[0], atol=5e-3, rtol=0)
    if norm == "layer":
        raw = build(norm=norm)
        with torch.no_grad():
            difference = raw(noise(), LENGTHS)[0] - raw(3 * noise() - 1, LENGTHS)[0]
        assert float(difference.abs().max()) > 0.05


def test_dropout_acts_on_projected_frames_in_training_only():
    front_end = build(dropout=0.5)
    frames, _ = front_end(noise(), LENGTHS)
    assert torch.equal(frames, front_end(noise(), LENGTHS)[0])
    local, _ = front_end.train().local(noise(), LENGTHS)
    assert torch.equal(local, front_end.local(noise(), LENGTHS)[0])
    dropped = front_end.project(local)
    assert 0.3 < float((dropped == 0).float().mean()) < 0.7
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * frames[kept])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"norm": "batch"}, "norm 'batch' is not one of group, layer"),
        ({"convolutions": ()}, r"convolutions \(\) are not \(channels, kernel, stride\)"),
        ({"convolutions": ((4, 0, 2),)}, r"convolutions \(\(4, 0, 2\),\) are not"),
        ({"sample_rate": 16}, "sample_rate 16 is not at least 1000"),
        ({"dropout": 1.0}, "dropout 1.0 is not at least 0 and below 1"),
    ],
)
def test_senseless_front_ends_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        WaveformConfig(**values)
