"""Parameters of the published sizes: encoder and subsampling, without a head, in millions."""

import pytest
import torch

from espnet_lite.encoders.conformer import CONFORMER_SIZES, ConformerEncoder
from espnet_lite.encoders.squeezeformer import SQUEEZEFORMER_SIZES, SqueezeformerEncoder
from espnet_lite.nn.subsampling import Conv2dSubsampling4, SeparableSubsampling4

CONFORMER = {"S": 8.7, "M": 27.3, "L": 121.5}
SQUEEZEFORMER = {"XS": 9.02, "S": 18.5, "SM": 28.2, "M": 55.6, "ML": 125, "L": 236}
CASES = [
    *((ConformerEncoder, CONFORMER_SIZES, Conv2dSubsampling4, *size) for size in CONFORMER.items()),
    *(
        (SqueezeformerEncoder, SQUEEZEFORMER_SIZES, SeparableSubsampling4, *size)
        for size in SQUEEZEFORMER.items()
    ),
]


@pytest.mark.parametrize(("encoder", "sizes", "subsampling", "name", "millions"), CASES)
def test_parameters_are_those_of_the_paper(encoder, sizes, subsampling, name, millions):
    config = sizes[name]
    with torch.device("meta"):
        modules = (encoder(config), subsampling(80, config.dim, channels=config.dim))
    count = sum(p.numel() for module in modules for p in module.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


def test_every_published_size_is_there():
    assert list(CONFORMER_SIZES) == list(CONFORMER)
    assert list(SQUEEZEFORMER_SIZES) == list(SQUEEZEFORMER)
