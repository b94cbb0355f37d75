"""Front ends over the waveform, and positional convolutions, of integers on the kernels give what they
give in torch."""

import pytest
import torch
from torch import nn

from espnet_lite.config import from_plain
from espnet_lite.errors import InputError
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.quantize.calibration import start_activations
from espnet_lite.quantize.export import export_model
from espnet_lite.quantize.layers import QuantizedPositional
from espnet_lite.quantize.policy import Rule, quantize_modules
from espnet_lite.runtime.format import write_packed
from espnet_lite.runtime.fused_waveform import FusedWaveformFrontEnd
from espnet_lite.runtime.kernel_modules import KernelConv1d, KernelPositional
from espnet_lite.runtime.kernels import use_kernels
from espnet_lite.runtime.packed_model import PackedModel

WAVEFORM = {"name": "waveform", "convolutions": [[24, 10, 5], [64, 3, 4], [64, 2, 4], [24, 2, 2]]}
ENCODER = {"dim": 16, "layers": 1, "heads": 2, "feed_forward": 32}
HUBERT = {"name": "hubert_base", **ENCODER, "position_kernel": 6, "position_groups": 2}
EIGHT = {"weight_bits": 8.0, "activation_bits": 8}


def packed(small_models, folder, rules, **plain) -> tuple[AsrModel, PackedModel, PackedModel]:
    """Return a recognizer of random weights with its rules put in, packed, and on kernels."""
    torch.manual_seed(1)
    model = AsrModel(from_plain(AsrConfig, plain), vocab=7).eval()
    for layer in model.front_end.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
    quantize_modules(model, rules, where="rules")
    start_activations(model, lambda: model.encode(*small_models.speech(9000, 9000)))
    exported = export_model(model.eval())
    header = {**small_models.header_of(model), "quantized": exported.quantized}
    write_packed(folder / "model.esp", exported.tensors, header)
    path = folder / "model.esp"
    return model, PackedModel.load(path), use_kernels(PackedModel.load(path))


def compare(small_models, plain: nn.Module, fast: nn.Module, *, largest: float = 0.05) -> None:
    """Let both read clips of different lengths, one too short; few numbers may differ by a code."""
    audio = small_models.speech(9000, 5000, 100)
    with torch.inference_mode():
        expected, lengths = plain(*audio)
        found, frames = fast(*audio)
        assert frames.equal(lengths) and lengths.tolist()[2] == 0
        spread = expected[0].std()
        for row, count in enumerate(lengths.tolist()[:2]):
            difference = (found[row, :count] - expected[row, :count]).abs() / spread
            assert difference.median() < 1e-3
            assert difference.max() < largest
        alone, _ = fast(audio[0][1:2, :5000], audio[1][1:2])
        count = int(lengths[1])
        torch.testing.assert_close(alone[0, :count], found[1, :count], atol=0.05, rtol=0)


def test_a_waveform_front_end_whose_first_convolution_is_of_floats(small_models, tmp_path):
    parts = ("front_end.convolutions.[1-9].*", "front_end.projection")
    rules = [Rule(("front_end",), **EIGHT, modules=parts)]
    _, plain, fast = packed(small_models, tmp_path, rules, front_end=WAVEFORM, encoder=HUBERT)
    assert isinstance(fast.front_end, FusedWaveformFrontEnd)
    compare(small_models, plain.front_end, fast.front_end)


@pytest.mark.parametrize("bits", [(8.0, 8), (1.0, 8), (2.0, 4), (8.0, 32), (32.0, 8)])
def test_a_waveform_front_end_of_integers_from_the_samples_on(small_models, tmp_path, bits):
    first = {"weight_bits": bits[0], "activation_bits": bits[1]}
    rules = [
        Rule(("front_end",), **first, modules=("front_end.convolutions.0.*",)),
        Rule(("front_end",), **EIGHT, modules=("front_end.convolutions.[1-9].*",)),
    ]
    _, plain, fast = packed(small_models, tmp_path, rules, front_end=WAVEFORM, encoder=HUBERT)
    assert isinstance(fast.front_end, FusedWaveformFrontEnd)
    compare(small_models, plain.front_end, fast.front_end)


def test_a_waveform_front_end_with_norms_in_each_layer(small_models, tmp_path):
    """That of HuBERT Large: LayerNorm lies between the convolutions, which are exchanged alone."""
    front_end = {**WAVEFORM, "norm": "layer", "conv_bias": True, "normalize": True}
    rules = [Rule(("front_end",), **EIGHT)]
    _, plain, fast = packed(small_models, tmp_path, rules, front_end=front_end, encoder=HUBERT)
    kinds = [type(module) for module in fast.front_end.modules()]
    assert kinds.count(KernelConv1d) == 4
    compare(small_models, plain.front_end, fast.front_end)


@pytest.mark.parametrize("kernel", [6, 5])
@pytest.mark.parametrize("bits", [(8.0, 8), (1.0, 8), (4.0, 2)])
def test_a_positional_convolution(small_models, tmp_path, kernel, bits):
    rules = [Rule(("conv_positional",), weight_bits=bits[0], activation_bits=bits[1])]
    encoder = {**HUBERT, "position_kernel": kernel}
    model, plain, fast = packed(small_models, tmp_path, rules, front_end=WAVEFORM, encoder=encoder)
    trained, there, quick = (each.encoder.positions for each in (model, plain, fast))
    assert isinstance(trained, QuantizedPositional) and isinstance(quick, KernelPositional)
    x = torch.randn(2, 33, 16)
    with torch.inference_mode():
        expected = there(x)
        torch.testing.assert_close(trained(x), expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(quick(x), expected, atol=1e-5, rtol=1e-5)
        assert quick(x[:, :1]).shape == (2, 1, 16)
    by_values = trained(x)  # with a gradient: products of what the codes stand for
    torch.testing.assert_close(by_values, expected, atol=1e-4, rtol=1e-4)
    by_values.square().sum().backward()
    assert trained.direction.grad.abs().max() > 0 and trained.magnitude.grad.abs().max() > 0


def test_only_weights_of_a_positional_convolution(small_models, tmp_path):
    rules = [Rule(("conv_positional",), weight_bits=4.0)]
    _, plain, fast = packed(small_models, tmp_path, rules, front_end=WAVEFORM, encoder=HUBERT)
    x = torch.randn(2, 20, 16)
    with torch.inference_mode():
        expected = plain.encoder.positions(x)
        torch.testing.assert_close(fast.encoder.positions(x), expected, atol=1e-5, rtol=1e-5)


def test_a_positional_convolution_needs_a_code_of_nothing(small_models, tmp_path):
    rules = [Rule(("conv_positional",), weight_bits=1.0, activation_bits=1)]
    with pytest.raises(InputError, match=r"encoder.positions: activation_bits 1, expected 2 or"):
        packed(small_models, tmp_path, rules, front_end=WAVEFORM, encoder=HUBERT)
