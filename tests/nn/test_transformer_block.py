"""Pre- and post-norm blocks against torch's TransformerEncoderLayer."""

import pytest
import torch
from torch import nn

from espnet_lite.nn.masks import key_mask, valid_mask
from espnet_lite.nn.transformer_block import PostNormBlock, PreNormBlock

NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("block_class", [PreNormBlock, PostNormBlock])
def test_equals_torchs_layer(block_class, activation):
    torch.manual_seed(0)
    block = block_class(8, heads=2, feed_forward=12, activation=activation, **NO_DROPOUT)
    layer = nn.TransformerEncoderLayer(
        8,
        2,
        dim_feedforward=12,
        dropout=0.0,
        activation=activation,
        batch_first=True,
        norm_first=block_class is PreNormBlock,
    )
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
        attention = block.attention
        joined = [attention.query, attention.key, attention.value]
        layer.self_attn.in_proj_weight.copy_(torch.cat([linear.weight for linear in joined]))
        layer.self_attn.in_proj_bias.copy_(torch.cat([linear.bias for linear in joined]))
    for ours, theirs in (
        (attention.out, layer.self_attn.out_proj),
        (block.feed_forward.expand, layer.linear1),
        (block.feed_forward.contract, layer.linear2),
        (block.attention_norm, layer.norm1),
        (block.feed_forward_norm, layer.norm2),
    ):
        theirs.load_state_dict(ours.state_dict())
    x, lengths = torch.randn(2, 6, 8), torch.tensor([6, 4])
    valid = valid_mask(lengths, 6)
    expected = layer(x, src_key_padding_mask=~valid)
    output = block(x, key_mask(lengths, 6))
    torch.testing.assert_close(output[valid], expected[valid], atol=2e-6, rtol=1e-5)
