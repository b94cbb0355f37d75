"""State dicts of ESPnet's decoder and encoders: names there and back, and the same output."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from espnet_lite.encoders.conformer import ConformerConfig, ConformerEncoder
from espnet_lite.encoders.transformer import TransformerConfig, TransformerEncoder
from espnet_lite.errors import InputError
from espnet_lite.models.espnet_keys import (
    conformer_from_espnet,
    conformer_to_espnet,
    decoder_from_espnet,
    decoder_to_espnet,
    encoder_from_espnet,
    encoder_to_espnet,
)
from espnet_lite.nn.decoder import TransformerDecoder
from espnet_lite.nn.subsampling import Conv2dSubsampling4

GOLDEN = Path(__file__).parents[1] / "golden"


def read(name: str) -> tuple[dict, dict, dict]:
    """Return (numbers, weights, inputs and outputs) that tools/make_espnet_golden.py stored."""
    with safe_open(GOLDEN / f"espnet_{name}.safetensors", "pt") as file:
        numbers = json.loads(file.metadata()["golden"])["numbers"]
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if "weights/" in k}
    return numbers, weights, tensors


@pytest.mark.parametrize(
    "name, there, back",
    [
        ("decoder", decoder_from_espnet, decoder_to_espnet),
        ("encoder", encoder_from_espnet, encoder_to_espnet),
        ("conformer", conformer_from_espnet, conformer_to_espnet),
    ],
)
def test_espnet_to_ours_and_back_is_bit_equal(name, there, back):
    _, weights, _ = read(name)
    ours = there(weights)
    assert len(ours) == len([key for key in weights if "num_batches" not in key])
    assert not set(ours) & set(weights) - {"norm.weight"}
    again = back(ours)
    assert sorted(again) == sorted(weights)
    assert all(torch.equal(again[key], weights[key]) for key in weights)


def test_ours_to_espnet_and_back_is_bit_equal():
    decoder = TransformerDecoder(vocab=5, dim=8, heads=2, feed_forward=6, layers=12)
    state = decoder.state_dict()
    espnet = decoder_to_espnet(state)
    assert "decoders.11.src_attn.linear_out.bias" in espnet
    again = decoder_from_espnet(espnet)
    assert list(again) == list(state)
    assert all(torch.equal(again[key], state[key]) for key in state)


def test_every_tensor_lands_where_it_belongs():
    _, weights, _ = read("decoder")
    ours = decoder_from_espnet(weights)
    pairs = {
        "embed.0.weight": "embedding.weight",
        "decoders.1.norm2.bias": "blocks.1.cross_attention_norm.bias",
        "decoders.0.self_attn.linear_k.weight": "blocks.0.self_attention.key.weight",
        "decoders.1.src_attn.linear_v.bias": "blocks.1.cross_attention.value.bias",
        "decoders.0.feed_forward.w_2.weight": "blocks.0.feed_forward.contract.weight",
        "output_layer.bias": "output.bias",
    }
    for there, here in pairs.items():
        assert torch.equal(ours[here], weights[there])


def test_encoder_equals_espnet():
    numbers, weights, tensors = read("encoder")
    subsampling = Conv2dSubsampling4(numbers["mels"], numbers["dim"], channels=numbers["dim"])
    encoder = TransformerEncoder(
        TransformerConfig(
            dim=numbers["dim"],
            layers=numbers["layers"],
            heads=numbers["heads"],
            feed_forward=numbers["feed_forward"],
        )
    ).eval()
    ours = encoder_from_espnet(weights)
    prefix = "front_end.subsampling."
    subsampling.load_state_dict(
        {k.removeprefix(prefix): v for k, v in ours.items() if k.startswith(prefix)}
    )
    encoder.load_state_dict(
        {k.removeprefix("encoder."): v for k, v in ours.items() if k.startswith("encoder.")}
    )
    frames, lengths = subsampling(tensors["features"], tensors["feature_lengths"])
    # ESPnet thins out the mask and so keeps two frames of the shorter utterance that saw padding.
    assert lengths.tolist() == [10, 6]
    assert tensors["encoded_lengths"].tolist() == [10, 8]
    embedded = encoder.sinusoids(frames)
    torch.testing.assert_close(embedded, tensors["embedded"], rtol=0, atol=2e-5)
    output = encoder(frames, tensors["encoded_lengths"])
    for row, length in enumerate([10, 8]):
        torch.testing.assert_close(
            output.encoded[row, :length], tensors["encoded"][row, :length], rtol=0, atol=2e-5
        )


@pytest.fixture
def conformer():
    """Return our subsampling and encoder with ESPnet's weights, and the tensors of the golden file."""
    numbers, weights, tensors = read("conformer")
    subsampling = Conv2dSubsampling4(numbers["mels"], numbers["dim"], channels=numbers["dim"])
    names = ("dim", "layers", "heads", "feed_forward", "kernel")
    encoder = ConformerEncoder(
        ConformerConfig(**{name: numbers[name] for name in names}, dropout=0.0)
    )
    ours = conformer_from_espnet(weights)
    for module, prefix in ((subsampling, "front_end.subsampling."), (encoder, "encoder.")):
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in ours.items() if k.startswith(prefix)}
        )
    return subsampling, encoder, tensors


@pytest.mark.parametrize("gradients", [True, False])
def test_conformer_equals_espnet(conformer, gradients):
    """Valid frames of a padded batch are those of each utterance alone."""
    subsampling, encoder, tensors = conformer
    with torch.set_grad_enabled(gradients):
        frames, lengths = subsampling(tensors["features"], tensors["feature_lengths"])
        output = encoder.eval()(frames, lengths)
    assert lengths.tolist() == [10, 6]
    for row, length in enumerate(lengths.tolist()):
        expected = tensors[f"encoded_{row}"]
        assert expected.shape == (length, encoder.dim)
        torch.testing.assert_close(output.encoded[row, :length], expected, rtol=0, atol=3e-5)


def test_conformer_in_training_equals_espnet(conformer):
    subsampling, encoder, tensors = conformer
    frames, lengths = subsampling(tensors["features"], torch.tensor([43, 43]))
    encoded = encoder.train()(frames, lengths).encoded
    torch.testing.assert_close(encoded, tensors["trained"], rtol=0, atol=3e-5)
    expected = conformer_from_espnet(
        {k.removeprefix("after/"): v for k, v in tensors.items() if k.startswith("after/")}
    )
    state = encoder.state_dict()
    assert len(expected) == 2 * len(encoder.blocks)
    for key, value in expected.items():
        torch.testing.assert_close(state[key.removeprefix("encoder.")], value, rtol=1e-5, atol=1e-6)


def test_a_foreign_key_is_named():
    key = "decoders.0.conv_mod.pointwise_conv1.weight"
    with pytest.raises(InputError) as error:
        decoder_from_espnet({key: torch.zeros(4, 3, 1)})
    assert f"'{key}'" in str(error.value)
    assert "(4, 3, 1)" in str(error.value)
    with pytest.raises(InputError, match=r"'encoders\.0\.self_attn\.pos_bias_u' .* ESPnet encoder"):
        encoder_from_espnet({"encoders.0.self_attn.pos_bias_u": torch.zeros(2, 8)})
    with pytest.raises(
        InputError, match=r"'encoders\.1\.norm1\.bias' .* a Conformer in macaron style"
    ):
        conformer_from_espnet({"encoders.1.norm1.bias": torch.zeros(8)})
