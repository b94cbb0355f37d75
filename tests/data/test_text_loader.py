"""Batches of sentences: all of them once an epoch, the same again, shared by processes."""

import pytest
import torch

from espnet_lite.data.text_loader import TextLoader
from espnet_lite.errors import InputError

SENTENCES = [[5] * length for length in (3, 1, 0, 7, 2, 4, 1)]


def rows(loader, epoch, **options):
    return [batch.tokens.tolist() for batch in loader.batches(epoch, **options)]


def test_every_sentence_once_within_the_budget():
    loader = TextLoader(SENTENCES, batch_tokens=10, seed=1)
    seen = []
    for batch in loader.batches(3):
        assert batch.tokens.shape == (len(batch.ids), int(batch.token_lengths.max()))
        assert (batch.tokens.size(1) + 1) * len(batch.ids) <= 10 or len(batch.ids) == 1
        valid = torch.arange(batch.tokens.size(1)) < batch.token_lengths[:, None]
        assert (batch.tokens[valid] == 5).all() and (batch.tokens[~valid] == -1).all()
        seen += batch.token_lengths.tolist()
        assert loader.amount(batch) == int(batch.token_lengths.sum()) + len(batch.ids)
    assert sorted(seen) == sorted(map(len, SENTENCES))
    assert loader.record(25.0)["train_tokens"] == 18
    assert loader.size() == "7 sentences, 18 tokens"


def test_epochs_differ_and_come_again_and_processes_share_them():
    loader = TextLoader(SENTENCES, batch_tokens=6, seed=1)
    first, second = rows(loader, 0), rows(loader, 1)
    assert first != second and rows(TextLoader(SENTENCES, batch_tokens=6, seed=1), 0) == first
    assert len(first) == loader.num_batches(0)
    assert rows(loader, 0, start=1, step=2) == first[1::2]
    plain = TextLoader(SENTENCES, batch_tokens=6, seed=1, shuffle=False)
    assert rows(plain, 0) == rows(plain, 5)


def test_no_sentences():
    with pytest.raises(InputError, match="no sentences"):
        TextLoader([], batch_tokens=6, seed=1)
