"""Front ends: what comes out, when SpecAugment acts, padding, and CMVN in the weights."""

import pytest
import torch
from safetensors.torch import load, save

from espnet_lite.encoders.front_end import FRONT_ENDS, LogMelConfig, SpecAugmentConfig
from espnet_lite.features.cmvn import CmvnAccumulator

NO_MASKS = SpecAugmentConfig(frequency_masks=0, time_masks=0)
LENGTHS = torch.tensor([8000, 5217])  # 48 and 31 frames


def build(*, cmvn: str = "global", spec_augment: SpecAugmentConfig = NO_MASKS, seed: int = 0):
    schema, front_end = FRONT_ENDS["log_mel"]
    torch.manual_seed(seed)
    config = schema(num_mels=20, channels=3, cmvn=cmvn, spec_augment=spec_augment)
    return front_end(config, dim=8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def waveform():
    noise = torch.randn(2, 8000, generator=generator(7)) * 0.1
    noise[1, LENGTHS[1] :] = 0.0
    return noise


@pytest.fixture
def statistics(waveform):
    return CmvnAccumulator(20).add(*build().features(waveform, LENGTHS)).statistics()


def test_a_frame_of_the_encoder_is_40_ms(waveform):
    frames, lengths = build().eval()(waveform, LENGTHS)
    features = [1 + (n - 400) // 160 for n in LENGTHS.tolist()]  # 25 ms windows every 10 ms
    expected = [((n - 1) // 2 - 1) // 2 for n in features]
    assert lengths.tolist() == expected == [11, 7]
    assert frames.shape == (2, 11, 8)


@pytest.mark.parametrize("cmvn", ["global", "utterance", "none"])
@pytest.mark.parametrize("training", [False, True])
def test_padding_never_changes_a_valid_frame(waveform, statistics, cmvn, training):
    front_end = build(cmvn=cmvn).train(training)
    if cmvn == "global":
        front_end.cmvn.set_statistics(statistics)
    with torch.no_grad():
        batched, lengths = front_end(waveform, LENGTHS, generator())
        for row, samples in enumerate(LENGTHS.tolist()):
            alone, length = front_end(
                waveform[row : row + 1, :samples], LENGTHS[row : row + 1], generator()
            )
            assert length[0] == lengths[row]
            torch.testing.assert_close(batched[row, : lengths[row]], alone[0], atol=2e-5, rtol=1e-4)


def test_spec_augment_acts_in_training_only(waveform):
    front_end = build(spec_augment=SpecAugmentConfig(time_width_ratio=0.2))
    plain, _ = front_end.eval()(waveform, LENGTHS)
    again, _ = front_end(waveform, LENGTHS, generator(3))
    assert torch.equal(plain, again)
    front_end.train()
    masked, _ = front_end(waveform, LENGTHS, generator(3))
    assert not torch.equal(plain, masked)
    assert torch.equal(front_end(waveform, LENGTHS, generator(3))[0], masked)
    assert not torch.equal(front_end(waveform, LENGTHS, generator(4))[0], masked)
    with pytest.raises(ValueError, match=r"torch\.Generator"):
        front_end(waveform, LENGTHS)


def test_switched_off_masks_change_nothing_in_training(waveform):
    front_end = build()
    masked, _ = front_end.train()(waveform, LENGTHS, generator())
    plain, _ = front_end.eval()(waveform, LENGTHS)
    assert torch.equal(plain, masked)


def test_global_statistics_travel_in_the_weights(waveform, statistics):
    front_end = build().eval()
    fresh, _ = front_end(waveform, LENGTHS)
    front_end.cmvn.set_statistics(statistics)
    normalized, _ = front_end(waveform, LENGTHS)
    assert not torch.allclose(fresh, normalized)
    other = build(seed=9).eval()
    other.load_state_dict(load(save(front_end.state_dict())))
    torch.testing.assert_close(other.cmvn.mean.double(), statistics.mean(), atol=1e-6, rtol=1e-6)
    assert torch.equal(other(waveform, LENGTHS)[0], normalized)


def test_global_cmvn_gives_mean_0_and_variance_1_to_the_subsampling(waveform, statistics):
    front_end = build().eval()
    front_end.cmvn.set_statistics(statistics)
    seen = []
    front_end.subsampling.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    front_end(waveform, LENGTHS)
    features, lengths = seen[0]
    valid = torch.cat([row[:n] for row, n in zip(features, lengths.tolist(), strict=True)])
    torch.testing.assert_close(valid.mean(0), torch.zeros(20), atol=1e-4, rtol=0)
    torch.testing.assert_close(valid.var(0, unbiased=False), torch.ones(20), atol=1e-3, rtol=0)


def test_clips_shorter_than_a_window_have_no_frames(waveform):
    front_end = build(spec_augment=SpecAugmentConfig()).train()
    frames, lengths = front_end(waveform, torch.tensor([8000, 399]), generator())
    assert lengths.tolist() == [11, 0] and torch.isfinite(frames).all()
    frames, lengths = front_end(waveform[:, :500], torch.tensor([500, 30]), generator())
    assert lengths.tolist() == [0, 0] and torch.isfinite(frames).all()


@pytest.mark.parametrize(
    ("schema", "values", "message"),
    [
        (LogMelConfig, {"cmvn": "speaker"}, "cmvn 'speaker' is not one of global, utterance, none"),
        (LogMelConfig, {"num_mels": 6}, "num_mels 6 is not at least 7"),
        (LogMelConfig, {"sample_rate": 16}, "sample_rate 16 is not at least 1000"),
        (LogMelConfig, {"channels": 0}, "channels 0 is not at least 1"),
        (SpecAugmentConfig, {"frequency_masks": -1}, "frequency_masks -1 is not at least 0"),
        (SpecAugmentConfig, {"time_width_ratio": 1.1}, "time_width_ratio 1.1 is not at least 0"),
    ],
)
def test_senseless_front_ends_are_refused(schema, values, message):
    with pytest.raises(ValueError, match=message):
        schema(**values)


def test_the_fewest_mels_still_give_frames(waveform):
    front_end = FRONT_ENDS["log_mel"][1](LogMelConfig(num_mels=7, channels=1, cmvn="none"), dim=2)
    assert front_end.eval()(waveform, LENGTHS)[0].shape == (2, 11, 2)
