"""The attention decoder one token at a time, for all hypotheses of all utterances at once.

Keys and values of the encoder's frames are computed once for an utterance. Those of the tokens lie
in a pool that grows by one node a hypothesis and step, a prefix tree: hypotheses share the nodes
they have in common, each sees its own ancestors through a mask, and a beam that is reordered moves
rows of that mask and nothing else. When the pool is full, the nodes that no hypothesis sees any
more are left behind.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.decode.scorers import take
from espnet_lite.nn.decoder import DecoderBlock, TransformerDecoder
from espnet_lite.nn.masks import key_mask
from espnet_lite.nn.positions import sinusoids

ROOM_STEPS = 16  # a new pool has room for so many steps, beside twice the nodes that are in use


class StepDecoder:
    """A decoder whose weights are laid out for steps of one token; `start` begins a batch."""

    def __init__(self, decoder: TransformerDecoder):
        """Copies the matrices: what changes in `decoder` later does not count."""
        self.embedding = decoder.embedding
        self.scale = decoder.positions.scale
        self.layers = [_StepBlock(block) for block in decoder.blocks]
        self.norm = decoder.norm
        self.output = _StepLinear(decoder.output)

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


class _StepLinear:
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


class _StepBlock:
    """One decoder block; queries are scaled by their projection."""

    def __init__(self, block: DecoderBlock):
        own, cross = block.self_attention, block.cross_attention
        scale = (own.query.out_features // own.heads) ** -0.5
        self.heads = own.heads
        self.own_norm = block.self_attention_norm
        self.own = _StepLinear(own.query, own.key, own.value, first_scale=scale)
        self.own_out = _StepLinear(own.out)
        self.cross_norm = block.cross_attention_norm
        self.query = _StepLinear(cross.query, first_scale=scale)
        self.memory = _StepLinear(cross.key, cross.value)
        self.cross_out = _StepLinear(cross.out)
        self.feed_forward_norm = block.feed_forward_norm
        self.expand = _StepLinear(block.feed_forward.expand)
        activation = block.feed_forward.activation
        self.activation = nn.ReLU(inplace=True) if isinstance(activation, nn.ReLU) else activation
        self.contract = _StepLinear(block.feed_forward.contract)

    def memory_of(
        self, encoded: Float[Tensor, "utterances time dim"]
    ) -> Float[Tensor, "2 utterances heads time head_dim"]:
        """Return keys and values of the encoder's frames."""
        return self._split(self.memory(encoded), 2).contiguous()

    def step(
        self,
        x: Float[Tensor, "utterances beam dim"],
        past: Float[Tensor, "2 utterances heads nodes head_dim"],
        ancestors: Float[Tensor, "utterances_x_heads beam nodes"],
        memory: Float[Tensor, "2 utterances heads time head_dim"],
        memory_mask: Float[Tensor, "utterances_x_heads beam time"] | None,
    ) -> Float[Tensor, "utterances beam dim"]:
        """Return the block's output; the last `beam` nodes of `past` are filled with those of x."""
        own = self._split(self.own(self.own_norm(x)), 3)
        past[..., -x.size(1) :, :] = own[1:]
        x = x + self.own_out(_attend(own[0], past, ancestors))
        query = self._split(self.query(self.cross_norm(x)), 1)[0]
        x = x + self.cross_out(_attend(query, memory, memory_mask))
        return x + self.contract(self.activation(self.expand(self.feed_forward_norm(x))))

    def _split(
        self, joined: Float[Tensor, "utterances time width"], parts: int
    ) -> Float[Tensor, "parts utterances heads time head_dim"]:
        return joined.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)


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
        self.step = self.nodes = 0
        self.positions = sinusoids(ROOM_STEPS, dim, device=encoded.device)
        heads, room = decoder.layers[0].heads, ROOM_STEPS * beam
        self.pool = encoded.new_empty(len(decoder.layers), 2, utterances, heads, room, dim // heads)
        self.ancestors = encoded.new_full((utterances, beam, room), -torch.inf)

    def score(self) -> Float[Tensor, "utterances beam vocab"]:
        """Run the decoder over the newest token of each hypothesis."""
        decoder, beam = self.decoder, self.tokens.size(1)
        if self.nodes + beam > self.pool.size(-2):
            self._make_room()
        first, self.nodes = self.nodes, self.nodes + beam
        self.ancestors[..., first : self.nodes].diagonal(dim1=1, dim2=2).zero_()
        ancestors = self._per_head(self.ancestors[..., : self.nodes])
        memory_mask = None if self.memory_mask is None else self._per_head(self.memory_mask)
        if self.step == len(self.positions):
            table = sinusoids(2 * self.step, self.positions.size(1), device=self.tokens.device)
            self.positions = table
        x = decoder.embedding(self.tokens) * decoder.scale + self.positions[self.step]
        for number, layer in enumerate(decoder.layers):
            past = self.pool[number, ..., : self.nodes, :]
            x = layer.step(x, past, ancestors, self.memories[number], memory_mask)
        self.step += 1
        return decoder.output(decoder.norm(x)).float().log_softmax(dim=-1)

    def advance(
        self, parents: Int[Tensor, "utterances beam"], tokens: Int[Tensor, "utterances beam"]
    ) -> None:
        """A hypothesis sees what its parent sees."""
        self.ancestors[..., : self.nodes] = take(self.ancestors[..., : self.nodes], parents)
        self.tokens = tokens

    def keep(self, utterances: Int[Tensor, "kept"]) -> None:
        """Drop all utterances but these."""
        self.memories = self.memories[:, :, utterances]
        self.pool = self.pool[:, :, utterances]
        self.ancestors, self.tokens = self.ancestors[utterances], self.tokens[utterances]
        if self.memory_mask is not None:
            self.memory_mask = self.memory_mask[utterances]

    def _per_head(
        self, mask: Float[Tensor, "utterances beam keys"]
    ) -> Float[Tensor, "utterances_x_heads beam keys"]:
        return mask.repeat_interleave(self.decoder.layers[0].heads, dim=0)

    def _make_room(self) -> None:
        """Move the nodes that some hypothesis sees into a new pool with room for as many again."""
        layers, _, utterances, heads, _, head_dim = self.pool.shape
        beam = self.tokens.size(1)
        seen = (self.ancestors == 0).any(dim=1)
        count = int(seen.sum(dim=1).max())
        order = seen.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        room = 2 * count + ROOM_STEPS * beam
        pool = self.pool.new_empty(layers, 2, utterances, heads, room, head_dim)
        index = order[:, None, :, None].expand(-1, heads, -1, head_dim)
        torch.gather(
            self.pool, 4, index.expand(layers, 2, -1, -1, -1, -1), out=pool[..., :count, :]
        )
        ancestors = self.ancestors.new_full((utterances, beam, room), -torch.inf)
        ancestors[..., :count] = self.ancestors.gather(2, order[:, None].expand(-1, beam, -1))
        self.pool, self.ancestors, self.nodes = pool, ancestors, count


def _attend(
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
