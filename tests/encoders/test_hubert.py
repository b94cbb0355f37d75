"""HuBERT's encoders: skipped blocks, how they begin, and the same numbers as transformers'."""

import itertools

import pytest
import torch

from espnet_lite.encoders.front_end import FRONT_ENDS
from espnet_lite.encoders.hubert import (
    HubertBaseConfig,
    HubertBaseEncoder,
    HubertLargeConfig,
    HubertLargeEncoder,
)
from espnet_lite.models.hubert_import import config_of_hugging_face
from espnet_lite.models.hubert_keys import from_foreign

LENGTHS = torch.tensor([9, 4])
SMALL = {"dim": 16, "heads": 2, "feed_forward": 24, "position_kernel": 6, "position_groups": 4}
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0}
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
ENCODERS = {
    "hubert_base": (HubertBaseConfig, HubertBaseEncoder),
    "hubert_large": (HubertLargeConfig, HubertLargeEncoder),
}


def build(name: str, **numbers) -> torch.nn.Module:
    schema, encoder = ENCODERS[name]
    torch.manual_seed(0)
    return encoder(schema(**{**SMALL, **NO_DROPOUT, **numbers}))


def features() -> torch.Tensor:
    return torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ENCODERS)
def test_blocks_are_skipped_in_training_at_the_rate_asked_for(name):
    encoder = build(name, layers=60, layerdrop=0.5).train()
    layers = encoder(features(), LENGTHS, return_layers=True).layers
    skipped = sum(torch.equal(a, b) for a, b in itertools.pairwise(layers))
    assert 15 <= skipped <= 45  # 30 expected, standard deviation 3.9
    layers = encoder.eval()(features(), LENGTHS, return_layers=True).layers
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(layers))


@pytest.mark.parametrize("name", ENCODERS)
def test_parameters_of_skipped_blocks_get_gradients_of_zeros(name):
    """Data-parallel training hangs on a parameter without a gradient."""
    encoder = build(name, layers=6, layerdrop=0.5).train()
    output = encoder(features(), LENGTHS, return_layers=True)
    (output.encoded * torch.randn_like(output.encoded)).sum().backward()
    layers = output.layers
    kinds = set()
    for block, given, out in zip(encoder.blocks, layers[:-1], layers[1:], strict=True):
        is_skipped = torch.equal(given, out)
        kinds.add(is_skipped)
        for parameter in block.parameters():
            assert parameter.grad is not None
            assert not is_skipped or float(parameter.grad.abs().max()) == 0.0
        assert bool(block.feed_forward.expand.weight.grad.any()) is not is_skipped
    assert kinds == {True, False}
    assert float(encoder.positions.direction.grad.abs().max()) > 0


def test_linears_begin_as_berts():
    encoder = build("hubert_base", dim=64, feed_forward=256, layers=2)
    for module in encoder.blocks.modules():
        if isinstance(module, torch.nn.Linear):
            assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
            assert not module.bias.any()


def transformers_model(**numbers):
    """Return transformers' HubertModel with every parameter moved off its initial value."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.HubertModel(transformers.HubertConfig(**numbers)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * parameter.std().clamp_min(0.1) * torch.randn(parameter.shape))
    return model


def assert_hidden_states_are_equal(model, waveform, lengths, *, atol: float) -> None:
    """Compare each clip's layers in our padded batch with transformers' of the clip alone."""
    config = config_of_hugging_face(model.config.to_dict())
    numbers = {name: value for name, value in config["encoder"].items() if name != "name"}
    schema, encoder_class = ENCODERS[config["encoder"]["name"]]
    encoder = encoder_class(schema(**numbers)).eval()
    waveform_config = config["front_end"]
    waveform_config["convolutions"] = tuple(map(tuple, waveform_config["convolutions"]))
    waveform_schema, front_end_class = FRONT_ENDS[waveform_config.pop("name")]
    waveform_config["normalize"] = False  # transformers does it in its feature extractor
    front_end = front_end_class(waveform_schema(**waveform_config), dim=encoder.dim).eval()
    norm_before = isinstance(encoder, HubertBaseEncoder)
    weights, _ = from_foreign(model.state_dict(), "hugging_face", norm_before=norm_before)
    for part, module in (("front_end.", front_end), ("encoder.", encoder)):
        own = {k.removeprefix(part): v for k, v in weights.items() if k.startswith(part)}
        module.load_state_dict(own)
    with torch.no_grad():
        frames, frame_lengths = front_end(waveform, lengths)
        output = encoder(frames, frame_lengths, return_layers=True)
        for row, samples in enumerate(lengths.tolist()):
            theirs = model(waveform[row : row + 1, :samples], output_hidden_states=True)
            assert len(theirs.hidden_states) == len(output.layers) == encoder.config.layers + 1
            pairs = [*zip(output.layers, theirs.hidden_states, strict=True)]
            for ours, expected in [*pairs, (output.encoded, theirs.last_hidden_state)]:
                assert expected.size(1) == frame_lengths[row]
                valid = ours[row, : frame_lengths[row]]
                torch.testing.assert_close(valid, expected[0], atol=atol, rtol=0)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        LARGE,
        {"conv_bias": True, **LARGE},
        {"num_conv_pos_embeddings": 15, "do_stable_layer_norm": True},
        {"feat_extract_norm": "layer"},
    ],
    ids=["base", "large", "bias", "odd_positions", "layer_norm_in_base"],
)
def test_hidden_states_equal_transformers(choices):
    model = transformers_model(**{**TINY, **choices})
    waveform = 0.1 * torch.randn(3, 8000, generator=torch.Generator().manual_seed(2))
    assert_hidden_states_are_equal(model, waveform, torch.tensor([8000, 4123, 400]), atol=2e-5)
    assert_hidden_states_are_equal(model, waveform[:1], torch.tensor([8000]), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            **LARGE,
        },
    ],
    ids=["base", "large"],
)
def test_hidden_states_of_the_published_sizes_equal_transformers(numbers):
    model = transformers_model(**numbers)
    waveform = 0.1 * torch.randn(2, 24000, generator=torch.Generator().manual_seed(2))
    assert_hidden_states_are_equal(model, waveform, torch.tensor([24000, 15123]), atol=1e-4)
