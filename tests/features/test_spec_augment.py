"""SpecAugment: where its masks fall, how wide they are, and time warping against interpolate."""

import pytest
import torch
import torch.nn.functional as F

from espnet_lite.features.spec_augment import SpecAugment, random_spans, time_warp

LENGTHS = torch.tensor([100, 37, 60, 1, 0])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def features_like(lengths, dim=80):
    """Return positive random features with zero padding."""
    features = torch.rand(len(lengths), int(lengths.max()), dim, generator=generator(1)) + 0.5
    for row, length in zip(features, lengths.tolist(), strict=True):
        row[length:] = 0
    return features


def runs(mask):
    """Return (start, length) of every run of True."""
    padded = F.pad(mask.int(), (1, 1)).diff()
    starts = (padded == 1).nonzero().flatten().tolist()
    ends = (padded == -1).nonzero().flatten().tolist()
    return [(start, end - start) for start, end in zip(starts, ends, strict=True)]


def test_one_seed_one_result():
    features = features_like(LENGTHS)
    augment = SpecAugment(time_warp_frames=5).train()
    first = augment(features, LENGTHS, generator(3))
    torch.rand(7)  # the global state plays no part
    assert torch.equal(first, augment(features, LENGTHS, generator(3)))
    assert not torch.equal(first, augment(features, LENGTHS, generator(4)))


def test_nothing_in_evaluation():
    features = features_like(LENGTHS)
    assert SpecAugment().eval()(features, LENGTHS, generator()) is features


def test_training_needs_a_generator():
    with pytest.raises(ValueError, match=r"needs a torch\.Generator"):
        SpecAugment().train()(features_like(LENGTHS), LENGTHS)


def test_values_are_kept_or_zero_and_padding_stays_zero():
    features = features_like(LENGTHS)
    before = features.clone()
    augmented = SpecAugment().train()(features, LENGTHS, generator())
    assert torch.equal(features, before)
    assert ((augmented == features) | (augmented == 0)).all()
    assert (augmented[0] == 0).any()
    assert (augmented[1, 37:] == 0).all()


def test_masks_are_whole_bands_or_whole_frames():
    augmented = SpecAugment().train()(features_like(LENGTHS), LENGTHS, generator())[0]
    masked = augmented == 0
    bands, frames = masked.all(dim=0), masked.all(dim=1)
    assert torch.equal(masked, bands[None, :] | frames[:, None])


def test_zero_counts_do_nothing():
    features = features_like(LENGTHS)
    augment = SpecAugment(frequency_masks=0, time_masks=0).train()
    assert torch.equal(augment(features, LENGTHS, generator()), features)


def test_a_span_is_uniform_in_width_and_place():
    lengths = torch.full((40_000,), 12)
    spans = random_spans(lengths, lengths * 0 + 4, size=15, spans=1, generator=generator())
    assert not spans[:, 12:].any()
    widths = spans.sum(dim=1)
    share = torch.bincount(widths, minlength=5) / len(lengths)
    # Width 0 to 4 with 1/5 each: one standard deviation is 0.002.
    assert share.tolist() == pytest.approx([0.2] * 5, abs=0.01)
    starts = spans[widths == 4].int().argmax(dim=1)
    # Nine places for a span of 4 in 12: 8,000 spans, one standard deviation is 0.0035.
    assert (torch.bincount(starts) / len(starts)).tolist() == pytest.approx([1 / 9] * 9, abs=0.018)
    assert all(len(runs(row)) <= 1 for row in spans[:200])


def test_widths_follow_each_utterance_and_stay_inside_it():
    lengths = torch.tensor([1000, 100, 19, 0]).repeat(500)
    spans = random_spans(
        lengths, (lengths * 0.05).long(), size=1100, spans=1, generator=generator()
    )
    for length, widest in ((1000, 50), (100, 5), (19, 0), (0, 0)):
        rows = spans[lengths == length]
        assert rows.sum(dim=1).max() == widest
        assert not rows[:, length:].any()


def test_masked_share_is_the_expected_one():
    lengths = torch.full((2000,), 400)
    augment = SpecAugment(frequency_masks=0, time_masks=10, time_width_ratio=0.05).train()
    masked = augment(torch.ones(2000, 400, 1), lengths, generator()) == 0
    # Ten spans of 0 to 20 frames: a frame far from the ends is in one with probability
    # E[width / (400 - width + 1)] = 0.0256, so in none of ten with 0.772.
    inside = sum(w / (401 - w) for w in range(21)) / 21
    expected = 1 - (1 - inside) ** 10
    assert masked[:, 20:380].float().mean().item() == pytest.approx(expected, abs=0.005)


def test_warp_equals_interpolating_both_sides():
    features = features_like(LENGTHS, dim=3)
    warped = time_warp(features, LENGTHS, 5, generator=generator(2))
    for row, source, length in zip(warped, features, LENGTHS.tolist(), strict=True):
        assert (row[length:] == 0).all()
        if length < 12:
            assert torch.equal(row, source)
            continue
        candidates = []
        for center in range(6, length - 5):
            for moved in range(center - 5, center + 6):
                sides = []
                for part, size in (
                    (source[:center], moved),
                    (source[center:length], length - moved),
                ):
                    channels = part.T[None]
                    sides.append(F.interpolate(channels, size=size, mode="linear")[0].T)
                candidates.append((torch.cat(sides) - row[:length]).abs().max().item())
        assert min(candidates) < 1e-5


@pytest.mark.parametrize("length", [12, 13, 400])
def test_warp_moves_by_every_amount_and_never_leaves_the_utterance(length):
    lengths = torch.full((300,), length)
    ramp = torch.arange(float(length))[None, :, None].expand(300, -1, 1)
    warped = time_warp(ramp.contiguous(), lengths, 5, generator=generator(9))
    assert warped.min() == 0
    assert warped.max() == length - 1
    assert (warped[:, 1:] >= warped[:, :-1]).all()
    shift = (warped - ramp).abs().amax(dim=(1, 2))
    assert 4 < shift.max() <= 5.5
    assert (shift < 0.5).any()


def test_short_utterances_are_not_warped():
    lengths = torch.tensor([11, 5, 0])
    features = features_like(lengths, dim=2)
    assert torch.equal(time_warp(features, lengths, 5, generator=generator()), features)
