"""The decoder against ESPnet's stored numbers, and its masks."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from espnet_lite.models.espnet_keys import decoder_from_espnet
from espnet_lite.nn.decoder import TransformerDecoder
from espnet_lite.nn.dropout import Dropout

GOLDEN = Path(__file__).parents[1] / "golden" / "espnet_decoder.safetensors"
NUMBERS = {"vocab": 7, "dim": 8, "heads": 2, "feed_forward": 12, "layers": 2}


@pytest.fixture(scope="module")
def golden():
    """Return (numbers, tensors) of ESPnet's decoder; tools/make_espnet_golden.py wrote them."""
    with safe_open(GOLDEN, "pt") as file:
        numbers = json.loads(file.metadata()["golden"])["numbers"]
        return numbers, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.fixture
def decoder():
    torch.manual_seed(3)
    return TransformerDecoder(**NUMBERS).eval()


@pytest.fixture
def inputs():
    """Return (tokens_in, token_lengths, encoded, encoded_lengths) of three utterances."""
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(0, 7, (3, 5), generator=generator)
    encoded = torch.randn(3, 6, 8, generator=generator)
    return tokens, torch.tensor([5, 1, 3]), encoded, torch.tensor([4, 6, 1])


def test_equals_espnet(golden):
    numbers, tensors = golden
    decoder = TransformerDecoder(**numbers).eval()
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if "weights/" in k}
    decoder.load_state_dict(decoder_from_espnet(weights))
    logits = decoder(
        tensors["tokens_in"],
        tensors["token_lengths"],
        tensors["encoded"],
        tensors["encoded_lengths"],
    )
    assert logits.shape == tensors["logits"].shape == (2, 5, 11)
    assert tensors["logits"].std() > 0.1  # the fixture says something
    for row, length in enumerate([5, 3]):
        torch.testing.assert_close(
            logits[row, :length], tensors["logits"][row, :length], rtol=0, atol=1e-5
        )


def test_later_tokens_do_not_change_earlier_ones(decoder, inputs):
    tokens, _, encoded, encoded_lengths = inputs
    lengths = torch.full((3,), 5)
    before = decoder(tokens, lengths, encoded, encoded_lengths)
    changed = tokens.clone()
    changed[:, 3:] = (tokens[:, 3:] + 1) % 7
    after = decoder(changed, lengths, encoded, encoded_lengths)
    torch.testing.assert_close(after[:, :3], before[:, :3], rtol=0, atol=1e-6)
    assert (after[:, 3:] - before[:, 3:]).abs().amax(dim=-1).min() > 1e-3


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_each_utterance_alone_equals_it_in_a_padded_batch(inputs, mode):
    decoder = TransformerDecoder(**NUMBERS, dropout=0.0).train(mode == "train")
    tokens, token_lengths, encoded, encoded_lengths = inputs
    valid = torch.arange(5) < token_lengths[:, None]
    encoded_valid = torch.arange(6) < encoded_lengths[:, None]
    # Padding of every kind: -1 tokens and frames that would ruin a sum.
    batch = decoder(
        tokens.where(valid, -1),
        token_lengths,
        encoded.where(encoded_valid[..., None], 1e4),
        encoded_lengths,
    )
    for row, (size, frames) in enumerate(zip(token_lengths, encoded_lengths, strict=True)):
        alone = decoder(
            tokens[row : row + 1, :size],
            token_lengths[row : row + 1],
            encoded[row : row + 1, :frames],
            encoded_lengths[row : row + 1],
        )
        torch.testing.assert_close(batch[row, :size], alone[0], rtol=0, atol=2e-6)


def test_no_encoded_frame_at_all_is_finite_with_finite_gradient(decoder, inputs):
    tokens, token_lengths, encoded, _ = inputs
    encoded = encoded.requires_grad_()
    logits = decoder(tokens, token_lengths, encoded, torch.tensor([0, 6, 1]))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert encoded.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in decoder.parameters())


def test_gradient_reaches_every_parameter_and_all_valid_frames_only(inputs):
    decoder = TransformerDecoder(**NUMBERS).train()
    tokens, token_lengths, encoded, encoded_lengths = inputs
    encoded = encoded.requires_grad_()
    logits = decoder(tokens, token_lengths, encoded, encoded_lengths)
    valid = torch.arange(5) < token_lengths[:, None]
    logits.log_softmax(dim=-1)[..., 0][valid].sum().backward()
    dead = {
        name
        for name, parameter in decoder.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    # A key's bias adds the same number to all scores of a query: softmax does not see it.
    assert {name for name in dead if not name.endswith("key.bias")} == set()
    reached = encoded.grad.abs().sum(dim=-1) > 0
    assert torch.equal(reached, torch.arange(6) < encoded_lengths[:, None])


def test_dropout_is_where_espnet_has_it():
    decoder = TransformerDecoder(**NUMBERS, dropout=0.3, attention_dropout=0.2)
    rates = {
        name: module.p for name, module in decoder.named_modules() if isinstance(module, Dropout)
    }
    expected = {"positions.dropout": 0.3}
    for block in ("blocks.0", "blocks.1"):
        expected |= {f"{block}.dropout": 0.3, f"{block}.feed_forward.dropout": 0.3}
        expected |= {f"{block}.self_attention.dot_product.dropout": 0.2}
        expected |= {f"{block}.cross_attention.dot_product.dropout": 0.2}
    assert rates == expected


def test_one_token_and_one_frame(decoder):
    logits = decoder(
        torch.tensor([[6]]), torch.tensor([1]), torch.randn(1, 1, 8), torch.tensor([1])
    )
    assert logits.shape == (1, 1, 7)
    assert logits.isfinite().all()
