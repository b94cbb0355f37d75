"""The first layer over waveforms, of every level that this processor has, against torch's own layers."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from espnet_lite.kernels import waveform_convolution
from espnet_lite.kernels.activation_codes import ActivationCodes
from espnet_lite.kernels.library import library
from espnet_lite.kernels.waveform_convolution import ARGUMENTS, NormedConvolution

GIVES = {
    "floats": None,
    "8 bits": ActivationCodes("lsq", 0.02, low=-128, high=127),
    "unsigned 8": ActivationCodes("lsq", 0.02, low=0, high=255),
    "sign": ActivationCodes("sign", 0.4, offset=0.1),
    "binary": ActivationCodes("binary", 0.4, offset=0.1),
}


@pytest.fixture
def function(of_level):
    """Return the C function of one level."""
    return of_level("waveform_convolution", ARGUMENTS)


def waveforms(*samples: int) -> torch.Tensor:
    """Return noise around a mean that is not 0, and zeros behind it."""
    x = torch.zeros(len(samples), max(samples))
    for row, count in enumerate(samples):
        generator = torch.Generator().manual_seed(count)
        x[row, :count] = 0.3 + 0.05 * torch.randn(count, generator=generator)
    return x


def layer_of(channels: int, kernel: int, stride: int, **changed) -> NormedConvolution:
    torch.manual_seed(channels)
    return NormedConvolution(
        **{"weight": torch.randn(channels, kernel), **changed},
        stride=stride,
        norm_weight=torch.randn(channels),
        norm_bias=torch.randn(channels),
        epsilon=1e-5,
    )


def by_torch(layer: NormedConvolution, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return what torch's convolution, group norm and GELU make of whole clips, in fp64."""
    norm = nn.GroupNorm(layer.channels, layer.channels, eps=layer.epsilon).double()
    norm.weight.data, norm.bias.data = layer._norm
    y = functional.conv1d(x.double()[:, None], weight.double()[:, None], stride=layer.stride)
    return functional.gelu(norm(y)).mT.float()


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "samples"),
    [(1, 1, 1, 2), (16, 10, 5, 40), (35, 3, 4, 77), (24, 10, 5, 3000)],
)
@pytest.mark.parametrize("gives", GIVES)
def test_norm_and_gelu(function, channels, kernel, stride, samples, gives):
    layer = layer_of(channels, kernel, stride, gives=GIVES[gives])
    x = waveforms(samples, samples)
    x[1] *= 0.01
    frames = torch.tensor(2 * [(samples - kernel) // stride + 1])
    expected = by_torch(layer, x, layer.weight)
    for found in (layer.fused(function, x, frames), layer.reference(x, frames)):
        if GIVES[gives] is None:
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
            continue
        wanted = GIVES[gives](expected)[0] - GIVES[gives].zero
        differ = (found.float() - wanted).abs()
        assert differ.max() <= (2 if gives == "sign" else 1)  # at the edge of two codes
        assert (differ > 0).float().mean() < 0.01


def test_the_norm_is_blind_to_padding(function):
    layer = layer_of(20, 10, 5)
    together = layer.fused(function, waveforms(900, 400, 8), torch.tensor([179, 79, 0]))
    alone = layer.fused(function, waveforms(400), torch.tensor([79]))
    torch.testing.assert_close(together[1, :79], alone[0])
    assert together.isfinite().all()


def test_integers_are_summed_exactly(function):
    """Sums of codes, seen through a norm that is switched off: variance 0 beside a large epsilon."""
    codes = ActivationCodes("lsq", 0.01, low=-128, high=127)
    weight = torch.randint(-128, 128, (18, 10))
    layer = layer_of(18, 10, 5, weight=weight, codes=codes, weight_scale=torch.rand(18) + 0.1)
    x = waveforms(1200)
    frames = torch.tensor([239])
    values = codes(x)[0] * 0.01
    expected = by_torch(layer, values, weight * layer._worth[:, None] / 0.01)
    torch.testing.assert_close(layer.fused(function, x, frames), expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(layer.reference(x, frames), expected, atol=2e-5, rtol=2e-5)


def test_threads_change_nothing_and_torch_computes_the_same(function, monkeypatch):
    layer, x, frames = layer_of(40, 10, 5), waveforms(9000, 9000), torch.tensor([1799, 1799])
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(layer.fused(function, x, frames))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:  # torch's sums of the statistics may be of another order
        torch.testing.assert_close(other, found[0], atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(waveform_convolution, "kernel", lambda name, arguments: None)
    torch.testing.assert_close(layer(x, frames), found[0], atol=2e-5, rtol=2e-5)
    assert layer.fused(function, x[:, :9], frames).shape == (2, 0, 40)


def test_bad_arguments():
    with pytest.raises(ValueError, match="codes of kind 'absmax'"):
        layer_of(3, 5, 1, gives=ActivationCodes("absmax"))
    if library() is not None:
        with pytest.raises(ValueError, match=r"waveform \[9\] of torch.float32, expected 2 of"):
            layer_of(3, 5, 1)(torch.randn(9), torch.tensor([1]))
