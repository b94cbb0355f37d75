"""Several precisions on the same weights."""

import torch
from torch import nn

from espnet_lite.quantize.layers import QuantizedLinear
from espnet_lite.quantize.quantizers import AbsmaxActivation, BitActivation, BitWeight, LsqWeight
from espnet_lite.quantize.switches import choose, choose_at_random, join_precisions, switched


def layer_of_two() -> tuple[QuantizedLinear, list[QuantizedLinear]]:
    """Return a layer with two precisions, and one of each precision alone."""
    torch.manual_seed(0)
    plain = nn.Linear(4, 3)
    eight = LsqWeight(bits=8, granularity="channel", channels=3)
    eight.start(plain.weight)
    one = BitActivation(bits=1, signed=True)
    one.start(torch.randn(20))
    other = QuantizedLinear(plain, weights=eight, inputs=AbsmaxActivation(bits=8, signed=True))
    own = QuantizedLinear(
        plain, weights=BitWeight(bits=1, granularity="channel", channels=3), inputs=one
    )
    alone = QuantizedLinear(plain, weights=own.weight_quantizer, inputs=one)
    join_precisions(own, [other])
    return own, [other, alone]


def test_each_choice_is_the_layer_of_that_precision():
    (layer, expected), x = layer_of_two(), torch.randn(5, 4)
    for context in (torch.enable_grad(), torch.inference_mode()):
        with context:
            for precision in (0, 1):
                choose(layer, precision)
                assert torch.equal(layer(x), expected[precision](x))
            choose(layer)  # the last
            assert torch.equal(layer(x), expected[1](x))
    assert layer.weight_quantizer.bits == 1


def test_a_module_draws_one_precision_for_both_sides_by_the_seed():
    model = nn.Sequential(*(layer_of_two()[0] for _ in range(40)))
    modules = [switches for _, switches in switched(model)]
    assert len(modules) == 40 and all(len(switches) == 2 for switches in modules)
    drawn = []
    for seed in (1, 1, 2):
        choose_at_random(modules, seed)
        drawn.append([switches[0].chosen for switches in modules])
        assert all(first.chosen == second.chosen for first, second in modules)
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) == {0, 1} and 8 < sum(drawn[0]) < 32
