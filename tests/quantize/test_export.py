"""A packed file computes what the fake-quantized model does: its integers exactly, the rest within
1e-4, for every encoder at every policy."""

import json
import math
import struct

import pytest
import torch

from espnet_lite.errors import InputError
from espnet_lite.quantize.export import export_model
from espnet_lite.quantize.policy import quantize_modules
from espnet_lite.quantize.quantizers import ActivationQuantizer, BitWeight, LsqActivation
from espnet_lite.runtime.bits import PackedIntegers, unpack_integers
from espnet_lite.runtime.format import read_packed, write_packed
from espnet_lite.runtime.kernel_modules import KernelLinear
from espnet_lite.runtime.kernels import use_kernels
from espnet_lite.runtime.pack import PackPolicy, apply_policy
from espnet_lite.runtime.packed_model import PackedModel
from espnet_lite.runtime.quantized import IntegerLinear


def pack(model, path, header):
    exported = export_model(model)
    header = {**header, "quantized": exported.quantized}
    write_packed(path, exported.tensors, header)
    return exported


def log_probs(model, *audio):
    with torch.no_grad():
        output = model.encode(*audio)
        return model.ctc_log_probs(output.encoded), output.lengths


def test_a_packed_file_computes_what_the_fake_quantized_model_does(
    small_models, encoder, policy, tmp_path
):
    model = small_models.quantized_model(encoder, policy)
    pack(model, tmp_path / "model.esp", small_models.header_of(model))
    packed = PackedModel.load(tmp_path / "model.esp")
    audio = small_models.speech(16000, 9000, 5001)
    expected, lengths = log_probs(model, *audio)
    found, frames = packed.log_probs(*audio)
    assert frames.tolist() == lengths.tolist()
    for row, count in enumerate(frames.tolist()):
        torch.testing.assert_close(found[row, :count], expected[row, :count], atol=1e-4, rtol=0)
    plain, _ = log_probs(small_models.small_model(encoder), *audio)
    assert (found[0] - plain[0]).abs().max() > 1e-3  # the bits do count


@pytest.mark.parametrize("encoder", ["transformer", "conformer", "squeezeformer"])
@pytest.mark.parametrize("policy", ["w8a8", "w1a8", "w1a1"])
def test_bf16_of_what_is_left_changes_nothing_where_all_matrices_are_quantized(
    small_models, encoder, policy, tmp_path
):
    """As recipes pack: what training validated is what is packed, to the last bit."""
    model = small_models.quantized_model(encoder, policy)
    exported = export_model(model)
    tensors = apply_policy(exported.tensors, PackPolicy(weights="bf16"))
    header = {**small_models.header_of(model), "quantized": exported.quantized}
    write_packed(tmp_path / "bf16.esp", tensors, header)
    pack(model, tmp_path / "fp32.esp", small_models.header_of(model))
    audio = small_models.speech(16000)
    of_both = [
        PackedModel.load(tmp_path / f"{name}.esp").log_probs(*audio)[0] for name in ("bf16", "fp32")
    ]
    assert torch.equal(*of_both)


@pytest.mark.parametrize("policy", ["w1a8", "w1a1"])
def test_each_module_for_the_inputs_that_training_sees(small_models, encoder, policy, tmp_path):
    """With gradients on, the fake-quantized layers multiply codes · scale as real numbers."""
    model = small_models.quantized_model(encoder, policy)
    pack(model, tmp_path / "model.esp", small_models.header_of(model))
    packed = PackedModel.load(tmp_path / "model.esp")
    names = read_packed(tmp_path / "model.esp")[0]["quantized"]
    checked = []

    def compare(name):
        def hook(module, inputs, output):
            with torch.no_grad():
                found = packed.get_submodule(name)(*inputs)
            scale = output.abs().max()
            assert (found - output).abs().max() <= 1e-5 * scale + 1e-6, name
            checked.append(name)

        return hook

    for name in names:
        model.get_submodule(name).register_forward_hook(compare(name))
    audio = small_models.speech(16000, 9000)
    model.encode(*audio)
    assert {*checked} == {name for name in names if name != "ctc_head"}
    for name in names:
        layer = model.get_submodule(name)
        if hasattr(layer, "weight"):
            codes = layer.weight_quantizer.codes(layer.weight).codes
            assert torch.equal(codes.to(torch.int8), packed.get_submodule(name).weight), name


def test_padding_and_batch_change_no_valid_frame(small_models, tmp_path):
    """Even where 0 has another code than 0: what is not valid adds nothing to a convolution."""
    model = small_models.quantized_model("conformer", "w1a1")
    pack(model, tmp_path / "model.esp", small_models.header_of(model))
    packed = PackedModel.load(tmp_path / "model.esp")
    waveform, lengths = small_models.speech(16000, 7000, 4000)
    together, frames = packed.log_probs(waveform, lengths)
    for row, count in enumerate(lengths.tolist()):
        alone, _ = packed.log_probs(waveform[row : row + 1, :count], lengths[[row]])
        valid = int(frames[row])
        torch.testing.assert_close(together[row, :valid], alone[0, :valid], atol=1e-4, rtol=0)


def test_one_layer_by_the_documented_bytes_alone(small_models, tmp_path):
    """docs/packed_format.md read with struct and json: a W1A1 layer in Python's own arithmetic."""
    model = small_models.quantized_model("transformer", "w1a1")
    with torch.no_grad():  # a threshold that is not 0
        model.encoder.blocks[1].feed_forward.expand.input_quantizer.shift.fill_(0.25)
    pack(model, tmp_path / "model.esp", small_models.header_of(model))
    name = "encoder.blocks.1.feed_forward.expand"
    content = (tmp_path / "model.esp").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    layout = json.loads(content[8 : 8 + size])
    header = json.loads(layout["__metadata__"]["espnet_lite"])
    form = header["quantized"][name]
    assert form["input"] == {
        "quantizer": "bit",
        "bits": 1,
        "signed": True,
        "sparse": False,
        "scales": 1,
    }

    def stored(key, letter):
        start, end = layout[f"{name}.{key}"]["data_offsets"]
        raw = content[8 + size + start : 8 + size + end]
        return struct.unpack(f"<{len(raw) // struct.calcsize(letter)}{letter}", raw)

    rows, columns = header["tensors"][f"{name}.weight"]["shape"]
    packed_bytes = stored("weight", "B")
    in_a_row = len(packed_bytes) // rows
    x = [math.sin(3 * i) for i in range(columns)]
    (scale,), (offset,) = stored("input.scale", "f"), stored("input.offset", "f")
    expected = []
    for row in range(rows):
        total = 0
        for i in range(columns):
            bit = packed_bytes[row * in_a_row + i // 8] >> (i % 8) & 1
            total += (2 * bit - 1) * (1 if x[i] >= offset else -1)
        expected.append(total * scale * stored("weight_scale", "f")[row] + stored("bias", "f")[row])
    layer = PackedModel.load(tmp_path / "model.esp").get_submodule(name)
    assert isinstance(layer, IntegerLinear)
    torch.testing.assert_close(layer(torch.tensor(x)), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_what_is_stored_of_each_policy(small_models, tmp_path):
    stored = {"w1.58a8": "int2", "w3a5": "int4", "w8a8": "int8", "w1a1": "int1", "w16a8": None}
    for policy, encoding in stored.items():
        exported = export_model(small_models.quantized_model("conformer", policy))
        weight = exported.tensors["encoder.blocks.0.convolution.depthwise.weight"]
        if encoding is None:
            assert isinstance(weight, torch.Tensor) and weight.dtype == torch.float32
        else:
            assert isinstance(weight, PackedIntegers) and weight.encoding == encoding
            assert weight.shape == (16, 1, 5)
        assert not any("quantizer" in name for name in exported.tensors)
    ternary = export_model(small_models.quantized_model("transformer", "w1.58a8")).tensors
    codes = unpack_integers(ternary["encoder.blocks.0.attention.query.weight"])
    assert {*codes.flatten().tolist()} == {-1, 0, 1}


def test_a_plain_model_is_exported_as_it_is(small_models):
    model = small_models.small_model("transformer")
    exported = export_model(model)
    assert exported.quantized == {}
    assert exported.tensors.keys() == model.state_dict().keys()


def test_a_model_without_scales_is_refused(small_models):
    model = small_models.small_model("transformer")
    quantize_modules(model, small_models.rules_of("w1a1", "transformer"), where="rules")
    with pytest.raises(InputError, match=r"scale': has values that are not finite"):
        export_model(model)


@pytest.mark.parametrize("policy", ["w8a8", "w1.58a8", "w1a8", "w16a8"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(small_models, policy, value):
    """Before codes are made of them, which have no NaN."""
    model = small_models.quantized_model("conformer", policy)
    name = next(name for name in model.state_dict() if "blocks.1" in name and "expand.w" in name)
    with torch.no_grad():
        model.get_parameter(name)[1, 2] = value
    with pytest.raises(InputError, match=f"^tensor '{name}': has values that are not finite;"):
        export_model(model)


class RoundedUp(LsqActivation):
    """A newcomer's: its codes are others than those of what it is derived from."""


class OfAnotherKind(ActivationQuantizer):
    """A newcomer's of its own."""

    IS_DYNAMIC = True


@pytest.mark.parametrize("cls", [RoundedUp, OfAnotherKind])
@pytest.mark.parametrize("place", ["feed_forward.expand.input_quantizer", "dot_product.value"])
def test_a_quantizer_that_the_format_does_not_know_is_refused(small_models, cls, place):
    model = small_models.quantized_model("transformer", "w1a8")
    names = [name for name, _ in model.named_modules() if name.endswith(place)]
    model.set_submodule(names[0], cls(bits=8, signed=True))
    with pytest.raises(InputError) as raised:
        export_model(model)
    text = str(raised.value)
    assert f"no activation quantizer {cls.__name__}, expected one of BitActivation, LsqAct" in text
    assert text.startswith(names[0].removesuffix("_quantizer"))
    assert "espnet_lite/runtime/activations.py" in text


@pytest.mark.parametrize("policy", ["w1a1", "w1a8", "w1a16"])
def test_channels_of_one_bit_weights_that_are_all_zero(small_models, encoder, policy, tmp_path):
    """One bit has no code for 0: their scale is 0, and what comes out of them is the bias."""
    model = small_models.quantized_model(encoder, policy)
    layers = {
        name: layer
        for name, layer in model.encoder.named_modules(prefix="encoder")
        if isinstance(getattr(layer, "weight_quantizer", None), BitWeight)
    }
    with torch.no_grad():
        for layer in layers.values():
            layer.weight[1] = 0.0
    pack(model, tmp_path / "model.esp", small_models.header_of(model))
    packed = PackedModel.load(tmp_path / "model.esp")
    fast = use_kernels(PackedModel.load(tmp_path / "model.esp"))
    for name, layer in layers.items():
        replaced = packed.get_submodule(name)
        assert replaced.weight_scale[1] == 0.0 and (replaced.weight_scale == 0).sum() == 1
        if isinstance(replaced, IntegerLinear):
            x = torch.randn(2, 3, layer.in_features)
            made = KernelLinear(replaced) if replaced.has_codes else replaced
            bias = 0.0 if layer.bias is None else layer.bias[1]
            for found in (layer(x), replaced(x), made(x)):
                assert (found[..., 1] == bias).all(), name
    audio = small_models.speech(16000, 9000)
    expected, lengths = log_probs(model, *audio)
    found, _ = packed.log_probs(*audio)
    on_kernels, _ = fast.log_probs(*audio)
    for row, count in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[row, :count], expected[row, :count], atol=1e-4, rtol=0)
        assert (on_kernels[row, :count] - expected[row, :count]).abs().median() < 1e-3
