"""Every encoder of the family: shapes, lengths, padding, layers, gradients, save and load."""

import dataclasses

import pytest
import torch
from safetensors.torch import load, save

from espnet_lite.encoders.families import ENCODERS
from espnet_lite.nn.masks import valid_mask

# Small members of each family; a new encoder needs a line here.
_NUMBERS = {"dim": 16, "layers": 3, "heads": 2, "feed_forward": 24}
_UNET = {"reduce_after": 1, "recover_after": 2}
_HUBERT = {**_NUMBERS, "position_kernel": 6, "position_groups": 4, "attention_dropout": 0.0}
SMALL = {
    "transformer": [_NUMBERS, {**_NUMBERS, "layers": 2, "positions": "rotary"}],
    # A window of one frame; the second sees all through a token.
    "sparseformer": [
        {**_NUMBERS, "window_seconds": 0.04},
        {**_NUMBERS, "window_seconds": 0.08, "global_tokens": 2},
    ],
    "conformer": [{**_NUMBERS, "kernel": 5}, {**_NUMBERS, "kernel": 1, "activation": "relu"}],
    "squeezeformer": [
        {**_NUMBERS, **_UNET, "kernel": 5},
        {**_NUMBERS, "layers": 4, "reduce_after": 1, "recover_after": 3, "kernel": 31},
    ],
    "hubert_base": [{**_HUBERT, "layerdrop": 0.0, "position_kernel": k} for k in (6, 5)],
    "hubert_large": [_HUBERT],
}
CASES = [(name, numbers) for name in ENCODERS for numbers in SMALL[name]]
LENGTHS = torch.tensor([9, 4, 1])
# In training their BatchNorm joins the utterances of a batch, whose frames are then not those of each
# alone; how much they are padded must not matter all the same.
BATCH_NORMALIZED = ("conformer", "squeezeformer")


def is_batch_normalized(encoder: torch.nn.Module) -> bool:
    return any(type(encoder.config) is ENCODERS[name][0] for name in BATCH_NORMALIZED)


def build(name: str, numbers: dict, *, dropout: float = 0.0) -> torch.nn.Module:
    schema, encoder = ENCODERS[name]
    torch.manual_seed(0)
    return encoder(schema(**numbers, dropout=dropout))


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].get('positions', 'default')}")
def encoder(request):
    """Return an encoder without dropout, in evaluation mode."""
    return build(*request.param).eval()


@pytest.fixture
def features():
    return torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(1))


def test_output_has_the_encoders_width_and_the_lengths(encoder, features):
    output = encoder(features, LENGTHS)
    assert output.encoded.shape == (3, 9, encoder.dim)
    assert torch.equal(output.lengths, LENGTHS)
    assert output.layers is None


@pytest.mark.parametrize("training", [False, True])
def test_padding_never_changes_a_valid_frame(encoder, features, training):
    encoder.train(training)
    with torch.no_grad():
        batched = encoder(features, LENGTHS).encoded
        loud = features.masked_fill(~valid_mask(LENGTHS, 9)[..., None], 1e3)
        changed = encoder(loud, LENGTHS).encoded
        for row, length in enumerate(LENGTHS.tolist()):
            assert torch.equal(batched[row, :length], changed[row, :length])
            if training and is_batch_normalized(encoder):
                continue
            alone = encoder(features[row : row + 1, :length], LENGTHS[row : row + 1]).encoded
            torch.testing.assert_close(batched[row, :length], alone[0], atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_more_padding_changes_no_valid_frame_and_no_gradient(encoder, features, training):
    """Also not where it is the only padding: without it no mask is applied at all."""
    encoder.train(training)
    for lengths in (LENGTHS, torch.tensor([9, 9, 9])):
        valid = valid_mask(lengths, 9)
        found = []
        for padding in (0, 1, 4):
            encoder.zero_grad()
            padded = torch.nn.functional.pad(features, (0, 0, 0, padding), value=7.0)
            encoded = encoder(padded, lengths).encoded[:, :9][valid]
            (encoded * torch.linspace(-1, 1, encoded.numel()).view_as(encoded)).sum().backward()
            found.append([encoded.detach(), *(p.grad.clone() for p in encoder.parameters())])
        for other in found[1:]:
            for a, b in zip(found[0], other, strict=True):
                torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-4)


def test_padding_gets_no_gradient(encoder, features):
    encoder.train()
    features.requires_grad_()
    valid = valid_mask(LENGTHS, 9)
    encoder(features, LENGTHS).encoded[valid].square().sum().backward()
    assert float(features.grad[~valid].abs().max()) == 0.0
    assert (features.grad[valid].abs().sum(-1) > 0).all()


def test_layers_are_the_input_and_each_blocks_output(encoder, features):
    output = encoder(features, LENGTHS, return_layers=True)
    assert len(output.layers) == len(encoder.blocks) + 1
    assert all(layer.shape == output.encoded.shape for layer in output.layers)
    torch.testing.assert_close(encoder.norm(output.layers[-1]), output.encoded)
    assert torch.equal(encoder(features, LENGTHS).encoded, output.encoded)
    seen = []
    encoder.blocks[0].register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    encoder(features, LENGTHS)
    ((given, out),) = seen
    assert torch.equal(out[:, -9:], output.layers[1])  # without what stands before the frames
    # HuBERT's are transformers' hidden states: there positions are part of what the blocks see.
    is_hubert = isinstance(encoder.config, ENCODERS["hubert_base"][0])
    assert torch.equal(given if is_hubert else features, output.layers[0])


def test_every_parameter_gets_a_gradient(encoder, features):
    encoder.train()
    encoded = encoder(features, LENGTHS).encoded
    (encoded * torch.randn_like(encoded))[valid_mask(LENGTHS, 9)].sum().backward()
    for name, parameter in encoder.named_parameters():
        # Moves all scores of a query alike, which softmax ignores, or a channel over all frames,
        # which BatchNorm does.
        if name.endswith(("key.bias", "convolution.depthwise.bias")):
            continue
        assert float(parameter.grad.abs().max()) > 1e-6, name


def test_saved_weights_give_the_same_output(encoder, features):
    schema, kind = ENCODERS[next(n for n, (s, _) in ENCODERS.items() if s is type(encoder.config))]
    other = kind(schema(**dataclasses.asdict(encoder.config))).eval()
    assert not torch.equal(other(features, LENGTHS).encoded, encoder(features, LENGTHS).encoded)
    other.load_state_dict(load(save(encoder.state_dict())))
    assert torch.equal(other(features, LENGTHS).encoded, encoder(features, LENGTHS).encoded)


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8])
def test_any_number_of_frames(encoder, frames):
    output = encoder(torch.randn(1, frames, 16), torch.tensor([frames]))
    assert output.encoded.shape == (1, frames, 16)
    assert torch.isfinite(output.encoded).all()


def test_an_utterance_without_frames_leaves_the_others_alone(encoder, features):
    encoder.train()
    lengths = torch.tensor([9, 0, 9])
    output = encoder(features, lengths)
    torch.testing.assert_close(
        output.encoded[::2], encoder(features[::2], lengths[::2]).encoded, atol=5e-6, rtol=1e-5
    )
    assert torch.isfinite(output.encoded).all()
    output.encoded[valid_mask(lengths, 9)].sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


@pytest.mark.parametrize(("name", "numbers"), CASES)
def test_dropout_acts_in_training_only_and_follows_torchs_generator(name, numbers, features):
    encoder = build(name, numbers, dropout=0.3)
    state = torch.get_rng_state()
    first, second = encoder(features, LENGTHS).encoded, encoder(features, LENGTHS).encoded
    torch.set_rng_state(state)
    assert torch.equal(encoder(features, LENGTHS).encoded, first)
    assert not torch.equal(first, second)
    plain = build(name, numbers).eval()
    plain.load_state_dict(encoder.state_dict())  # training moves BatchNorm's running statistics
    assert torch.equal(encoder.eval()(features, LENGTHS).encoded, plain(features, LENGTHS).encoded)


@pytest.mark.parametrize(("name", "numbers"), CASES)
def test_order_of_frames_matters(name, numbers, features):
    """A Transformer without positions would give the same frames in another order."""
    encoder = build(name, numbers).eval()
    lengths = torch.tensor([9, 9, 9])
    turned = encoder(features.flip(1), lengths).encoded.flip(1)
    assert not torch.allclose(turned, encoder(features, lengths).encoded, atol=1e-3)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"dim": 18, "heads": 4}, "dim 18 is not a multiple of 2 × heads 4"),
        ({"positions": "absolute"}, "positions 'absolute' is not one of sinusoidal, rotary"),
        ({"activation": "tanh"}, "activation 'tanh' is not one of relu, gelu, swish"),
        ({"layers": -1}, "layers -1 is not at least 1"),
        ({"heads": 0}, "heads 0 is not at least 1"),
        ({"dropout": 1.0}, "dropout 1.0 is not at least 0 and below 1"),
        ({"attention_dropout": 1.5}, "attention_dropout 1.5 is not at least 0 and below 1"),
    ],
)
def test_senseless_transformers_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        ENCODERS["transformer"][0](**numbers)


@pytest.mark.parametrize("name", BATCH_NORMALIZED)
@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"heads": 5}, "dim 256 is not a multiple of heads 5"),
        ({"kernel": 32}, "kernel 32 is not odd"),
        ({"kernel": 0}, "kernel 0 is not at least 1"),
        ({"activation": "tanh"}, "activation 'tanh' is not one of relu, gelu, swish"),
        ({"dropout": 1.0}, "dropout 1.0 is not at least 0 and below 1"),
    ],
)
def test_senseless_conformers_and_squeezeformers_are_refused(name, numbers, message):
    with pytest.raises(ValueError, match=message):
        ENCODERS[name][0](**numbers)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"layers": 12}, "recover_after 15 is not below 12"),
        ({"reduce_after": 15}, "reduce_after 15 is not at least 0 and below 15"),
        ({"reduce_after": -1}, "reduce_after -1 is not at least 0 and below 15"),
    ],
)
def test_rates_that_never_come_back_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        ENCODERS["squeezeformer"][0](**numbers)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"heads": 5}, "dim 768 is not a multiple of heads 5"),
        ({"position_groups": 7}, "dim 768 is not a multiple of position_groups 7"),
        ({"position_kernel": 0}, "position_kernel 0 is not at least 1"),
        ({"layerdrop": 1.0}, "layerdrop 1.0 is not at least 0 and below 1"),
    ],
)
def test_senseless_huberts_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        ENCODERS["hubert_base"][0](**numbers)
