"""Masks against loops over positions. True means keep."""

import torch

from espnet_lite.nn.masks import causal_mask, key_mask, valid_mask

LENGTHS = [3, 0, 5, 1]


def test_valid_mask_counts_positions_below_the_length():
    expected = [[position < length for position in range(5)] for length in LENGTHS]
    assert valid_mask(torch.tensor(LENGTHS), 5).tolist() == expected


def test_key_mask_is_the_valid_mask_for_every_head_and_query():
    mask = key_mask(torch.tensor(LENGTHS), 5)
    assert mask.shape == (4, 1, 1, 5)
    assert torch.equal(mask[:, 0, 0], valid_mask(torch.tensor(LENGTHS), 5))


def test_causal_mask_sees_itself_and_the_past():
    assert causal_mask(4).tolist() == [[key <= query for key in range(4)] for query in range(4)]
    assert causal_mask(0).shape == (0, 0)
