"""Keys and values of the tokens of all hypotheses, in a prefix tree.

The pool grows by one node a hypothesis and step: hypotheses share the nodes they have in common, each
sees its own ancestors through a mask, and a beam that is reordered moves rows of that mask and nothing
else. When the pool is full, the nodes that no hypothesis sees any more are left behind.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.decode.scorers import take

ROOM_STEPS = 16  # a new pool has room for so many steps, beside twice the nodes that are in use


class TokenPool:
    """What the layers of a decoder keep of the tokens so far."""

    def __init__(
        self, *, layers: int, utterances: int, beam: int, heads: int, head_dim: int, like: Tensor
    ):
        """Make room for the first steps; dtype and device are those of `like`."""
        self.heads, self.beam = heads, beam
        self.nodes = 0
        room = ROOM_STEPS * beam
        self.pool = like.new_empty(layers, 2, utterances, heads, room, head_dim)
        # Added to the scores of attention: 0 or −∞.
        self.ancestors = like.new_full((utterances, beam, room), -torch.inf)

    def grow(self) -> Float[Tensor, "utterances_x_heads beam nodes"]:
        """Add a node for each hypothesis and return what each sees: its ancestors and itself."""
        if self.nodes + self.beam > self.pool.size(-2):
            self._make_room()
        first, self.nodes = self.nodes, self.nodes + self.beam
        self.ancestors[..., first : self.nodes].diagonal(dim1=1, dim2=2).zero_()
        return self.ancestors[..., : self.nodes].repeat_interleave(self.heads, dim=0)

    def of_layer(self, number: int) -> Float[Tensor, "2 utterances heads nodes head_dim"]:
        """Return keys and values of a layer, the newest nodes last, which it has to fill."""
        return self.pool[number, ..., : self.nodes, :]

    def advance(self, parents: Int[Tensor, "utterances beam"]) -> None:
        """Let each hypothesis see what its parent sees."""
        self.ancestors[..., : self.nodes] = take(self.ancestors[..., : self.nodes], parents)

    def keep(self, utterances: Int[Tensor, "kept"]) -> None:
        """Drop all utterances but these."""
        self.pool = self.pool[:, :, utterances]
        self.ancestors = self.ancestors[utterances]

    def _make_room(self) -> None:
        """Move the nodes that some hypothesis sees into a new pool with room for as many again."""
        layers, _, utterances, heads, _, head_dim = self.pool.shape
        seen = (self.ancestors == 0).any(dim=1)
        count = int(seen.sum(dim=1).max())
        order = seen.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        room = 2 * count + ROOM_STEPS * self.beam
        pool = self.pool.new_empty(layers, 2, utterances, heads, room, head_dim)
        index = order[:, None, :, None].expand(-1, heads, -1, head_dim)
        torch.gather(
            self.pool, 4, index.expand(layers, 2, -1, -1, -1, -1), out=pool[..., :count, :]
        )
        ancestors = self.ancestors.new_full((utterances, self.beam, room), -torch.inf)
        ancestors[..., :count] = self.ancestors.gather(2, order[:, None].expand(-1, self.beam, -1))
        self.pool, self.ancestors, self.nodes = pool, ancestors, count
