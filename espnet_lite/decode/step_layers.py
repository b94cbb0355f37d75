"""Layers of a Transformer for steps of one token: weights laid out anew, keys and values kept outside."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from espnet_lite.nn.attention import MultiHeadAttention
from espnet_lite.nn.feed_forward import FeedForward
from espnet_lite.nn.positions import sinusoids

FIRST_POSITIONS = 64


class StepPositions:
    """The positions of a sequence, one after the other."""

    def __init__(self, dim: int, *, device: torch.device):
        self.table = sinusoids(FIRST_POSITIONS, dim, device=device)
        self.step = 0

    def next(self) -> Float[Tensor, "dim"]:
        """Return the position of this step."""
        if self.step == len(self.table):
            self.table = sinusoids(2 * self.step, self.table.size(1), device=self.table.device)
        self.step += 1
        return self.table[self.step - 1]


class StepLinear:
    """Linear layers that share an input, as one matrix stored by columns.

    With ten rows a product waits for the matrix to come from memory; in this order it comes a
    third faster than in nn.Linear's.
    """

    def __init__(self, *layers: nn.Linear, first_scale: float = 1.0):
        weights, biases = (
            [getattr(layer, n).detach() for layer in layers] for n in ("weight", "bias")
        )
        weights[0], biases[0] = weights[0] * first_scale, biases[0] * first_scale
        self.weight = torch.cat(weights).T.contiguous()
        self.bias = torch.cat(biases)

    def __call__(self, x: Float[Tensor, "*rows in_dim"]) -> Float[Tensor, "*rows out_dim"]:
        """Return x·W + b."""
        flat = torch.addmm(self.bias, x.flatten(0, -2), self.weight)
        return flat.view(*x.shape[:-1], -1)


class SelfAttentionStep:
    """x + attention(norm(x)) to the tokens so far; queries are scaled by their projection."""

    def __init__(self, attention: MultiHeadAttention, norm: nn.LayerNorm):
        self.heads = attention.heads
        self.scale = (attention.query.out_features // attention.heads) ** -0.5
        self.norm = norm
        self.project = StepLinear(
            attention.query, attention.key, attention.value, first_scale=self.scale
        )
        self.out = StepLinear(attention.out)

    def step(
        self,
        x: Float[Tensor, "utterances beam dim"],
        past: Float[Tensor, "2 utterances heads nodes head_dim"],
        ancestors: Float[Tensor, "utterances_x_heads beam nodes"],
    ) -> Float[Tensor, "utterances beam dim"]:
        """Return the output; the last `beam` nodes of `past` are filled with those of x."""
        own = self.split(self.project(self.norm(x)), 3)
        past[..., -x.size(1) :, :] = own[1:]
        return x + self.out(attend(own[0], past, ancestors))

    def split(
        self, joined: Float[Tensor, "utterances time width"], parts: int
    ) -> Float[Tensor, "parts utterances heads time head_dim"]:
        """Return the heads of each part of a joint projection."""
        return joined.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)


class FeedForwardStep:
    """x + feed_forward(norm(x))."""

    def __init__(self, feed_forward: FeedForward, norm: nn.LayerNorm):
        self.norm = norm
        self.expand = StepLinear(feed_forward.expand)
        activation = feed_forward.activation
        self.activation = nn.ReLU(inplace=True) if isinstance(activation, nn.ReLU) else activation
        self.contract = StepLinear(feed_forward.contract)

    def step(self, x: Float[Tensor, "utterances beam dim"]) -> Float[Tensor, "utterances beam dim"]:
        """Return the output."""
        return x + self.contract(self.activation(self.expand(self.norm(x))))


def attend(
    query: Float[Tensor, "utterances heads beam head_dim"],
    keys_values: Float[Tensor, "2 utterances heads keys head_dim"],
    mask: Float[Tensor, "utterances_x_heads beam keys"] | None,
) -> Float[Tensor, "utterances beam dim"]:
    """Return what each query reads; all hypotheses of an utterance read the same keys."""
    keys, values = keys_values.flatten(1, 2)
    flat = query.flatten(0, 1)
    scores = flat @ keys.mT if mask is None else torch.baddbmm(mask, flat, keys.mT)
    mixed = scores.softmax(dim=-1) @ values
    return mixed.unflatten(0, query.shape[:2]).transpose(1, 2).flatten(2)
