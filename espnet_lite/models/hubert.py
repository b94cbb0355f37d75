"""HuBERT (Hsu et al. 2021, 2106.07447): predict the unit of frames that the encoder cannot see."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from espnet_lite.config import build_class, check_numbers, choice
from espnet_lite.data.utterance import UNIT_PADDING, Batch
from espnet_lite.encoders.families import ENCODERS, check_frame_rate
from espnet_lite.encoders.front_end import FRONT_ENDS
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.models.loss import Loss
from espnet_lite.nn.dropout import Dropout
from espnet_lite.nn.masks import span_mask, valid_mask


@dataclass(frozen=True)
class SpanMaskConfig:
    """Which frames are hidden. HuBERT: .80 of 200 ms; MelHuBERT: .7 of 100 ms."""

    probability: float = 0.8  # frames of all spans as a part of all frames, overlaps not counted
    span_ms: float = 200.0  # length of a span; rounded to frames of the model
    min_spans: int = 2  # of an utterance

    def __post_init__(self):
        check_numbers(self, "probability", above=0, at_most=1)
        check_numbers(self, "span_ms", above=0)
        check_numbers(self, "min_spans", at_least=1)

    def span_frames(self, frame_ms: float) -> int:
        """Return the length of a span in frames, at least one."""
        return max(1, round(self.span_ms / frame_ms))


@dataclass(frozen=True)
class CosineHeadConfig:
    """HuBERT's: cosine of the projected frame and a learned embedding of each unit."""

    dim: int = 256  # of projection and embeddings
    temperature: float = 0.1  # logits are cosine / temperature

    def __post_init__(self):
        check_numbers(self, "dim", at_least=1)
        check_numbers(self, "temperature", above=0)


@dataclass(frozen=True)
class SoftmaxHeadConfig:
    """MelHuBERT's and Fast-HuBERT's: one Linear."""


class CosineHead(nn.Module):
    """(frames, dim) → logits (frames, clusters) = cosine / temperature.

    The value of HuBERT's eq. 3 as one product of normalized matrices: nothing of the size
    frames × clusters × dim is made.
    """

    def __init__(self, config: CosineHeadConfig, *, dim: int, clusters: int):
        super().__init__()
        self.temperature = config.temperature
        self.project = nn.Linear(dim, config.dim)
        self.embeddings = nn.Parameter(torch.empty(clusters, config.dim).uniform_())

    def forward(self, x: Float[Tensor, "frames dim"]) -> Float[Tensor, "frames clusters"]:
        """Return logits, in fp32 also where the rest is bf16, which rounds a logit near 1 / temperature to
        a thirty-second: many units would tie."""
        projected = self.project(x)
        with torch.autocast(x.device.type, enabled=False):
            projected = functional.normalize(projected.float(), dim=-1)
            units = functional.normalize(self.embeddings.float(), dim=-1)
            return functional.linear(projected / self.temperature, units)


class SoftmaxHead(nn.Module):
    """(frames, dim) → logits (frames, clusters)."""

    def __init__(self, config: SoftmaxHeadConfig, *, dim: int, clusters: int):
        super().__init__()
        self.project = nn.Linear(dim, clusters)

    def forward(self, x: Float[Tensor, "frames dim"]) -> Float[Tensor, "frames clusters"]:
        """Return logits."""
        return self.project(x)


UNIT_HEADS = {
    "cosine": (CosineHeadConfig, CosineHead),
    "softmax": (SoftmaxHeadConfig, SoftmaxHead),
}


@dataclass(frozen=True)
class HubertConfig:
    """Architecture and loss of pre-training."""

    front_end: object = choice(FRONT_ENDS, "log_mel")
    encoder: object = choice(ENCODERS, "transformer")
    head: object = choice(UNIT_HEADS, "cosine")
    mask: SpanMaskConfig = field(default_factory=SpanMaskConfig)
    input_dropout: float = 0.0  # of the frames, before the mask (HuBERT: 0.1)
    feature_penalty: float = 0.0  # × mean square of the front end's local features (HuBERT: 10)
    feature_gradient: float = 1.0  # factor on the gradient of the local front end (HuBERT: 0.1)
    unmasked_weight: float = 0.0  # of the loss on frames that are seen
    # Blocks whose output predicts the units too, through heads of their own (ILS-SSL, 2112.08778;
    # Fast-HuBERT, 2309.13860); the loss is the mean over them and the last.
    inner_layers: tuple[int, ...] = ()

    def __post_init__(self):
        check_numbers(self, "input_dropout", at_least=0, below=1)
        check_numbers(self, "feature_penalty unmasked_weight", at_least=0)
        # Not 0: processes that train together wait for a gradient of every weight that is trained.
        # What is not to be trained is named in train.frozen_parts.
        check_numbers(self, "feature_gradient", above=0)
        if self.inner_layers:
            check_numbers(self, "inner_layers", at_least=1, at_most=self.encoder.layers)


class HubertModel(nn.Module):
    """batch with units → Loss per masked frame; `encode` without a mask for all that comes later."""

    def __init__(self, config: HubertConfig, *, clusters: int):
        super().__init__()
        self.config = config
        self.clusters = clusters
        self.encoder = build_class(ENCODERS, config.encoder)(config.encoder)
        dim = self.encoder.dim
        self.front_end = build_class(FRONT_ENDS, config.front_end)(config.front_end, dim=dim)
        check_frame_rate(config.encoder, self.front_end.grid)
        self.input_dropout = Dropout(config.input_dropout)
        self.mask_embedding = nn.Parameter(torch.empty(dim).uniform_())
        head = build_class(UNIT_HEADS, config.head)
        self.head = head(config.head, dim=dim, clusters=clusters)
        # The blocks of a pre-norm encoder are not normalized, so an inner head does it.
        self.inner_heads = nn.ModuleDict(
            {
                str(layer): nn.Sequential(
                    nn.LayerNorm(dim), head(config.head, dim=dim, clusters=clusters)
                )
                for layer in config.inner_layers
            }
        )
        self.span_frames = config.mask.span_frames(self.front_end.grid.frame_ms)

    def encode(
        self,
        waveform: Float[Tensor, "batch samples"],
        waveform_lengths: Int[Tensor, "batch"],
        *,
        generator: torch.Generator | None = None,
        return_layers: bool = False,
    ) -> EncoderOutput:
        """Return the encoder's output for waveforms in [-1, 1], nothing masked."""
        features, lengths = self.front_end(waveform, waveform_lengths, generator)
        return self.encoder(features, lengths, return_layers=return_layers)

    def forward(self, batch: Batch) -> Loss:
        """Return the cross entropy summed over masked frames, with `count` those frames.

        Metrics: `loss`, `loss_masked` and `accuracy` (of the units of masked frames) per masked
        frame; in eval mode, or with `unmasked_weight`, `accuracy_unmasked` per frame seen;
        `masked`, the part of the frames; `feature_penalty`, before its weight; `loss_layer<n>`.
        """
        generator = torch.Generator().manual_seed(batch.seed)
        local, lengths = self.front_end.local(
            batch.waveform, batch.waveform_lengths, generator=generator
        )
        local = scale_gradient(local, self.config.feature_gradient)
        valid = valid_mask(lengths, local.size(1))
        units = _padded_units(batch.units, lengths, local.size(1))
        x = self.input_dropout(self.front_end.project(local))
        hidden = self._hide(lengths, x.size(1), generator)
        x = torch.where(hidden[..., None], self.mask_embedding.to(x.dtype), x)
        output = self.encoder(x, lengths, return_layers=bool(self.config.inner_layers))
        count = int(hidden.sum())
        total, metrics = self._predict(output, units, hidden=hidden, seen=valid & ~hidden)
        metrics["masked"] = (count, int(valid.sum()))
        if self.config.feature_penalty > 0:
            squares = local[valid].float().square()
            penalty = squares.sum() / max(1, squares.numel())  # 0 where no clip has a frame
            total = total + self.config.feature_penalty * penalty * count
            metrics["feature_penalty"] = (penalty.detach() * count, count)
        metrics["loss"] = (total.detach(), count)
        return Loss(total, count, metrics)

    def _hide(
        self, lengths: Int[Tensor, "batch"], size: int, generator: torch.Generator
    ) -> Bool[Tensor, "batch size"]:
        mask = self.config.mask
        return span_mask(
            lengths,
            size,
            probability=mask.probability,
            span=self.span_frames,
            min_spans=mask.min_spans,
            generator=generator,
        )

    def _predict(
        self,
        output: EncoderOutput,
        units: Int[Tensor, "batch time"],
        *,
        hidden: Bool[Tensor, "batch time"],
        seen: Bool[Tensor, "batch time"],
    ) -> tuple[Tensor, dict]:
        """Return the loss summed over frames, and its metrics."""
        wanted, count = units[hidden], int(hidden.sum())
        loss, correct = _cross_entropy(self.head(output.encoded[hidden]), wanted)
        losses = [loss]
        metrics = {"loss_masked": (loss.detach(), count), "accuracy": (correct, count)}
        for layer, head in self.inner_heads.items():
            inner, _ = _cross_entropy(head(output.layers[int(layer)][hidden]), wanted)
            metrics[f"loss_layer{layer}"] = (inner.detach(), count)
            losses.append(inner)
        total = torch.stack(losses).mean()
        if self.config.unmasked_weight > 0 or not self.training:
            loss, correct = _cross_entropy(self.head(output.encoded[seen]), units[seen])
            metrics["accuracy_unmasked"] = (correct, int(seen.sum()))
            total = total + self.config.unmasked_weight * loss
        return total, metrics


def _padded_units(
    units: Int[Tensor, "batch width"], lengths: Int[Tensor, "batch"], size: int
) -> Int[Tensor, "batch size"]:
    """Return the units as wide as the padded frames, after making sure that each frame has one."""
    labelled = units != UNIT_PADDING
    counts = labelled.sum(dim=1)
    if not torch.equal(counts, lengths) or not torch.equal(
        labelled, valid_mask(lengths, units.size(1))
    ):
        raise ValueError(f"{counts.tolist()} units for {lengths.tolist()} frames")
    return functional.pad(units, (0, size - units.size(1)), value=UNIT_PADDING)


def _cross_entropy(
    logits: Float[Tensor, "frames clusters"], units: Int[Tensor, "frames"]
) -> tuple[Tensor, Tensor]:
    """Return the cross entropy summed over frames, in fp32, and the number of right guesses."""
    logits = logits.float()
    loss = functional.cross_entropy(logits, units, reduction="sum")
    return loss, (logits.detach().argmax(dim=-1) == units).sum()


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient * ctx.factor, None


def scale_gradient(x: Float[Tensor, "*shape"], factor: float | int) -> Float[Tensor, "*shape"]:
    """Return `x`, whose gradient is multiplied by `factor` on its way back."""
    return x if factor == 1 else _ScaledGradient.apply(x, float(factor))
