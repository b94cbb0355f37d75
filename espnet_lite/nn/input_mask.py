"""Masks on the encoder's input while a pre-trained encoder is fine-tuned."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.nn.masks import span_mask


class InputMask(nn.Module):
    """Spans of frames become a learned vector, spans of channels become zero; in training only.

    A form of SpecAugment behind the front end (wav2vec 2.0, 2006.11477, appendix B), which has seen
    such frames in pre-training: the vector is best that of the pre-training.
    """

    def __init__(
        self,
        dim: int,
        *,
        time_probability: float | int,
        time_span: int,
        channel_probability: float | int,
        channel_span: int,
    ):
        """Take the sizes.

        Args:
            dim: width of the encoder's input.
            time_probability: frames of all spans as a part of the utterance, overlaps not counted.
            time_span: frames of a span.
            channel_probability, channel_span: the same of the `dim` channels.
        """
        super().__init__()
        self.time_probability = time_probability
        self.time_span = time_span
        self.channel_probability = channel_probability
        self.channel_span = channel_span
        self.embedding = nn.Parameter(torch.empty(dim).uniform_())

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        lengths: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """Return `x` with what is masked replaced; in eval mode `x` itself.

        Raises:
            ValueError: in training without a generator.
        """
        if not self.training:
            return x
        if generator is None:
            raise ValueError("masks in training need a torch.Generator")
        # Also with probability 0: the embedding then has a gradient, of zeros, which processes that
        # train together wait for.
        hidden = span_mask(
            lengths,
            x.size(1),
            probability=self.time_probability,
            span=self.time_span,
            min_spans=0,
            generator=generator,
        )
        x = torch.where(hidden[..., None], self.embedding.to(x.dtype), x)
        if self.channel_probability > 0:
            hidden = span_mask(
                torch.full_like(lengths, x.size(2)),
                x.size(2),
                probability=self.channel_probability,
                span=self.channel_span,
                min_spans=0,
                generator=generator,
            )
            x = x.masked_fill(hidden[:, None, :], 0.0)
        return x
