"""Masks on the encoder's input: what they replace, how much, and that evaluation is untouched."""

import pytest
import torch

from espnet_lite.nn.input_mask import InputMask

LENGTHS = torch.tensor([40, 25])


def build(**numbers) -> InputMask:
    sizes = {"time_probability": 0.0, "time_span": 5, "channel_probability": 0.0, "channel_span": 4}
    return InputMask(16, **{**sizes, **numbers})


def x() -> torch.Tensor:
    return torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(0))


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_evaluation_changes_nothing():
    mask = build(time_probability=0.9, channel_probability=0.9).eval()
    assert torch.equal(mask(x(), LENGTHS), x())


def test_masked_frames_are_the_embedding_and_no_padding_is():
    mask = build(time_probability=0.5)
    masked = mask(x(), LENGTHS, generator())
    replaced = (masked == mask.embedding).all(dim=2)
    assert torch.equal(masked[~replaced], x()[~replaced])
    assert not replaced[1, 25:].any()
    # 4 spans of 5 of 40 frames and 2.5 of 25, overlaps allowed
    assert 5 <= replaced[0].sum() <= 20 and 5 <= replaced[1].sum() <= 15


def test_masked_channels_are_zero_in_all_frames_of_an_utterance():
    masked = build(channel_probability=0.5)(x(), LENGTHS, generator())
    zero = masked == 0
    assert torch.equal(zero.any(dim=1), zero.all(dim=1))
    assert all(4 <= count <= 8 for count in zero.all(dim=1).sum(dim=1).tolist())
    assert torch.equal(masked[~zero], x()[~zero])


def test_the_generator_decides_and_training_needs_one():
    mask = build(time_probability=0.5, channel_probability=0.2)
    assert torch.equal(mask(x(), LENGTHS, generator(1)), mask(x(), LENGTHS, generator(1)))
    assert not torch.equal(mask(x(), LENGTHS, generator(1)), mask(x(), LENGTHS, generator(2)))
    with pytest.raises(ValueError, match=r"torch\.Generator"):
        mask(x(), LENGTHS)


def test_the_embedding_learns():
    mask = build(time_probability=0.5)
    mask(x(), LENGTHS, generator()).sum().backward()
    assert (mask.embedding.grad > 0).all()


def test_an_embedding_that_is_never_used_has_a_gradient_of_zeros():
    mask = build()
    masked = mask(x(), LENGTHS, generator())
    masked.sum().backward()
    assert torch.equal(masked, x()) and not mask.embedding.grad.any()
