"""The attention decoder one token at a time, for all hypotheses of all utterances at once.

Keys and values of the encoder's frames are computed once for an utterance, those of the tokens lie in
a pool that the hypotheses share (token_pool.py).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.decode.step_layers import (
    FeedForwardStep,
    SelfAttentionStep,
    StepLinear,
    StepPositions,
    attend,
)
from espnet_lite.decode.token_pool import TokenPool
from espnet_lite.nn.decoder import DecoderBlock, TransformerDecoder
from espnet_lite.nn.masks import key_mask


class StepDecoder:
    """A decoder whose weights are laid out for steps of one token; `start` begins a batch."""

    def __init__(self, decoder: TransformerDecoder):
        """Copies the matrices: what changes in `decoder` later does not count."""
        self.embedding = decoder.embedding
        self.scale = decoder.positions.scale
        self.layers = [_StepBlock(block) for block in decoder.blocks]
        self.norm = decoder.norm
        self.output = StepLinear(decoder.output)

    def start(
        self,
        encoded: Float[Tensor, "utterances time dim"],
        lengths: Int[Tensor, "utterances"],
        *,
        beam: int,
        sos: int,
    ) -> "DecoderScorer":
        """Return the scorer of a batch in which each utterance has a frame or more."""
        return DecoderScorer(self, encoded, lengths, beam=beam, sos=sos)


class _StepBlock:
    """One decoder block; queries are scaled by their projection."""

    def __init__(self, block: DecoderBlock):
        cross = block.cross_attention
        self.own = SelfAttentionStep(block.self_attention, block.self_attention_norm)
        self.heads = self.own.heads
        self.cross_norm = block.cross_attention_norm
        self.query = StepLinear(cross.query, first_scale=self.own.scale)
        self.memory = StepLinear(cross.key, cross.value)
        self.cross_out = StepLinear(cross.out)
        self.feed_forward = FeedForwardStep(block.feed_forward, block.feed_forward_norm)

    def memory_of(
        self, encoded: Float[Tensor, "utterances time dim"]
    ) -> Float[Tensor, "2 utterances heads time head_dim"]:
        """Return keys and values of the encoder's frames."""
        return self.own.split(self.memory(encoded), 2).contiguous()

    def step(
        self,
        x: Float[Tensor, "utterances beam dim"],
        past: Float[Tensor, "2 utterances heads nodes head_dim"],
        ancestors: Float[Tensor, "utterances_x_heads beam nodes"],
        memory: Float[Tensor, "2 utterances heads time head_dim"],
        memory_mask: Float[Tensor, "utterances_x_heads beam time"] | None,
    ) -> Float[Tensor, "utterances beam dim"]:
        """Return the block's output; the last `beam` nodes of `past` are filled with those of x."""
        x = self.own.step(x, past, ancestors)
        query = self.own.split(self.query(self.cross_norm(x)), 1)[0]
        x = x + self.cross_out(attend(query, memory, memory_mask))
        return self.feed_forward.step(x)


class DecoderScorer:
    """A Scorer: log-probabilities of the next token."""

    def __init__(
        self,
        decoder: StepDecoder,
        encoded: Float[Tensor, "utterances time dim"],
        lengths: Int[Tensor, "utterances"],
        *,
        beam: int,
        sos: int,
    ):
        """Made by StepDecoder.start."""
        utterances, time, dim = encoded.shape
        self.decoder = decoder
        self.memories = torch.stack([layer.memory_of(encoded) for layer in decoder.layers])
        # Added to the scores of attention: 0 or −∞.
        self.memory_mask = None
        if bool((lengths < time).any()):
            hidden = ~key_mask(lengths, time)[:, 0]
            self.memory_mask = encoded.new_zeros(utterances, beam, time).masked_fill_(
                hidden, -torch.inf
            )
        self.tokens = torch.full((utterances, beam), sos, device=encoded.device)
        self.positions = StepPositions(dim, device=encoded.device)
        heads = decoder.layers[0].heads
        self.pool = TokenPool(
            layers=len(decoder.layers),
            utterances=utterances,
            beam=beam,
            heads=heads,
            head_dim=dim // heads,
            like=encoded,
        )

    def score(self) -> Float[Tensor, "utterances beam vocab"]:
        """Run the decoder over the newest token of each hypothesis."""
        decoder = self.decoder
        self.pool.grow()
        ancestors, memory_mask = self.pool.mask(), self.memory_mask
        if memory_mask is not None:
            memory_mask = memory_mask.repeat_interleave(self.pool.heads, dim=0)
        x = decoder.embedding(self.tokens) * decoder.scale + self.positions.next()
        for number, layer in enumerate(decoder.layers):
            past = self.pool.of_layer(number)
            x = layer.step(x, past, ancestors, self.memories[number], memory_mask)
        return decoder.output(decoder.norm(x)).float().log_softmax(dim=-1)

    def advance(
        self, parents: Int[Tensor, "utterances beam"], tokens: Int[Tensor, "utterances beam"]
    ) -> None:
        """A hypothesis sees what its parent sees."""
        self.pool.advance(parents)
        self.tokens = tokens

    def keep(self, utterances: Int[Tensor, "kept"]) -> None:
        """Drop all utterances but these."""
        self.memories = self.memories[:, :, utterances]
        self.tokens = self.tokens[utterances]
        self.pool.keep(utterances)
        if self.memory_mask is not None:
            self.memory_mask = self.memory_mask[utterances]
