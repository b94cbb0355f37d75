"""Quantizers of activations by hand, and the products of codes against loops over Python's numbers."""

import math

import pytest
import torch

from espnet_lite.runtime import products
from espnet_lite.runtime.activations import ActivationFormat, PackedActivation
from espnet_lite.runtime.products import Codes


def quantizer(scale=None, offset=None, **form) -> PackedActivation:
    made = PackedActivation(ActivationFormat(**form))
    for name, value in (("scale", scale), ("offset", offset)):
        if value is not None:
            getattr(made, name).copy_(torch.tensor(value))
    return made


def test_bit_with_sign():
    """The threshold itself is +1, and so is 0 without one."""
    made = quantizer([0.5], [0.25], quantizer="bit", bits=1)
    codes = made(torch.tensor([-3.0, 0.2499, 0.25, 0.26]))
    assert codes.values.tolist() == [-1, -1, 1, 1] and codes.scale.tolist() == [0.5]
    zero = quantizer([1.0], [0.0], quantizer="bit", bits=1)
    assert zero(torch.tensor([0.0, -0.0])).values.tolist() == [1, 1]


@pytest.mark.parametrize(("sparse", "of_zero"), [(False, 1), (True, 0)])
def test_bit_without_sign(sparse, of_zero):
    """(x + 0.3) / 0.5: 0.5 is rounded to even, which is 0; an exact 0 is a key that is not seen."""
    made = quantizer([0.5], [-0.3], quantizer="bit", bits=1, signed=False, sparse=sparse)
    x = torch.tensor([-0.05, 0.0, -0.0499, 7.0, -1.0])
    assert made(x).values.tolist() == [0, of_zero, 1, 1, 0]


def test_static_codes():
    signed = quantizer([0.5], quantizer="lsq", bits=2)
    x = torch.tensor([-9.0, -0.75, -0.25, 0.25, 0.26, 0.75, 9.0])
    assert signed(x).values.tolist() == [-2, -2, 0, 0, 1, 1, 1]  # halves to even
    unsigned = quantizer([0.5], quantizer="lsq", bits=2, signed=False)
    assert unsigned(x).values.tolist() == [0, 0, 0, 0, 1, 2, 3]


def test_each_frame_has_its_own_scale():
    made = quantizer(quantizer="absmax", bits=8)
    codes = made(torch.tensor([[1.0, -2.54, 0.01], [0.0, 0.0, 0.0]]))
    assert codes.values.tolist() == [[50, -127, round(0.01 / 0.02)], [0, 0, 0]]
    assert codes.scale[0].item() == pytest.approx(0.02) and codes.scale[1].item() == 1


def test_a_scale_for_each_head():
    made = quantizer([1.0, 2.0], quantizer="lsq", bits=4, scales=2)
    codes = made(torch.full((3, 2, 5, 4), 6.0))
    assert codes.values[:, 0].unique().tolist() == [6] and codes.values[:, 1].unique().tolist() == [
        3
    ]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"quantizer": "bits", "bits": 1}, "quantizer 'bits' is not one of bit, lsq, absmax"),
        ({"quantizer": "bit", "bits": 2}, r"bits 2 of quantizer 'bit' are none of \[1\]"),
        ({"quantizer": "absmax", "bits": 8, "signed": False}, "quantizer 'absmax' is signed"),
        ({"quantizer": "lsq", "bits": 4, "scales": 0}, "scales 0 is not at least 1"),
    ],
)
def test_senseless_formats(form, message):
    with pytest.raises(ValueError, match=message):
        ActivationFormat(**form)


def random_codes(seed: int, low: int, high: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, shape, generator=generator).float()


def test_linear_by_loop():
    x = Codes(random_codes(0, -127, 127, 3, 5), torch.tensor([[0.1], [0.2], [0.3]]), 127)
    weight = Codes(random_codes(1, -2, 1, 4, 5), torch.tensor([1.0, 2.0, 3.0, 4.0]), 2)
    bias = torch.tensor([0.5, -0.5, 0.0, 1.0])
    found = products.linear(x, weight, bias)
    for t in range(3):
        for c in range(4):
            total = sum(int(x.values[t, i]) * int(weight.values[c, i]) for i in range(5))
            expected = total * x.scale[t].item() * weight.scale[c].item() + bias[c].item()
            assert found[t, c].item() == pytest.approx(expected, rel=1e-6)


def test_attention_by_loop():
    """Two heads of width 3, five frames, the last of which is hidden: scores, softmax, values."""
    queries = Codes(random_codes(2, -127, 127, 2, 5, 3), torch.rand(2, 5, 1) * 1e-2, 127)
    keys = Codes(random_codes(3, -127, 127, 2, 5, 3), torch.rand(2, 5, 1) * 1e-2, 127)
    scores = products.scores(queries, keys)
    for head in range(2):
        for i in range(5):
            for j in range(5):
                total = sum(
                    int(queries.values[head, i, d]) * int(keys.values[head, j, d]) for d in range(3)
                )
                scale = queries.scale[head, i, 0].item() * keys.scale[head, j, 0].item()
                assert scores[head, i, j].item() == pytest.approx(total * scale, rel=1e-5)
    mask = torch.tensor([True, True, True, True, False])
    probabilities = products.softmax(scores, mask[None, None])
    assert (probabilities[..., 4] == 0).all()
    i = [math.exp(score) for score in scores[1, 2, :4].tolist()]
    assert probabilities[1, 2, :4].tolist() == pytest.approx([x / sum(i) for x in i], rel=1e-5)
    seen = Codes((probabilities * 255).round(), torch.tensor([1 / 255]), 255)
    values = Codes(random_codes(4, -8, 7, 2, 5, 3), torch.tensor([0.5, 2.0]).view(2, 1, 1), 8)
    mixed = products.mixed(seen, values)
    total = sum(int(seen.values[1, 0, j]) * int(values.values[1, j, 2]) for j in range(5))
    assert mixed[1, 0, 2].item() == pytest.approx(total / 255 * 2.0, rel=1e-6)
