"""Tables of positions that are the same for all utterances of a length."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

LENGTHS = 4  # whose tables are kept


def kept_at_inference(table: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function (frames, width, device) → table that computes the tables of the last lengths
    only once, in inference mode on a CPU. They are not to be written to."""
    kept = functools.lru_cache(maxsize=LENGTHS)(table)

    @functools.wraps(table)
    def made(frames: int, width: int, *, device: torch.device | None = None) -> Tensor:
        if torch.is_inference_mode_enabled() and (device is None or device.type == "cpu"):
            return kept(frames, width)
        return table(frames, width, device=device)

    return made
