"""Hybrid CTC/attention recognizer (Watanabe et al. 2017): front end, encoder, CTC head, decoder."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from espnet_lite.config import build_class, check_numbers, choice, optional_choice
from espnet_lite.data.utterance import TOKEN_PADDING, Batch
from espnet_lite.decode.families import DECODERS, build_decoder
from espnet_lite.decode.greedy import ctc_greedy
from espnet_lite.encoders.families import ENCODERS, check_frame_rate
from espnet_lite.encoders.front_end import FRONT_ENDS
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.models.loss import Loss
from espnet_lite.nn.ctc_loss import ctc_loss
from espnet_lite.nn.input_mask import InputMask
from espnet_lite.score.alignment import align


@dataclass(frozen=True)
class InputMaskConfig:
    """Masks on the encoder's input in training, as HuBERT's fine-tuning has them."""

    time_probability: float = 0.65  # frames of all spans as a part of all, overlaps not counted
    time_span_ms: float = 200.0
    channel_probability: float = 0.5  # the same of the encoder's input channels
    channel_span_part: float = 1 / 12  # of all channels: 64 of 768

    def __post_init__(self):
        check_numbers(self, "time_probability channel_probability", at_least=0, at_most=1)
        check_numbers(self, "time_span_ms", above=0)
        check_numbers(self, "channel_span_part", above=0, at_most=1)


@dataclass(frozen=True)
class AsrConfig:
    """Architecture and loss of a recognizer."""

    front_end: object = choice(FRONT_ENDS, "log_mel")
    encoder: object = choice(ENCODERS, "transformer")
    decoder: object = optional_choice(DECODERS)  # null: CTC only
    input_mask: InputMaskConfig | None = None  # null: none
    ctc_weight: float = 0.3  # of the CTC loss beside the attention loss; unused without a decoder
    label_smoothing: float = 0.1  # of the attention loss
    inter_ctc_layers: tuple[int, ...] = ()  # blocks whose output gets a CTC loss through the head
    inter_ctc_weight: float = 0.3  # of their mean beside the last layer's CTC loss

    def __post_init__(self):
        check_numbers(self, "ctc_weight label_smoothing inter_ctc_weight", at_least=0, at_most=1)
        if self.inter_ctc_layers:
            check_numbers(self, "inter_ctc_layers", at_least=1, at_most=self.encoder.layers)
        if self.decoder is not None and self.encoder.dim % self.decoder.heads:
            raise ValueError(
                f"encoder.dim {self.encoder.dim}, the decoder's width, is not a multiple of"
                f" decoder.heads {self.decoder.heads}"
            )


@dataclass
class AsrOutputs:
    """What a recognizer makes of a batch, before it is compared with the transcripts.

    encoded: the encoder's output.
    log_probs: (batch, time, vocab), CTC's, fp32.
    decoder_logits: (batch, tokens + 1, vocab), fp32, before softmax, or None without a decoder.
    """

    encoded: EncoderOutput
    log_probs: Tensor
    decoder_logits: Tensor | None


class AsrModel(nn.Module):
    """batch → Loss; `encode` and `ctc_log_probs` for decoding."""

    def __init__(self, config: AsrConfig, *, vocab: int):
        super().__init__()
        self.config = config
        self.vocab = vocab
        self.encoder = build_class(ENCODERS, config.encoder)(config.encoder)
        self.front_end = build_class(FRONT_ENDS, config.front_end)(
            config.front_end, dim=self.encoder.dim
        )
        check_frame_rate(config.encoder, self.front_end.grid)
        self.input_mask = None
        if config.input_mask is not None:
            frame_ms = self.front_end.grid.frame_ms
            part = config.input_mask.channel_span_part
            self.input_mask = InputMask(
                self.encoder.dim,
                time_probability=config.input_mask.time_probability,
                time_span=max(1, round(config.input_mask.time_span_ms / frame_ms)),
                channel_probability=config.input_mask.channel_probability,
                channel_span=max(1, round(part * self.encoder.dim)),
            )
        self.ctc_head = nn.Linear(self.encoder.dim, vocab)
        self.decoder = None
        if config.decoder is not None:
            self.decoder = build_decoder(config.decoder, vocab=vocab, dim=self.encoder.dim)

    def encode(
        self,
        waveform: Float[Tensor, "batch samples"],
        waveform_lengths: Int[Tensor, "batch"],
        *,
        generator: torch.Generator | None = None,
        return_layers: bool = False,
    ) -> EncoderOutput:
        """Return the encoder's output for waveforms in [-1, 1]."""
        features, lengths = self.front_end(waveform, waveform_lengths, generator)
        if self.input_mask is not None:
            features = self.input_mask(features, lengths, generator)
        return self.encoder(features, lengths, return_layers=return_layers)

    def ctc_log_probs(
        self, encoded: Float[Tensor, "batch time dim"]
    ) -> Float[Tensor, "batch time vocab"]:
        """Return fp32 log-probabilities of tokens and blank for each frame."""
        return self.ctc_head(encoded).float().log_softmax(dim=-1)

    def forward(self, batch: Batch) -> Loss:
        """Return the loss summed over utterances, with the metrics of training or validation.

        Metrics: `loss`, `loss_ctc` per utterance; `loss_attention` per utterance and `accuracy` per
        token with a decoder; `ctc_error` (greedy token error rate) in eval mode; `unalignable`, the
        part of utterances with fewer frames than CTC needs, which are left out of the CTC loss.
        """
        return self.loss(self.outputs(batch), batch)

    def outputs(self, batch: Batch, *, return_layers: bool = False) -> AsrOutputs:
        """Return what the model makes of a batch: all that the loss is computed from.

        Args:
            batch: what is random in the forward pass is drawn from its seed.
            return_layers: also the encoder's layers, which inter-CTC asks for itself.
        """
        generator = torch.Generator(device=batch.waveform.device).manual_seed(batch.seed)
        encoded = self.encode(
            batch.waveform,
            batch.waveform_lengths,
            generator=generator,
            return_layers=return_layers or bool(self.config.inter_ctc_layers),
        )
        logits = None
        if self.decoder is not None:
            tokens_in, _ = decoder_tokens(batch.tokens, batch.token_lengths, self.vocab - 1)
            logits = self.decoder(
                tokens_in, batch.token_lengths + 1, encoded.encoded, encoded.lengths
            ).float()
        return AsrOutputs(encoded, self.ctc_log_probs(encoded.encoded), logits)

    def loss(self, outputs: AsrOutputs, batch: Batch) -> Loss:
        """Return what `forward` returns, from the outputs for the batch."""
        encoded, log_probs = outputs.encoded, outputs.log_probs
        count = len(batch.ids)
        alignable = encoded.lengths >= frames_needed(batch.tokens, batch.token_lengths)
        loss_ctc = self._ctc(log_probs, encoded.lengths, batch, alignable)
        metrics = {
            "loss_ctc": (loss_ctc.detach(), count),
            "unalignable": (count - alignable.sum(), count),
        }
        total = loss_ctc
        if self.config.inter_ctc_layers:
            inner = [
                self._ctc(
                    self.ctc_log_probs(self.encoder.norm(encoded.layers[layer])),
                    encoded.lengths,
                    batch,
                    alignable,
                )
                for layer in self.config.inter_ctc_layers
            ]
            weight = self.config.inter_ctc_weight
            total = (1 - weight) * total + weight * torch.stack(inner).mean()
        if outputs.decoder_logits is not None:
            loss_attention, correct, tokens = self._attention(outputs.decoder_logits, batch)
            total = self.config.ctc_weight * total + (1 - self.config.ctc_weight) * loss_attention
            metrics["loss_attention"] = (loss_attention.detach(), count)
            metrics["accuracy"] = (correct, tokens)
        if not self.training:
            metrics["ctc_error"] = greedy_errors(log_probs, encoded.lengths, batch)
        metrics["loss"] = (total.detach(), count)
        return Loss(total, count, metrics)

    def _ctc(self, log_probs, lengths, batch: Batch, alignable: Bool[Tensor, "batch"]) -> Tensor:
        """Return the CTC loss summed over the utterances that can be aligned."""
        losses = ctc_loss(log_probs, lengths, batch.tokens.clamp(min=0), batch.token_lengths)
        return torch.where(alignable, losses, 0.0).sum()

    def _attention(
        self, logits: Float[Tensor, "batch tokens vocab"], batch: Batch
    ) -> tuple[Tensor, Tensor, int]:
        """Return the smoothed cross entropy summed over tokens, correct tokens and all tokens."""
        _, tokens_out = decoder_tokens(batch.tokens, batch.token_lengths, self.vocab - 1)
        loss = functional.cross_entropy(
            logits.transpose(1, 2),
            tokens_out,
            ignore_index=TOKEN_PADDING,
            label_smoothing=self.config.label_smoothing,
            reduction="sum",
        )
        correct = ((logits.argmax(dim=-1) == tokens_out) & (tokens_out != TOKEN_PADDING)).sum()
        return loss, correct, int((batch.token_lengths + 1).sum())


def frames_needed(
    tokens: Int[Tensor, "batch tokens"], token_lengths: Int[Tensor, "batch"]
) -> Int[Tensor, "batch"]:
    """Return the fewest frames CTC can align: one a token and a blank between equal neighbours."""
    repeats = (tokens[:, 1:] == tokens[:, :-1]) & (tokens[:, 1:] != TOKEN_PADDING)
    return (token_lengths + repeats.sum(dim=1)).clamp(min=1)


def decoder_tokens(
    tokens: Int[Tensor, "batch tokens"], token_lengths: Int[Tensor, "batch"], sos_eos: int
) -> tuple[Int[Tensor, "batch tokens_plus_1"], Int[Tensor, "batch tokens_plus_1"]]:
    """Return decoder inputs (<sos/eos> first, padded with it) and targets (<sos/eos> last, padded
    with -1)."""
    start = tokens.new_full((tokens.size(0), 1), sos_eos)
    tokens_in = torch.cat([start, tokens.where(tokens != TOKEN_PADDING, sos_eos)], dim=1)
    tokens_out = functional.pad(tokens, (0, 1), value=TOKEN_PADDING)
    tokens_out = tokens_out.scatter(1, token_lengths[:, None], sos_eos)
    return tokens_in, tokens_out


def greedy_errors(log_probs: Tensor, lengths: Tensor, batch: Batch) -> tuple[float, float]:
    """Return (token errors of the best path, reference tokens)."""
    errors = 0
    hypotheses = ctc_greedy(log_probs, lengths)
    for hypothesis, tokens in zip(hypotheses, batch.tokens.tolist(), strict=True):
        reference = [str(token) for token in tokens if token != TOKEN_PADDING]
        errors += align(reference, [str(token) for token in hypothesis]).counts.errors
    return float(errors), float(batch.token_lengths.sum())
