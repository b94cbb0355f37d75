"""A packed recognizer computes what the trained one does, and refuses weights that are not its own."""

import pytest
import torch

from espnet_lite.config import from_plain
from espnet_lite.errors import InputError
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.runtime.format import write_packed
from espnet_lite.runtime.pack import PackPolicy, apply_policy, largest_difference
from espnet_lite.runtime.packed_model import PackedModel


def noise(*samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return zero-padded noise waveforms of these lengths."""
    waveform = torch.zeros(len(samples), max(samples))
    for row, count in enumerate(samples):
        generator = torch.Generator().manual_seed(count)
        waveform[row, :count] = 0.1 * torch.randn(count, generator=generator)
    return waveform, torch.tensor(samples)


def test_equals_the_model_that_was_trained(header, tensors, tmp_path):
    model_config = {key: header["architecture"][key] for key in ("front_end", "encoder")}
    trained = AsrModel(from_plain(AsrConfig, model_config), vocab=7).eval()
    trained.load_state_dict(tensors)
    write_packed(tmp_path / "model.esp", tensors, header)
    packed = PackedModel.load(tmp_path / "model.esp")
    waveform, lengths = noise(16000, 9000)
    log_probs, frames = packed.log_probs(waveform, lengths)
    with torch.no_grad():
        output = trained.encode(waveform, lengths)
        expected = trained.ctc_log_probs(output.encoded)
    assert frames.tolist() == output.lengths.tolist()
    assert frames[0] == (((98 - 1) // 2) - 1) // 2  # 98 feature frames, 3×3 stride 2 twice
    for row, count in enumerate(frames.tolist()):
        assert torch.equal(log_probs[row, :count], expected[row, :count])
    assert not log_probs.requires_grad
    assert packed.sample_rate == 16000
    assert packed.tokenizer.decode([3, 2, 4, 4]) == "a bb"


def test_padding_changes_no_valid_frame(header, tensors):
    packed = PackedModel.from_parts(header, tensors)
    waveform, lengths = noise(4800, 16000, 24001)
    together, frames = packed.log_probs(waveform, lengths)
    for row, count in enumerate(lengths.tolist()):
        alone, alone_frames = packed.log_probs(waveform[row : row + 1, :count], lengths[[row]])
        assert alone_frames[0] == frames[row]
        valid = int(frames[row])
        torch.testing.assert_close(together[row, :valid], alone[0, :valid], atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [1, 399, 400, 1200, 1359])
def test_too_short_for_one_frame(header, tensors, samples):
    """Seven feature frames of 25 ms every 10 ms make the first encoder frame: 1360 samples."""
    packed = PackedModel.from_parts(header, tensors)
    assert packed.log_probs(*noise(samples))[1].tolist() == [0]
    assert packed.log_probs(*noise(samples, 1360))[1].tolist() == [0, 1]


def test_bf16_is_stored_rounded_and_computed_in_fp32(header, tensors, tmp_path):
    stored = apply_policy(tensors, PackPolicy(weights="bf16"))
    write_packed(tmp_path / "model.esp", stored, header)
    packed = PackedModel.load(tmp_path / "model.esp")
    for name, tensor in packed.state_dict().items():
        expected = tensors[name].bfloat16().float() if tensors[name].ndim > 1 else tensors[name]
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected), name
    plain = PackedModel.from_parts(header, tensors)
    assert 0 < largest_difference(packed, plain, sample_rate=16000) < 0.1
    assert largest_difference(plain, plain, sample_rate=16000) == 0


def test_what_the_policy_stores(tensors):
    weights = {**tensors, "decoder.out.weight": torch.ones(2, 2), "decoder.out.bias": torch.ones(2)}
    kept = apply_policy(weights, PackPolicy(weights="bf16", decoder=True))
    assert kept.keys() == weights.keys()
    assert {name for name, tensor in kept.items() if tensor.dtype == torch.bfloat16} == {
        name for name, tensor in weights.items() if tensor.ndim > 1
    }
    for name in ("front_end.cmvn.mean", "encoder.norm.weight", "ctc_head.bias"):
        assert kept[name].dtype == torch.float32
    assert apply_policy(weights, PackPolicy(weights="fp32")).keys() == tensors.keys()


def test_the_decoder_section_is_kept_but_not_loaded(header, tensors, tmp_path):
    with_decoder = {**tensors, "decoder.out.weight": torch.ones(2, 2)}
    architecture = {**header["architecture"], "decoder": {"name": "transformer", "layers": 1}}
    write_packed(tmp_path / "model.esp", with_decoder, {**header, "architecture": architecture})
    packed = PackedModel.load(tmp_path / "model.esp")
    assert packed.header["architecture"]["decoder"]["layers"] == 1
    assert not any(name.startswith("decoder") for name in packed.state_dict())


def changed(header: dict, **architecture) -> dict:
    return {**header, "architecture": {**header["architecture"], **architecture}}


def test_weights_that_are_not_the_architectures(header, tensors):
    wider = {**tensors, "ctc_head.weight": torch.zeros(7, 17)}
    with pytest.raises(
        InputError, match=r"m\.esp: tensor 'ctc_head.weight' has the shape \[7, 17\].* \[7, 16\]"
    ):
        PackedModel.from_parts(header, wider, where="m.esp")
    less = {name: tensor for name, tensor in tensors.items() if name != "encoder.norm.bias"}
    with pytest.raises(InputError, match=r"tensor 'encoder.norm.bias' has no weights"):
        PackedModel.from_parts(header, less)
    with pytest.raises(InputError, match=r"tensor 'encoder.extra' is not in the architecture"):
        PackedModel.from_parts(header, {**tensors, "encoder.extra": torch.zeros(1)})
    with pytest.raises(InputError, match=r"tokenizer of 7 tokens beside a CTC head of 8"):
        PackedModel.from_parts(changed(header, vocab=8), tensors)
    with pytest.raises(InputError, match=r"m\.esp: .*unknown 'transformers'.*'transformer'"):
        PackedModel.from_parts(changed(header, encoder={"name": "transformers"}), {}, where="m.esp")


def test_a_senseless_policy():
    with pytest.raises(ValueError, match=r"weights 'int8' is not one of fp32, bf16"):
        PackPolicy(weights="int8")
