"""A uniform sample of frames that come one block after the other, in memory of a fixed size."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from espnet_lite.errors import InputError


class Reservoir:
    """Keeps `capacity` of all frames added, each with the same chance (Vitter 1985, algorithm R).

    Memory is taken as it fills, at most `capacity` × `dim` × 4 bytes, however many frames come.
    """

    def __init__(self, capacity: int, *, dim: int, generator: torch.Generator):
        """Reserve the room.

        Args:
            capacity: frames kept.
            dim: of a frame.
            generator: of the CPU; decides who stays.

        Raises:
            InputError: room for less than one frame.
        """
        if capacity < 1:
            raise InputError(f"room for {capacity} frames of {dim} dimensions, expected 1 or more")
        self.seen = 0  # frames added
        self._generator = generator
        self._frames = np.empty((capacity, dim), dtype=np.float32)  # pages come when written to

    def add(self, frames: Float[Tensor, "n dim"]) -> None:
        """Offer frames."""
        rows = frames.detach().to("cpu", torch.float32).numpy()
        capacity = len(self._frames)
        fill = min(len(rows), max(0, capacity - self.seen))
        self._frames[self.seen : self.seen + fill] = rows[:fill]
        rows = rows[fill:]
        self.seen += fill
        if not len(rows):
            return
        # Frame number i (from 0) takes a place drawn from 0 to i, if there is one of that number.
        numbers = np.arange(self.seen, self.seen + len(rows), dtype=np.int64)
        self.seen += len(rows)
        drawn = torch.rand(len(rows), dtype=torch.float64, generator=self._generator).numpy()
        places = (drawn * (numbers + 1)).astype(np.int64)
        taken = np.flatnonzero(places < capacity)[::-1]
        # Of frames that drew the same place the last one stays: the first of the reversed ones.
        unique, which = np.unique(places[taken], return_index=True)
        self._frames[unique] = rows[taken[which]]

    def sample(self) -> Float[Tensor, "kept dim"]:
        """Return the frames kept so far, a view of the room; all of them while there is room."""
        return torch.from_numpy(self._frames[: min(self.seen, len(self._frames))])
