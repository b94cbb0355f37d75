"""Every mask of the toolkit. True means keep."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def valid_mask(lengths: Int[Tensor, "batch"], size: int) -> Bool[Tensor, "batch size"]:
    """Return True where position < length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def key_mask(lengths: Int[Tensor, "batch"], size: int) -> Bool[Tensor, "batch 1 1 size"]:
    """Return the mask that lets every query see the valid keys of its own utterance."""
    return valid_mask(lengths, size)[:, None, None, :]


def padding_mask(lengths: Int[Tensor, "batch"], size: int) -> Bool[Tensor, "batch size"] | None:
    """Return `valid_mask`, or None on a CPU where every frame is valid: nothing is to be masked.

    A GPU would have to be waited for, so that there the mask is always made.
    """
    if lengths.device.type == "cpu" and bool((lengths >= size).all()):
        return None
    return valid_mask(lengths, size)


def causal_mask(size: int, device: torch.device | None = None) -> Bool[Tensor, "size size"]:
    """Return the mask (query, key) that lets a query see itself and what came before."""
    position = torch.arange(size, device=device)
    return position[:, None] >= position[None, :]


def window_mask(
    size: int, window: int, *, global_tokens: int = 0, device: torch.device | None = None
) -> Bool[Tensor, "size size"]:
    """Return the mask (query, key) of keys within ±`window`; the first `global_tokens` positions see
    all and are seen by all."""
    position = torch.arange(size, device=device)
    near = (position[:, None] - position).abs() <= window
    return near | (position[:, None] < global_tokens) | (position < global_tokens)


def span_mask(
    lengths: Int[Tensor, "batch"],
    size: int,
    *,
    probability: float,
    span: int,
    min_spans: int,
    generator: torch.Generator,
) -> Bool[Tensor, "batch size"]:
    """Return True on random spans of frames that are hidden from the model: here True means hide.

    Of an utterance of T frames, probability · T / span places, rounded up or down at random with
    that mean and at least `min_spans`, are the beginnings of spans; they are drawn without
    replacement, spans may overlap and lie within the utterance. With .80 and 10 frames 56 % of
    T = 780 are masked. (wav2vec 2.0, 2006.11477, section 3.1; HuBERT, 2106.07447; as fairseq's
    compute_mask_indices with static lengths.)

    Args:
        lengths: valid frames; an utterance shorter than a span is not masked.
        size: frames of the padded batch.
        probability: spans' frames as a part of all, overlaps not counted.
        span: frames of a span.
        min_spans: fewest spans of an utterance, where it has so many places.
        generator: on the CPU or on the device of `lengths`.
    """
    device = lengths.device
    places = (lengths - span + 1).clamp_min(0)
    rounding, order = (
        torch.rand(shape, generator=generator, device=generator.device).to(device)
        for shape in ((lengths.numel(),), (lengths.numel(), size))
    )
    wanted = (probability * lengths / span + rounding).long().clamp_min(min_spans)
    wanted = torch.minimum(wanted, places)
    order = order.masked_fill(~valid_mask(places, size), 2.0)
    # A place is taken when fewer than `wanted` places have a smaller random number.
    rank = order.argsort(dim=1).argsort(dim=1)
    starts = (rank < wanted[:, None]).long()
    begun = starts.cumsum(dim=1)
    ended = torch.nn.functional.pad(begun, (span, 0))[:, :size]
    return begun > ended
