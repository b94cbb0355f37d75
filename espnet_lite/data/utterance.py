"""What the loader takes and gives: an utterance of a data directory, a batch of padded tensors."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Utterance lives beside the reader, so that programs without tensors need not import torch.
from espnet_lite.data.data_dir import Utterance

__all__ = ["TOKEN_PADDING", "Batch", "Utterance"]

TOKEN_PADDING = -1  # no token has it, so a forgotten mask shows as an index error


@dataclass
class Batch:
    """Utterances of one training or decoding step.

    Attributes:
        ids: utterance ids, in the order of the rows.
        waveform: samples in [-1, 1], zero beyond the length.
        waveform_lengths: samples of each row, int64.
        tokens: token ids, int64, TOKEN_PADDING beyond the length; None for unlabelled data.
        token_lengths: tokens of each row, int64; None for unlabelled data.
        seed: from (seed, epoch, position of the batch); every draw inside the model
            (SpecAugment, masks) comes from a torch.Generator seeded by it.
    """

    ids: list[str]
    waveform: Float[Tensor, "batch samples"]
    waveform_lengths: Int[Tensor, " batch"]
    tokens: Int[Tensor, "batch tokens"] | None
    token_lengths: Int[Tensor, " batch"] | None
    seed: int

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its tensors on `device`."""
        return replace(
            self,
            waveform=self.waveform.to(device, non_blocking=True),
            waveform_lengths=self.waveform_lengths.to(device, non_blocking=True),
            tokens=None if self.tokens is None else self.tokens.to(device, non_blocking=True),
            token_lengths=None
            if self.token_lengths is None
            else self.token_lengths.to(device, non_blocking=True),
        )

    def audio_seconds(self, sample_rate: int) -> float:
        """Return the seconds of speech in the batch, padding not counted."""
        return int(self.waveform_lengths.sum()) / sample_rate
