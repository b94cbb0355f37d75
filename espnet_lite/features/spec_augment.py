"""SpecAugment (1904.08779): time warping, frequency masks and time masks on normalized features."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from espnet_lite.nn.masks import valid_mask


class SpecAugment(nn.Module):
    """Mask bands and spans with zeros in training; do nothing in evaluation.

    Widths and places are drawn per utterance from the given generator, so one seed gives one
    result on every device. Defaults are ESPnet's for recognition, without its time warp of 5
    frames.
    """

    def __init__(
        self,
        *,
        frequency_masks: int = 2,
        frequency_width: int = 27,
        time_masks: int = 10,
        time_width_ratio: float = 0.05,
        time_warp_frames: int = 0,
    ):
        """Take the sizes.

        Args:
            frequency_masks: bands in each utterance.
            frequency_width: widest band, in feature dimensions; a width is drawn from 0 to it.
            time_masks: spans in each utterance.
            time_width_ratio: widest span as a part of the utterance's own frames.
            time_warp_frames: farthest shift of the warped frame; 0 for no warping.
        """
        super().__init__()
        self.frequency_masks = frequency_masks
        self.frequency_width = frequency_width
        self.time_masks = time_masks
        self.time_width_ratio = time_width_ratio
        self.time_warp_frames = time_warp_frames

    def forward(
        self,
        features: Float[Tensor, "batch frames dim"],
        lengths: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch frames dim"]:
        """Return augmented features; padding that was zero stays zero.

        Raises:
            ValueError: in training without a generator.
        """
        if not self.training:
            return features
        if generator is None:
            raise ValueError("SpecAugment in training needs a torch.Generator")
        if self.time_warp_frames > 0:
            features = time_warp(features, lengths, self.time_warp_frames, generator=generator)
        frames, dim = features.shape[1:]
        dims = torch.full_like(lengths, dim)
        band = random_spans(
            dims,
            dims.clamp_max(self.frequency_width),
            size=dim,
            spans=self.frequency_masks,
            generator=generator,
        )
        span = random_spans(
            lengths,
            (lengths.double() * self.time_width_ratio).long(),
            size=frames,
            spans=self.time_masks,
            generator=generator,
        )
        return features.masked_fill(band[:, None, :] | span[:, :, None], 0.0)


def random_integers(
    highest: Int[Tensor, "*shape"], generator: torch.Generator
) -> Int[Tensor, "*shape"]:
    """Return integers, uniform from 0 to `highest` with both ends, on the device of `highest`."""
    uniform = torch.rand(
        highest.shape, generator=generator, device=generator.device, dtype=torch.float64
    )
    return (uniform.to(highest.device) * (highest + 1)).long()


def random_spans(
    lengths: Int[Tensor, "batch"],
    widest: Int[Tensor, "batch"],
    *,
    size: int,
    spans: int,
    generator: torch.Generator,
) -> Bool[Tensor, "batch size"]:
    """Return True inside `spans` random spans of 0 to `widest` positions that lie within `lengths`."""
    width = random_integers(widest[:, None].expand(-1, spans), generator)
    start = random_integers(lengths[:, None] - width, generator)
    position = torch.arange(size, device=lengths.device)[:, None, None]
    inside = (position >= start) & (position < start + width)
    return inside.any(dim=-1).transpose(0, 1)


def time_warp(
    features: Float[Tensor, "batch frames dim"],
    lengths: Int[Tensor, "batch"],
    warp_frames: int,
    *,
    generator: torch.Generator,
) -> Float[Tensor, "batch frames dim"]:
    """Move one random frame of each utterance by up to `warp_frames` and stretch both sides to fit.

    Linear interpolation on each side (as torch.nn.functional.interpolate with
    align_corners=False); lengths stay. Utterances of 2 · warp_frames + 1 frames or fewer and all
    padding come back unchanged.
    """
    # Both sides keep at least one frame: center in [w + 1, T - w - 1], moved by -w to w.
    free = lengths - 2 * warp_frames - 2
    center = warp_frames + 1 + random_integers(free.clamp_min(0), generator)
    shift = random_integers(torch.full_like(lengths, 2 * warp_frames), generator) - warp_frames
    warped = (center + shift)[:, None]
    center, length = center[:, None], lengths[:, None]
    frame = torch.arange(features.size(1), device=features.device)[None, :]
    left = ((frame + 0.5) * (center / warped) - 0.5).clamp_min(0.0)
    left = torch.minimum(left, center - 1)
    right = ((frame - warped + 0.5) * ((length - center) / (length - warped)) - 0.5).clamp_min(0.0)
    right = center + torch.minimum(right, length - center - 1)
    source = torch.where(frame < warped, left, right)
    unchanged = ~valid_mask(lengths, features.size(1)) | (free < 0)[:, None]
    source = torch.where(unchanged, frame, source)
    below = source.long()
    above = torch.minimum(below + 1, (length - 1).clamp_min(0)).maximum(below)
    fraction = (source - below)[..., None].to(features.dtype)
    # The last frame left of the break must not mix with the first one right of it.
    above = torch.where((frame < warped) & ~unchanged, torch.minimum(above, center - 1), above)
    index = torch.stack([below, above])[..., None].expand(-1, -1, -1, features.size(2))
    lower = features.gather(1, index[0])
    upper = features.gather(1, index[1])
    return torch.lerp(lower, upper, fraction)
