"""Sparseformer: what a frame sees, sizes, and the window's seconds."""

import pytest
import torch

from espnet_lite.config import from_plain
from espnet_lite.encoders.sparseformer import (
    SPARSEFORMER_SIZES,
    SparseformerConfig,
    SparseformerEncoder,
)
from espnet_lite.encoders.transformer import TransformerConfig, TransformerEncoder
from espnet_lite.errors import InputError
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.nn.subsampling import Conv2dSubsampling4

NUMBERS = {"dim": 16, "heads": 2, "feed_forward": 24, "dropout": 0.0}


def build(**numbers) -> SparseformerEncoder:
    torch.manual_seed(0)
    return SparseformerEncoder(SparseformerConfig(**NUMBERS, **numbers)).eval()


def test_a_wide_window_makes_it_the_rotary_transformer():
    ours = build(layers=3, window_seconds=10.0)
    theirs = TransformerEncoder(TransformerConfig(**NUMBERS, layers=3, positions="rotary")).eval()
    theirs.load_state_dict(ours.state_dict())
    features, lengths = torch.randn(2, 90, 16), torch.tensor([90, 31])
    output, expected = ours(features, lengths).encoded, theirs(features, lengths).encoded
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(
            output[row, :length], expected[row, :length], atol=3e-6, rtol=1e-5
        )


@pytest.mark.parametrize(("layers", "window", "tokens"), [(1, 2, 0), (3, 2, 0), (2, 2, 1)])
def test_a_frame_sees_layers_times_window_and_with_a_token_all(layers, window, tokens):
    encoder = build(layers=layers, window_seconds=0.04 * window, global_tokens=tokens)
    features = torch.randn(1, 100, 16, requires_grad=True)
    encoder(features, torch.tensor([100])).encoded[0, 50].square().sum().backward()
    seen = features.grad[0].abs().sum(-1).nonzero().flatten().tolist()
    reach = layers * window
    assert seen == (list(range(100)) if tokens else list(range(50 - reach, 51 + reach)))


@pytest.mark.parametrize("name", SPARSEFORMER_SIZES)
def test_named_sizes_have_the_parameters_of_conformer_s(name):
    config = SPARSEFORMER_SIZES[name]
    with torch.device("meta"):
        subsampling = Conv2dSubsampling4(80, config.dim, channels=config.dim)
        parts = (SparseformerEncoder(config), subsampling)
    count = sum(parameter.numel() for part in parts for parameter in part.parameters())
    assert count == pytest.approx(8.72e6, rel=0.01)
    assert config.window_frames == 16


@pytest.mark.parametrize(
    ("seconds", "frame_ms", "frames"), [(0.64, 40.0, 16), (0.64, 20.0, 32), (2.56, 40.0, 64)]
)
def test_the_window_in_seconds_becomes_frames(seconds, frame_ms, frames):
    config = SparseformerConfig(window_seconds=seconds, frame_ms=frame_ms)
    assert config.window_frames == frames
    assert SparseformerEncoder(config).blocks[3].attention.dot_product.window == frames


@pytest.mark.parametrize("kind", ["asr", "hubert"])
def test_models_refuse_a_front_end_of_other_frames(kind):
    def build_model(frame_ms: float):
        encoder = {"name": "sparseformer", "layers": 1, "frame_ms": frame_ms}
        plain = {"front_end": {"name": "log_mel", "subsampling": 2}, "encoder": encoder}
        if kind == "asr":
            return AsrModel(from_plain(AsrConfig, plain), vocab=8)
        return HubertModel(from_plain(HubertConfig, plain), clusters=8)

    build_model(20.0)
    with pytest.raises(InputError) as caught:
        build_model(40.0)
    assert str(caught.value) == (
        "encoder.frame_ms: 40, but the front end makes a frame each 20 ms; write frame_ms: 20"
    )


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"dim": 18, "heads": 4}, "dim 18 is not a multiple of 2 × heads 4"),
        ({"window_seconds": 0.01}, "window_seconds 0.01 is no frame of 40.0 ms"),
        ({"window_seconds": 0.0}, "window_seconds 0.0 is not above 0"),
        ({"frame_ms": -1.0}, "frame_ms -1.0 is not above 0"),
        ({"global_tokens": -1}, "global_tokens -1 is not at least 0"),
        ({"activation": "tanh"}, "activation 'tanh' is not one of relu, gelu, swish"),
        ({"attention_dropout": 1.5}, "attention_dropout 1.5 is not at least 0 and below 1"),
    ],
)
def test_senseless_sizes_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        SparseformerConfig(**numbers)
