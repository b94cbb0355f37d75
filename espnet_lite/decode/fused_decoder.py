"""The attention decoder one token at a time in one call of a C++ kernel (kernels/decoder_step.py); what it
computes is what decoder_scorer.py computes in torch."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.decode.decoder_scorer import StepDecoder
from espnet_lite.decode.step_layers import FeedForwardStep, StepLinear, StepPositions
from espnet_lite.decode.token_pool import TokenPool
from espnet_lite.kernels.decoder_step import (
    ARGUMENTS,
    DecoderStep,
    Memory,
    StepWeights,
    column_panels,
    linear_panels,
    norm_columns,
    on_large_pages,
)
from espnet_lite.kernels.library import kernel
from espnet_lite.nn.decoder import TransformerDecoder
from espnet_lite.nn.feed_forward import ACTIVATIONS


def step_decoder(decoder: TransformerDecoder) -> "StepDecoder | FusedDecoder":
    """Return a decoder laid out for steps: the kernel's where it can be had, else torch's."""
    weight = decoder.embedding.weight
    function = kernel("decoder_step", ARGUMENTS)
    laid_out = StepDecoder(decoder)
    if function is None or weight.dtype != torch.float32 or weight.device.type != "cpu":
        return laid_out
    return FusedDecoder(function, laid_out)


class FusedDecoder:
    """A StepDecoder whose weights are copied once more, as the kernel reads them."""

    def __init__(self, function: Callable[..., int], decoder: StepDecoder):
        self.function = function
        self.memories = [layer.memory for layer in decoder.layers]
        parts = []
        for layer in decoder.layers:
            parts += [_norm(layer.own.norm), _linear(layer.own.project), _linear(layer.own.out)]
            parts += [_norm(layer.cross_norm), _linear(layer.query), _linear(layer.cross_out)]
            parts += _feed_forward(layer.feed_forward)
        parts += [_norm(decoder.norm), _linear(decoder.output)]
        first = decoder.layers[0]
        self.weights = StepWeights(
            packed=on_large_pages(torch.cat(parts)),
            embedding=decoder.embedding.weight.detach(),
            scale=decoder.scale,
            heads=first.heads,
            feed_forward=first.feed_forward.expand.weight.size(1),
            layers=len(decoder.layers),
            activation=_activation(first.feed_forward),
            epsilon=decoder.norm.eps,
        )

    def start(
        self,
        encoded: Float[Tensor, "utterances time dim"],
        lengths: Int[Tensor, "utterances"],
        *,
        beam: int,
        sos: int,
    ) -> "FusedDecoderScorer":
        """Return the scorer of a batch in which each utterance has a frame or more."""
        return FusedDecoderScorer(self, encoded, lengths, beam=beam, sos=sos)

    def memory_of(
        self, encoded: Float[Tensor, "utterances time dim"], lengths: Int[Tensor, "utterances"]
    ) -> Memory:
        """Return keys and values of the encoder's frames."""
        joint = torch.stack([memory(encoded) for memory in self.memories])
        keys, values = joint.unflatten(-1, (2, self.weights.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        return Memory(column_panels(keys.mT), column_panels(values), lengths.to(torch.int64))


def _linear(linear: StepLinear) -> Tensor:
    return linear_panels(linear.weight, linear.bias)


def _norm(norm: nn.LayerNorm) -> Tensor:
    return norm_columns(norm.weight.detach(), norm.bias.detach())


def _feed_forward(layer: FeedForwardStep) -> list[Tensor]:
    return [_norm(layer.norm), _linear(layer.expand), _linear(layer.contract)]


def _activation(layer: FeedForwardStep) -> str:
    return next(name for name, kind in ACTIVATIONS.items() if isinstance(layer.activation, kind))


class FusedDecoderScorer:
    """A Scorer: log-probabilities of the next token."""

    def __init__(
        self,
        decoder: FusedDecoder,
        encoded: Float[Tensor, "utterances time dim"],
        lengths: Int[Tensor, "utterances"],
        *,
        beam: int,
        sos: int,
    ):
        """Made by FusedDecoder.start."""
        utterances, _, dim = encoded.shape
        weights = decoder.weights
        self.step = DecoderStep(decoder.function, weights, rows=utterances * beam)
        self.memory = decoder.memory_of(encoded, lengths)
        self.tokens = torch.full((utterances, beam), sos)
        self.positions = StepPositions(dim, device=encoded.device)
        self.pool = TokenPool(
            layers=weights.layers,
            utterances=utterances,
            beam=beam,
            heads=weights.heads,
            head_dim=dim // weights.heads,
            like=encoded,
        )

    def score(self) -> Float[Tensor, "utterances beam vocab"]:
        """Run the decoder over the newest token of each hypothesis."""
        seen = self.pool.grow()
        return self.step(self.tokens, self.positions.next(), seen, self.pool.pool, self.memory)

    def advance(
        self, parents: Int[Tensor, "utterances beam"], tokens: Int[Tensor, "utterances beam"]
    ) -> None:
        """A hypothesis sees what its parent sees."""
        self.pool.advance(parents)
        self.tokens = tokens

    def keep(self, utterances: Int[Tensor, "kept"]) -> None:
        """Drop all utterances but these."""
        self.memory = self.memory.keep(utterances)
        self.tokens = self.tokens[utterances]
        self.pool.keep(utterances)
