"""First scales come from valid frames alone; bad scales stop a training and name their module."""

import pytest
import torch
from torch import nn

from espnet_lite.encoders.families import ENCODERS
from espnet_lite.errors import InputError
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.quantize.calibration import ScaleWatch, cropped, start_activations
from espnet_lite.quantize.policy import Rule, quantize_modules
from espnet_lite.quantize.quantizers import BitActivation, LsqActivation

SMALL = {
    "transformer": {"layers": 2},
    "conformer": {"layers": 2, "kernel": 5},
    "squeezeformer": {"layers": 3, "reduce_after": 1, "recover_after": 2, "kernel": 5},
    "sparseformer": {"layers": 2, "window_seconds": 0.08, "global_tokens": 1},
}
KINDS = ("attention_linear", "attention_matmul", "feed_forward", "conv_pointwise")
KINDS += ("conv_depthwise", "subsampling", "head")


def quantized(encoder: str, weight_bits, activation_bits) -> AsrModel:
    torch.manual_seed(0)
    config = ENCODERS[encoder][0](dim=16, heads=2, feed_forward=24, **SMALL[encoder])
    model = AsrModel(AsrConfig(encoder=config), vocab=6).eval()
    rule = Rule(kinds=KINDS, weight_bits=weight_bits, activation_bits=activation_bits)
    quantize_modules(model, [rule], where="x.yaml")
    return model


def run(model: AsrModel, waveform) -> None:
    lengths = torch.full((len(waveform),), waveform.size(1))
    model.ctc_log_probs(model.encode(waveform, lengths).encoded)


@pytest.mark.parametrize("encoder", SMALL)
@pytest.mark.parametrize("bits", [(1, 1), (2, 4), (1.58, 8)])
def test_what_stands_in_padding_moves_no_valid_frame(encoder, bits):
    """Not by a bit. How much padding there is can move a value over a threshold by its rounding error,
    and with it all behind: that is tested where nothing lies behind, in test_layers."""
    model = quantized(encoder, *bits).encoder
    features, full = torch.randn(3, 20, 16), torch.tensor([20, 20, 20])
    start_activations(model, lambda: model(features, full))
    for frames in (7, 12):
        lengths = torch.tensor([frames, 20, 20])
        for context in (torch.enable_grad(), torch.inference_mode()):
            with context:
                zeros, threes = (
                    model(_with_padding(features, frames, value), lengths).encoded[0, :frames]
                    for value in (0.0, 3.0)
                )
            assert torch.equal(zeros, threes)


@pytest.mark.parametrize("encoder", SMALL)
def test_how_much_padding_there_is_moves_frames_of_eight_bits_by_rounding_only(encoder):
    model = quantized(encoder, 8, 8).encoder
    features = torch.randn(3, 20, 16)
    start_activations(model, lambda: model(features, torch.tensor([20, 20, 20])))
    together = model(_with_padding(features, 12, 3.0), torch.tensor([12, 20, 20])).encoded
    alone = model(features[:1, :12], torch.tensor([12])).encoded[0]
    assert (together[0, :12] - alone).norm() < 0.03 * alone.norm()


def _with_padding(features, frames: int, value: float):
    padded = features.clone()
    padded[0, frames:] = value
    return padded


def test_first_scales_are_those_of_what_quantized_layers_give():
    """Each quantizer is measured on the output of the quantized modules before it."""
    torch.manual_seed(0)
    model = nn.Sequential(BitActivation(bits=1, signed=True), BitActivation(bits=1, signed=True))
    x = torch.tensor([1.0, -2.0, 6.0])
    start_activations(model, lambda: model(x))
    assert model[0].scale_start.item() == model[1].scale_start.item() == 3.0
    assert not model[0].starting
    model(10 * x)
    assert model[0].scale_start.item() == 3.0  # static from then on


def test_what_is_not_reached_is_named():
    model = nn.Sequential(BitActivation(bits=1, signed=True), LsqActivation(bits=4, signed=True))
    with pytest.raises(ValueError, match="activations of 1 gave the scale nan"):
        start_activations(model, lambda: model[0](torch.ones(3)))


@pytest.mark.parametrize("cls", [BitActivation, LsqActivation])
@pytest.mark.parametrize("signed", [True, False])
def test_nothing_but_zeros_is_no_measurement(cls, signed):
    model = nn.Sequential(cls(bits=cls.BITS[0], signed=signed))
    with pytest.raises(ValueError, match="activations of 0 gave the scale 0"):
        start_activations(model, lambda: model(torch.zeros(3)))


def test_cropped_batches_have_no_padding():
    batch = cropped([torch.arange(5.0), torch.arange(3.0), torch.arange(4.0)])
    assert batch.tolist() == [[0, 1, 2]] * 3


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("scale_factor", 1e-4, "a learned scale is 0.0001 of what it began with"),
        ("scale_factor", -0.5, "a learned scale is -0.5"),
        ("scale_factor", float("nan"), "a learned scale is nan"),
        ("scale_factor", float("inf"), "a learned scale is inf"),
        ("shift", float("nan"), "the threshold of one-bit activations is nan"),
    ],
)
def test_a_bad_scale_stops_with_the_name_of_its_module(attribute, value, said):
    model = quantized("transformer", 4, 1)
    waveform = 0.1 * torch.randn(2, 8000)
    start_activations(model, lambda: run(model, waveform))
    watch = ScaleWatch(model)
    watch.check()
    module = model.encoder.blocks[1].feed_forward.contract.input_quantizer
    module.shift.data.fill_(-5.0)
    watch.check()
    getattr(module, attribute).data[0] = value
    with pytest.raises(InputError, match=r"encoder\.blocks\.1\.feed_forward\.contract") as error:
        watch.check()
    assert said in str(error.value)


def test_of_a_model_without_scales_nothing_is_watched():
    ScaleWatch(nn.Linear(2, 2)).check()
