"""Keys and values of the tokens of all hypotheses, in a prefix tree.

The pool grows by one node a hypothesis and step: hypotheses share the nodes they have in common, each
has a list of those it sees, its ancestors and itself, and a beam that is reordered moves these lists and
nothing else. When the pool is full, the nodes that no hypothesis sees any more are left behind.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
        self.seen = torch.empty(utterances, beam, 0, dtype=torch.int64, device=like.device)

    def grow(self) -> Int[Tensor, "utterances beam seen"]:
        """Add a node for each hypothesis and return what each sees: its ancestors and, last, itself."""
        if self.nodes + self.beam > self.pool.size(-2):
            self._make_room()
        newest = torch.arange(self.nodes, self.nodes + self.beam, device=self.seen.device)
        newest = newest.expand(len(self.seen), -1)[..., None]
        self.seen = torch.cat([self.seen, newest], dim=2)
        self.nodes += self.beam
        return self.seen

    def mask(self) -> Float[Tensor, "utterances_x_heads beam nodes"]:
        """Return what is added to the scores of attention: 0, or −∞ where a node is not seen."""
        shape = (*self.seen.shape[:2], self.nodes)
        hidden = self.pool.new_full(shape, -torch.inf).scatter_(2, self.seen, 0.0)
        return hidden.repeat_interleave(self.heads, dim=0)

    def of_layer(self, number: int) -> Float[Tensor, "2 utterances heads nodes head_dim"]:
        """Return keys and values of a layer, the newest nodes last, which it has to fill."""
        return self.pool[number, ..., : self.nodes, :]

    def advance(self, parents: Int[Tensor, "utterances beam"]) -> None:
        """Let each hypothesis see what its parent sees."""
        self.seen = self.seen.gather(1, parents[..., None].expand_as(self.seen))

    def keep(self, utterances: Int[Tensor, "kept"]) -> None:
        """Drop all utterances but these."""
        self.pool = self.pool.index_select(2, utterances)
        self.seen = self.seen[utterances]

    def _make_room(self) -> None:
        """Move the nodes that some hypothesis sees into a new pool with room for as many again."""
        layers, _, utterances, heads, nodes, head_dim = self.pool.shape
        every = self.seen.flatten(1)
        is_seen = torch.zeros(utterances, nodes, dtype=torch.bool, device=every.device)
        is_seen.scatter_(1, every, True)
        count = int(is_seen.sum(dim=1).max())
        order = is_seen.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        room = 2 * count + ROOM_STEPS * self.beam
        pool = self.pool.new_empty(layers, 2, utterances, heads, room, head_dim)
        index = order[:, None, :, None].expand(-1, heads, -1, head_dim)
        torch.gather(
            self.pool, 4, index.expand(layers, 2, -1, -1, -1, -1), out=pool[..., :count, :]
        )
        places = is_seen.cumsum(dim=1) - 1
        self.seen = places.gather(1, every).view(self.seen.shape)
        self.pool, self.nodes = pool, count
