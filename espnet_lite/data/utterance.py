"""What the loader takes and gives: an utterance of a data directory, a batch of padded tensors."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Utterance lives beside the reader, so that programs without tensors need not import torch.
from espnet_lite.data.data_dir import Utterance

__all__ = ["TOKEN_PADDING", "UNIT_PADDING", "Batch", "Utterance"]

TOKEN_PADDING = -1  # no token has it, so a forgotten mask shows as an index error
UNIT_PADDING = -1  # no unit either


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
        units: the label of each frame at the model's frame rate, int64, UNIT_PADDING beyond the
            last; None where frames have no labels.
    """

    ids: list[str]
    waveform: Float[Tensor, "batch samples"]
    waveform_lengths: Int[Tensor, " batch"]
    tokens: Int[Tensor, "batch tokens"] | None
    token_lengths: Int[Tensor, " batch"] | None
    seed: int
    units: Int[Tensor, "batch frames"] | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its tensors on `device`."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return replace(
            self,
            waveform=moved(self.waveform),
            waveform_lengths=moved(self.waveform_lengths),
            tokens=moved(self.tokens),
            token_lengths=moved(self.token_lengths),
            units=moved(self.units),
        )

    def audio_seconds(self, sample_rate: int) -> float:
        """Return the seconds of speech in the batch, padding not counted."""
        return int(self.waveform_lengths.sum()) / sample_rate
