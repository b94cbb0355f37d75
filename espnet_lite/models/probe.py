"""Probes of a frozen encoder, after SUPERB (Yang et al. 2021, 2105.01051; s3prl's Featurizer).

All hidden states of an encoder that is not trained are summed with learned weights, and one Linear
tells from each frame the phone that is spoken in it, or with CTC the tokens of the text. What a
Linear can tell is what the encoder has laid open.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from espnet_lite.data.utterance import UNIT_PADDING, Batch
from espnet_lite.encoders.front_end import StackedLogMelConfig, StackedLogMelFrontEnd
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.models.asr import greedy_errors
from espnet_lite.models.loss import Loss
from espnet_lite.nn.ctc_loss import ctc_loss

SILENCE_CLASS = 0  # the class of frames without speech


@runtime_checkable
class Upstream(Protocol):
    """What is probed.

    Attributes:
        grid: where its frames lie in the waveform.
        layers: number of its hidden states.
        dim: numbers in a frame of each.
    """

    grid: FrameGrid
    layers: int
    dim: int

    def __call__(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "layers batch time dim"], Int[Tensor, "batch"]]:
        """Return padded hidden states and the frames of each utterance."""
        ...


class EncoderUpstream:
    """All hidden states of a model in eval mode: the encoder's input, then each block's output.

    The last is what the encoder returns, that is normalized, as in s3prl and transformers.
    """

    def __init__(
        self, encode: Callable[..., EncoderOutput], *, grid: FrameGrid, layers: int, dim: int
    ):
        """Hold the call.

        Args:
            encode: (waveform, lengths, return_layers=True) → EncoderOutput, of a model in eval mode.
            grid: of its front end.
            layers: blocks + 1.
            dim: of the encoder.
        """
        self._encode = encode
        self.grid = grid
        self.layers = layers
        self.dim = dim

    def __call__(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "layers batch time dim"], Int[Tensor, "batch"]]:
        """Return padded hidden states and the frames of each utterance."""
        output = self._encode(waveform, lengths, return_layers=True)
        return torch.stack([*output.layers[:-1], output.encoded]).float(), output.lengths


class FbankUpstream:
    """80 log mels normalized over each utterance, the neighbours of a frame joined.

    Joined, not picked: at 40 ms a frame has 4 × 80 numbers, so that nothing of the signal is kept
    from the probe that an encoder at that rate sees.
    """

    layers = 1

    def __init__(self, sample_rate: int = 16000, *, frame_ms: int = 40):
        """`frame_ms` is a multiple of 10."""
        config = StackedLogMelConfig(
            sample_rate=sample_rate, num_mels=80, cmvn="utterance", stack=frame_ms // 10
        )
        self._front_end = StackedLogMelFrontEnd(config, dim=1).eval()
        self.grid = self._front_end.grid
        self.dim = config.num_mels * config.stack

    def to(self, device: torch.device | str) -> "FbankUpstream":
        """Return self, computing on `device`."""
        self._front_end.to(device)
        return self

    def __call__(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "layers batch time dim"], Int[Tensor, "batch"]]:
        """Return padded features as the only hidden state and the frames of each utterance."""
        features, frame_lengths = self._front_end.local(waveform, lengths)
        return features[None], frame_lengths


class HiddenStates:
    """Hidden states of batches, computed once for each utterance and kept in memory as bf16.

    They are rounded whether kept or not, so the memory changes no result. An utterance goes by its
    id, so its audio must stay the same: no crops, no speed changes.
    """

    def __init__(
        self, upstream: Upstream, *, normalize: bool = False, gigabytes: float | int = 4.0
    ):
        """Keep nothing yet.

        Args:
            upstream: what is probed.
            normalize: each frame of each layer to mean 0 and variance 1 over its dimensions.
            gigabytes: memory for hidden states, in 10⁹ bytes.
        """
        self.upstream = upstream
        self._normalize = normalize
        self._kept: dict[str, Tensor] = {}
        self._bytes_left = int(gigabytes * 1e9)

    def __call__(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "layers frames dim"], Int[Tensor, "batch"]]:
        """Return the frames of all utterances, one after the other, and how many are of each."""
        if all(name in self._kept for name in batch.ids):
            found = [self._kept[name] for name in batch.ids]
        else:
            found = self._compute(batch)
            for name, states in zip(batch.ids, found, strict=True):
                if name not in self._kept and states.nbytes <= self._bytes_left:
                    self._bytes_left -= states.nbytes
                    self._kept[name] = states
        lengths = torch.tensor([states.size(1) for states in found], device=batch.waveform.device)
        return torch.cat(found, dim=1).float(), lengths

    # Tensors of inference mode could not be trained on later.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _compute(self, batch: Batch) -> list[Tensor]:
        states, lengths = self.upstream(batch.waveform, batch.waveform_lengths)
        if self._normalize:
            states = functional.layer_norm(states, states.shape[-1:])
        states = states.bfloat16()
        return [states[:, i, :length].clone() for i, length in enumerate(lengths.tolist())]


class LayerSum(nn.Module):
    """Hidden states × the softmax of learned weights, equal ones at first."""

    def __init__(self, layers: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(layers))

    def weights(self) -> Float[Tensor, "layers"]:
        """Return the weights, which sum to 1."""
        return self.logits.softmax(dim=0)

    def forward(self, states: Float[Tensor, "layers frames dim"]) -> Float[Tensor, "frames dim"]:
        """Return the weighted sum."""
        layers, frames, dim = states.shape
        return (self.weights() @ states.reshape(layers, -1)).view(frames, dim)


class _Probe(nn.Module):
    """Weighted sum and Linear; the frozen encoder is no part of it and in no checkpoint."""

    def __init__(self, states: HiddenStates, *, classes: int):
        super().__init__()
        self.states = states
        self.layer_sum = LayerSum(states.upstream.layers)
        self.head = nn.Linear(states.upstream.dim, classes)

    def logits(self, batch: Batch) -> tuple[Float[Tensor, "frames classes"], Int[Tensor, "batch"]]:
        """Return logits of all valid frames, one utterance after the other, and their lengths."""
        states, lengths = self.states(batch)
        return self.head(self.layer_sum(states)).float(), lengths


class PhoneProbe(_Probe):
    """Batch with a phone for each frame as its units → Loss per frame."""

    def forward(self, batch: Batch) -> Loss:
        """Return the cross entropy summed over frames.

        Metrics: `loss`, `accuracy` per frame; `accuracy_speech` per frame that is not SILENCE_CLASS;
        `silence`, the part of the frames that are.
        """
        logits, lengths = self.logits(batch)
        is_labelled = batch.units != UNIT_PADDING
        if not torch.equal(is_labelled.sum(dim=1), lengths):
            counts = f"{is_labelled.sum(dim=1).tolist()} labels for {lengths.tolist()} frames"
            raise ValueError(f"{counts} of {', '.join(batch.ids)}")
        phones = batch.units[is_labelled]
        total = functional.cross_entropy(logits, phones, reduction="sum")
        correct = logits.argmax(dim=-1) == phones
        speech = phones != SILENCE_CLASS
        count, speaking = phones.numel(), int(speech.sum())
        metrics = {
            "loss": (total.detach(), count),
            "accuracy": (correct.sum(), count),
            "accuracy_speech": ((correct & speech).sum(), speaking),
            "silence": (count - speaking, count),
        }
        return Loss(total, count, metrics)


class CtcProbe(_Probe):
    """Batch with tokens → CTC loss per utterance (SUPERB's PR where tokens are phones)."""

    def forward(self, batch: Batch) -> Loss:
        """Return the CTC loss summed over utterances, 0 for one with too few frames.

        Metrics: `loss` per utterance; in eval mode `token_error` (greedy) per token.
        """
        logits, lengths = self.logits(batch)
        log_probs = pad_sequence(
            logits.log_softmax(dim=-1).split(lengths.tolist()), batch_first=True
        )
        losses = ctc_loss(log_probs, lengths, batch.tokens.clamp(min=0), batch.token_lengths)
        count, total = len(batch.ids), losses.sum()
        metrics = {"loss": (total.detach(), count)}
        if not self.training:
            metrics["token_error"] = greedy_errors(log_probs, lengths, batch)
        return Loss(total, count, metrics)
