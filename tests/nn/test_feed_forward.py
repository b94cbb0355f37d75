"""The feed-forward block against plain products."""

import math

import pytest
import torch

from espnet_lite.nn.feed_forward import ACTIVATIONS, FeedForward

REFERENCE = {
    "relu": lambda x: max(x, 0.0),
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "swish": lambda x: x / (1 + math.exp(-x)),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_two_products_and_an_activation(activation):
    torch.manual_seed(0)
    block = FeedForward(4, hidden=6, activation=activation)
    x = torch.randn(1, 3, 4)
    hidden = (x[0] @ block.expand.weight.T + block.expand.bias).detach()
    active = torch.tensor([[REFERENCE[activation](float(v)) for v in row] for row in hidden])
    expected = active @ block.contract.weight.T + block.contract.bias
    torch.testing.assert_close(block(x)[0], expected, atol=1e-6, rtol=1e-5)


def test_dropout_acts_on_the_hidden_layer():
    torch.manual_seed(0)
    block = FeedForward(4, hidden=8, dropout=0.99)
    seen = []
    block.contract.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    block(torch.randn(2, 5, 4))
    assert float((seen[0] == 0).float().mean()) > 0.9
