"""CTC log-probabilities of audio of any length: in windows that see some context beyond what they keep."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from espnet_lite.features.frame_grid import FrameGrid

# Recognizers are trained on utterances of some ten seconds, and attention's memory grows with the
# square of the window. A second or two beyond a frame is what its token depends on.
WINDOW_SECONDS = 30.0
CONTEXT_SECONDS = 3.0


@runtime_checkable
class CtcModel(Protocol):
    """What is asked of a model: log-probabilities, and where its frames lie."""

    def log_probs(self, waveform: Tensor, waveform_lengths: Tensor) -> tuple[Tensor, Tensor]: ...


def log_probs_of(
    model: CtcModel,
    waveform: Float[Tensor, " samples"],
    grid: FrameGrid,
    *,
    window_seconds: float = WINDOW_SECONDS,
    context_seconds: float = CONTEXT_SECONDS,
) -> Float[Tensor, "time vocab"]:
    """Return the log-probabilities of one recording; audio of one window is computed whole.

    Args:
        grid: of the model's frames.
        window_seconds: of audio at a time, context on both sides included.
        context_seconds: of it that only the frames between look at.
    """
    parts = []
    for first, last, start, stop in _windows(
        grid.num_frames(len(waveform)),
        window=round(window_seconds * grid.sample_rate / grid.shift_samples),
        context=round(context_seconds * grid.sample_rate / grid.shift_samples),
    ):
        samples = waveform[first * grid.shift_samples :]
        if last is not None:
            samples = samples[: (last - first - 1) * grid.shift_samples + grid.window_samples]
        log_probs, lengths = model.log_probs(samples[None], torch.tensor([len(samples)]))
        parts.append(log_probs[0, start - first : min(stop - first, int(lengths[0]))])
    return torch.cat(parts)


def _windows(
    frames: int, *, window: int, context: int
) -> Iterator[tuple[int, int | None, int, int]]:
    """Yield for each window its first frame, the one after its last (None: to the end of the
    audio), and the first and the one after the last that it is kept for."""
    if frames <= window:
        yield 0, None, 0, frames
        return
    kept = max(1, window - 2 * context)
    for start in range(0, frames, kept):
        stop = min(start + kept, frames)
        last = stop + context
        yield max(0, start - context), last if last < frames else None, start, stop
