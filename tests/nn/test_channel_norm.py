"""ChannelNorm against torch's GroupNorm of each utterance alone."""

import torch
from torch.nn import functional

from espnet_lite.nn.channel_norm import ChannelNorm

LENGTHS = torch.tensor([50, 31, 1])


def norm_and_input() -> tuple[ChannelNorm, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    norm = ChannelNorm(6)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(6, generator=generator))
        norm.bias.copy_(torch.randn(6, generator=generator))
    return norm, 3 + 2 * torch.randn(3, 6, 50, generator=generator)


def test_each_utterance_is_normalized_as_alone():
    norm, x = norm_and_input()
    y = norm(x, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = x[row : row + 1, :, :length].double()
        # torch refuses a single frame; its mean is itself, so that the bias is left.
        expected = (
            functional.group_norm(alone, 6, norm.weight.double(), norm.bias.double())[0]
            if length > 1
            else norm.bias.double()[:, None]
        )
        torch.testing.assert_close(y[row, :, :length].double(), expected, atol=2e-6, rtol=1e-5)


def test_padding_changes_nothing_and_gets_no_gradient():
    norm, x = norm_and_input()
    valid = torch.arange(50) < LENGTHS[:, None, None]
    loud = torch.where(valid, x, 1e3).requires_grad_()
    y = norm(loud, LENGTHS)
    kept = valid.expand_as(y)
    assert torch.equal(y[kept], norm(x, LENGTHS)[kept])
    y[kept].square().sum().backward()
    assert float(loud.grad[~kept].abs().max()) == 0.0


def test_no_frames_at_all_stay_numbers():
    norm, x = norm_and_input()
    assert torch.isfinite(norm(x, torch.tensor([0, 50, 50]))).all()


def test_half_precision_is_normalized_in_single():
    norm, x = norm_and_input()
    y = norm(x.bfloat16(), LENGTHS)
    assert y.dtype == torch.float32
    assert torch.equal(y, norm(x.bfloat16().float(), LENGTHS))


def test_parameters_are_named_as_group_norms():
    expected = torch.nn.GroupNorm(6, 6).state_dict()
    assert {k: v.shape for k, v in ChannelNorm(6).state_dict().items()} == {
        k: v.shape for k, v in expected.items()
    }
