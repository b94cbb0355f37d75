"""A packed model on the kernels gives what it gives in torch, for every encoder at every policy."""

import pytest
import torch

from espnet_lite.quantize.export import export_model
from espnet_lite.runtime.format import write_packed
from espnet_lite.runtime.fused_blocks import FUSED_BLOCKS
from espnet_lite.runtime.kernel_modules import FloatWeights, KernelLinear
from espnet_lite.runtime.kernels import use_kernels
from espnet_lite.runtime.packed_model import PackedModel
from espnet_lite.runtime.quantized import IntegerLinear

# A number at the edge of two codes may get either: with few codes that is seen in the end.
TOLERANCE = {1: 0.2, 2: 0.1, 4: 0.03, 5: 0.03, 8: 0.01, 16: 0.02}


def both(small_models, encoder: str, policy: str, path) -> tuple[PackedModel, PackedModel]:
    """Return the model in torch and on kernels."""
    model = small_models.quantized_model(encoder, policy)
    exported = export_model(model)
    header = {**small_models.header_of(model), "quantized": exported.quantized}
    write_packed(path, exported.tensors, header)
    return PackedModel.load(path), use_kernels(PackedModel.load(path))


def test_kernels_give_what_torch_gives(small_models, encoder, policy, tmp_path):
    plain, fast = both(small_models, encoder, policy, tmp_path / "model.esp")
    activation_bits = next(
        layer.form.activation_bits
        for name, layer in plain.named_modules()
        if isinstance(layer, IntegerLinear) and "encoder" in name
    )
    audio = small_models.speech(16000, 9000, 5001)
    expected, lengths = plain.log_probs(*audio)
    found, frames = fast.log_probs(*audio)
    assert frames.equal(lengths)
    for row, count in enumerate(lengths.tolist()):
        difference = (found[row, :count] - expected[row, :count]).abs()
        assert difference.median() < 1e-3
        assert difference.max() < TOLERANCE.get(activation_bits, 1e-3)


@pytest.mark.parametrize("policy", ["w8a8", "w1a1"])
def test_all_blocks_are_fused(small_models, encoder, policy, tmp_path):
    _, fast = both(small_models, encoder, policy, tmp_path / "model.esp")
    assert all(type(block) in FUSED_BLOCKS.values() for block in fast.encoder.blocks)


def test_padding_changes_no_valid_frame(small_models, encoder, tmp_path):
    _, fast = both(small_models, encoder, "w1a8", tmp_path / "model.esp")
    together, lengths = fast.log_probs(*small_models.speech(16000, 9000))
    alone, _ = fast.log_probs(*small_models.speech(9000))
    count = int(lengths[1])
    torch.testing.assert_close(together[1, :count], alone[0, :count], atol=0.01, rtol=0)


def test_float_inputs_are_multiplied_in_floats(small_models, tmp_path):
    _, fast = both(small_models, "transformer", "w1a16", tmp_path / "model.esp")
    kinds = [type(module) for module in fast.encoder.modules()]
    assert kinds.count(FloatWeights) == 3 * 6 and KernelLinear not in kinds
