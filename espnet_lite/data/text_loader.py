"""Sentences → batches of tokens, for language models: what Loader is for speech."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from espnet_lite.data.batching import BatchPlan, draw_seed, epoch_generator, plan_batches
from espnet_lite.data.utterance import TOKEN_PADDING
from espnet_lite.errors import InputError

_BATCHES = 0  # purpose of random numbers


@dataclass
class TextBatch:
    """Sentences of one training step.

    Attributes:
        ids: places of the sentences in the text, as words for messages.
        tokens: token ids, int64, TOKEN_PADDING beyond the length.
        token_lengths: tokens of each row, int64.
        seed: from (seed, epoch, position of the batch).
    """

    ids: list[str]
    tokens: Int[Tensor, "batch tokens"]
    token_lengths: Int[Tensor, " batch"]
    seed: int

    def to(self, device: torch.device | str) -> "TextBatch":
        """Return the batch with its tensors on `device`."""
        return replace(
            self,
            tokens=self.tokens.to(device, non_blocking=True),
            token_lengths=self.token_lengths.to(device, non_blocking=True),
        )


class TextLoader:
    """Batches of sentences, epoch after epoch; a batch depends on (seed, epoch, position) alone."""

    unit = "tokens"  # what `amount` counts

    def __init__(
        self,
        sentences: Sequence[Sequence[int]],
        *,
        batch_tokens: int,
        seed: int,
        shuffle: bool = True,
    ):
        """Hold the sentences as token ids.

        Args:
            batch_tokens: budget of a batch: its longest sentence with <sos/eos> × its sentences.
            shuffle: False gives the same batches in every epoch, longest first.

        Raises:
            InputError: no sentences.
        """
        if not sentences:
            raise InputError("no sentences to learn from or to measure on")
        self.lengths = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.tokens = np.fromiter(
            (token for sentence in sentences for token in sentence), dtype=np.int32
        )
        self.batch_tokens = batch_tokens
        self.seed = seed
        self.shuffle = shuffle
        self._plan_of: tuple[int, BatchPlan] | None = None

    def num_batches(self, epoch: int) -> int:
        """Return the number of batches in an epoch (counted from 0)."""
        return len(self._plan(epoch))

    def batches(self, epoch: int, *, start: int = 0, step: int = 1) -> Iterator[TextBatch]:
        """Yield the batches at positions start, start + step, … of an epoch, on the CPU."""
        plan = self._plan(epoch)
        for position in range(start, len(plan), step):
            yield self._batch(plan[position], seed=draw_seed(self.seed, epoch, position))

    def amount(self, batch: TextBatch) -> int:
        """Return the tokens of a batch, each sentence's <sos/eos> counted."""
        return int((batch.token_lengths + 1).sum())

    def size(self) -> str:
        """Return in words how much text there is."""
        return f"{len(self.lengths):,} sentences, {int(self.lengths.sum()):,} tokens"

    def record(self, seen: float) -> dict[str, object]:
        """Return what a training's record says of its data; `seen`: `amount` of all batches so far."""
        return {
            "tokens_seen": int(seen),
            "train_sentences": len(self.lengths),
            "train_tokens": int(self.lengths.sum()),
        }

    def _plan(self, epoch: int) -> BatchPlan:
        key = epoch if self.shuffle else 0
        if self._plan_of is None or self._plan_of[0] != key:
            generator = epoch_generator(self.seed, epoch, _BATCHES) if self.shuffle else None
            plan = plan_batches(
                self.lengths + 1, batch_samples=self.batch_tokens, generator=generator
            )
            self._plan_of = (key, plan)
        return self._plan_of[1]

    def _batch(self, places: np.ndarray, *, seed: int) -> TextBatch:
        lengths = self.lengths[places]
        tokens = np.full((len(places), int(lengths.max())), TOKEN_PADDING, dtype=np.int64)
        for row, place in zip(tokens, places, strict=True):
            start, length = self.starts[place], self.lengths[place]
            row[:length] = self.tokens[start : start + length]
        return TextBatch(
            ids=[f"sentence {place + 1}" for place in places.tolist()],
            tokens=torch.from_numpy(tokens),
            token_lengths=torch.from_numpy(lengths),
            seed=seed,
        )
