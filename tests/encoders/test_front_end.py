"""Front ends: what comes out, when SpecAugment acts, padding, and CMVN in the weights."""

import pytest
import torch
from safetensors.torch import load, save

from espnet_lite.config import from_plain, to_plain
from espnet_lite.encoders.front_end import (
    FRONT_ENDS,
    LogMelConfig,
    SpecAugmentConfig,
    StackedLogMelConfig,
)
from espnet_lite.features.cmvn import CmvnAccumulator
from espnet_lite.features.frame_grid import FrameGrid

NO_MASKS = SpecAugmentConfig(frequency_masks=0, time_masks=0)
LENGTHS = torch.tensor([8000, 5217])  # 48 and 31 frames

# Small members of each family, with (window, shift) of a frame and the width before the projection;
# a new front end needs a line here.
_MEL = {"cmvn": "utterance", "spec_augment": NO_MASKS}
_SMALL_MEL = {"num_mels": 20, "channels": 3, **_MEL}
_CONVOLUTIONS = ((6, 10, 5), *((6, 3, 2),) * 4, *((6, 2, 2),) * 2)
SMALL = {
    "log_mel": [
        (_SMALL_MEL, (1360, 640), 3 * 4),
        ({**_SMALL_MEL, "subsampling": 2}, (1360, 320), 3 * 7),
        ({**_SMALL_MEL, "separable": True}, (1360, 640), 3 * 4),
        ({**_SMALL_MEL, "separable": True, "subsampling": 2}, (1360, 320), 3 * 7),
    ],
    "stacked_log_mel": [
        (_MEL, (560, 320), 80),
        ({**_MEL, "stack": 4, "num_mels": 9}, (880, 640), 36),
    ],
    "waveform": [
        ({"convolutions": _CONVOLUTIONS, "dropout": 0.0}, (400, 320), 6),
        (
            {
                "convolutions": _CONVOLUTIONS,
                "dropout": 0.0,
                "norm": "layer",
                "conv_bias": True,
                "normalize": True,
            },
            (400, 320),
            6,
        ),
    ],
}
CASES = [(name, *case) for name in FRONT_ENDS for case in SMALL[name]]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[2][1]}-{case[3]}")
def member(request):
    """Return a front end of 8 dimensions in evaluation mode, its window and shift, its inner width."""
    name, numbers, window_and_shift, local_dim = request.param
    schema, front_end = FRONT_ENDS[name]
    torch.manual_seed(0)
    return front_end(schema(**numbers), dim=8).eval(), window_and_shift, local_dim


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


def test_frames_lie_where_the_grid_says(member):
    """A clip has as many frames as the grid counts, and a frame moves with its samples alone."""
    front_end, (window, shift), _ = member
    assert front_end.grid == FrameGrid(16000, window, shift)
    assert front_end.sample_rate == 16000
    for samples in (window - 1, window, window + shift - 1, window + shift, 3 * window, 7999, 8000):
        waveform = torch.randn(1, samples, generator=generator())
        frames, lengths = front_end(waveform, torch.tensor([samples]))
        assert lengths.tolist() == [front_end.grid.num_frames(samples)]
        assert frames.shape == (1, max(1, int(lengths)), 8)


def test_a_frame_sees_its_window_alone():
    """But for what is normalized over the utterance."""
    for name, numbers, (window, shift), _ in CASES:
        schema, front_end = FRONT_ENDS[name]
        numbers = {"norm": "layer"} if name == "waveform" else {"cmvn": "none"}
        numbers = {**SMALL[name][0][0], **numbers}
        front_end = front_end(schema(**numbers), dim=8).eval()
        window, shift = front_end.grid.window_samples, front_end.grid.shift_samples
        waveform = torch.randn(1, 6 * window, generator=generator())
        with torch.no_grad():
            frames, lengths = front_end(waveform, torch.tensor([6 * window]))
            frame = int(lengths) // 2
            start = frame * shift
            other = torch.randn(1, 6 * window, generator=generator(1))
            other[:, start : start + window] = waveform[:, start : start + window]
            changed, _ = front_end(other, torch.tensor([6 * window]))
        torch.testing.assert_close(changed[0, frame], frames[0, frame], atol=1e-5, rtol=1e-4)
        assert (changed[0] - frames[0]).abs().amax(-1).gt(1e-4).sum() == int(lengths) - 1


def test_a_front_end_is_local_and_then_projected(member, waveform):
    front_end, _, local_dim = member
    x, x_lengths = front_end.local(waveform, LENGTHS, generator=generator())
    frames, lengths = front_end(waveform, LENGTHS, generator())
    assert x.shape == (2, int(lengths.max()), local_dim)
    assert torch.equal(x_lengths, lengths)
    assert torch.equal(front_end.project(x), frames)


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_no_valid_frame_of_any_family(member, waveform, training):
    front_end = member[0].train(training)
    with torch.no_grad():
        batched, lengths = front_end(waveform, LENGTHS, generator())
        loud = waveform.clone()
        loud[1, LENGTHS[1] :] = 1e2
        changed, _ = front_end(loud, LENGTHS, generator())
        for row, samples in enumerate(LENGTHS.tolist()):
            length = int(lengths[row])
            clip = waveform[row : row + 1, :samples]
            alone, alone_lengths = front_end(clip, LENGTHS[row : row + 1], generator())
            assert alone_lengths.tolist() == [length]
            torch.testing.assert_close(batched[row, :length], alone[0], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(changed[row, :length], batched[row, :length], atol=0, rtol=0)


def test_every_parameter_gets_a_gradient_and_padding_none(member, waveform):
    front_end = member[0].train()
    frames, lengths = front_end(waveform, LENGTHS, generator())
    weights = torch.randn(frames.shape, generator=generator(1))
    valid = torch.arange(frames.size(1)) < lengths[:, None]
    (frames * weights)[valid].sum().backward()
    for name, parameter in front_end.named_parameters():
        assert float(parameter.grad.abs().max()) > 1e-6, name


def test_weights_of_any_family_travel(member, waveform):
    front_end = member[0]
    config = from_plain(type(front_end.config), to_plain(front_end.config))
    assert config == front_end.config
    other = type(front_end)(config, dim=8).eval()
    assert not torch.equal(other(waveform, LENGTHS)[0], front_end(waveform, LENGTHS)[0])
    other.load_state_dict(load(save(front_end.state_dict())))
    assert torch.equal(other(waveform, LENGTHS)[0], front_end(waveform, LENGTHS)[0])


def test_clips_without_a_frame_leave_the_others_alone(member, waveform):
    front_end, (window, _), _ = member
    frames, lengths = front_end(waveform, torch.tensor([8000, window - 1]))
    assert lengths.tolist() == [front_end.grid.num_frames(8000), 0]
    assert torch.isfinite(frames).all()
    frames, lengths = front_end(waveform[:, :300], torch.tensor([300, 0]))
    assert lengths.tolist() == [0, 0] and frames.size(1) == 1 and torch.isfinite(frames).all()


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
    front_end.subsampling.first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    front_end(waveform, LENGTHS)
    features, lengths = seen[0][:, 0], front_end.fbank.feature_lengths(LENGTHS)
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
        (LogMelConfig, {"subsampling": 3}, "subsampling 3 is not one of 2, 4"),
        (StackedLogMelConfig, {"stack": 0}, "stack 0 is not at least 1"),
        (StackedLogMelConfig, {"cmvn": "speaker"}, "cmvn 'speaker' is not one of global"),
        (SpecAugmentConfig, {"frequency_masks": -1}, "frequency_masks -1 is not at least 0"),
        (SpecAugmentConfig, {"time_width_ratio": 1.1}, "time_width_ratio 1.1 is not at least 0"),
    ],
)
def test_senseless_front_ends_are_refused(schema, values, message):
    with pytest.raises(ValueError, match=message):
        schema(**values)


def test_stacked_features_are_the_normalized_ones_side_by_side(waveform):
    config = StackedLogMelConfig(cmvn="utterance", spec_augment=NO_MASKS)
    front_end = FRONT_ENDS["stacked_log_mel"][1](config, dim=8).eval()
    stacked, lengths = front_end.local(waveform, LENGTHS)
    features, _ = front_end.normalized(waveform, LENGTHS)
    assert lengths.tolist() == [24, 15]
    for frame in range(24):
        pair = torch.cat([features[:, 2 * frame], features[:, 2 * frame + 1]], dim=-1)
        assert torch.equal(stacked[:, frame], pair)


def test_statistics_of_one_kind_of_features_are_those_of_the_other():
    """Stacking comes after CMVN, so one file of statistics serves both."""
    assert (
        StackedLogMelConfig(num_mels=80).feature_options()
        == LogMelConfig(num_mels=80).feature_options()
        == {"kind": "log_mel", "num_mels": 80, "sample_rate": 16000}
    )


def test_the_fewest_mels_still_give_frames(waveform):
    front_end = FRONT_ENDS["log_mel"][1](LogMelConfig(num_mels=7, channels=1, cmvn="none"), dim=2)
    assert front_end.eval()(waveform, LENGTHS)[0].shape == (2, 11, 2)
