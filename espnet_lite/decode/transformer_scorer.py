"""A Transformer language model one token at a time, for all hypotheses of all utterances at once."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.decode.step_layers import (
    FeedForwardStep,
    SelfAttentionStep,
    StepPositions,
)
from espnet_lite.decode.token_pool import TokenPool
from espnet_lite.errors import InputError
from espnet_lite.lm.transformer import TransformerLm


class TokenTransformer:
    """A language model of a recognizer's tokens, its weights laid out for steps."""

    def __init__(
        self,
        model: TransformerLm,
        own_tokens: Sequence[str],
        tokens: Sequence[str],
        *,
        where: object = None,
    ):
        """Copies the matrices of `model`.

        Args:
            own_tokens: the table that the model was trained with.
            tokens: the recognizer's.

        Raises:
            InputError: the tables differ.
        """
        if list(own_tokens) != list(tokens):
            pairs = zip(own_tokens, tokens, strict=False)
            place = next((i for i, (a, b) in enumerate(pairs) if a != b), len(tokens))
            raise InputError(
                f"a language model of {len(own_tokens)} tokens, the recognizer has {len(tokens)}; "
                f"they differ from token {min(place, len(own_tokens))} on",
                where=where,
                fix="train one of this recognizer's tokens: train_lm --tokenizer MODEL",
            )
        self.embedding = model.embedding
        self.scale = model.positions.scale
        self.layers = [
            (
                SelfAttentionStep(block.attention, block.attention_norm),
                FeedForwardStep(block.feed_forward, block.feed_forward_norm),
            )
            for block in model.blocks
        ]
        self.norm = model.norm
        self.output = model.embedding.weight.detach().T.contiguous()
        self.bias = model.bias.detach()


class TransformerScorer:
    """A Scorer: the language model's log-probability of each next token."""

    def __init__(self, lm: TokenTransformer, *, utterances: int, beam: int):
        weight = lm.embedding.weight
        vocab, dim = weight.shape
        self.lm = lm
        self.tokens = torch.full((utterances, beam), vocab - 1, device=weight.device)
        self.positions = StepPositions(dim, device=weight.device)
        heads = lm.layers[0][0].heads
        self.pool = TokenPool(
            layers=len(lm.layers),
            utterances=utterances,
            beam=beam,
            heads=heads,
            head_dim=dim // heads,
            like=weight.detach(),
        )

    def score(self) -> Float[Tensor, "utterances beam vocab"]:
        """Run the model over the newest token of each hypothesis."""
        lm = self.lm
        self.pool.grow()
        ancestors = self.pool.mask()
        x = lm.embedding(self.tokens) * lm.scale + self.positions.next()
        for number, (attention, feed_forward) in enumerate(lm.layers):
            x = feed_forward.step(attention.step(x, self.pool.of_layer(number), ancestors))
        logits = torch.addmm(lm.bias, lm.norm(x).flatten(0, 1), lm.output)
        return logits.view(*x.shape[:2], -1).log_softmax(dim=-1)

    def advance(
        self, parents: Int[Tensor, "utterances beam"], tokens: Int[Tensor, "utterances beam"]
    ) -> None:
        """A hypothesis sees what its parent sees."""
        self.pool.advance(parents)
        self.tokens = tokens

    def keep(self, utterances: Int[Tensor, "kept"]) -> None:
        """Drop all utterances but these."""
        self.tokens = self.tokens[utterances]
        self.pool.keep(utterances)
