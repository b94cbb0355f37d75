"""From recordings to text with a packed model: the Python API behind bin/transcribe.

    recognizer = Transcriber.load("model.esp")
    transcript = recognizer.transcribe("speech.flac")
    print(transcript.text)

A recording longer than a window is read a window after the other, which overlap: of two neighbours each gives
the frames that lie nearer its own middle, so that no word is cut and memory does not grow.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from espnet_lite.data.audio import read_audio
from espnet_lite.decode.greedy import BLANK
from espnet_lite.errors import InputError
from espnet_lite.numerics import use_fast_matmul
from espnet_lite.runtime.kernels import use_kernels
from espnet_lite.runtime.packed_model import PackedModel

WINDOW_SECONDS = 30.0
OVERLAP_SECONDS = 4.0
PAUSE_SECONDS = 0.6  # between tokens, that parts two segments
LONGEST_SEGMENT_SECONDS = 8.0  # beyond, a segment is parted at its longest pause between words


@dataclass(frozen=True)
class Segment:
    """Words said without a pause."""

    start_seconds: float
    end_seconds: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording."""

    text: str
    segments: list[Segment]
    audio_seconds: float


@dataclass(frozen=True)
class _Token:
    """A token and the frames that CTC gives it."""

    id: int
    first: int
    end: int


class Transcriber:
    """A packed model and how long recordings are cut.

    Attributes:
        model: on the kernels of this processor.
        sample_rate: Hz that the model takes.
        shortest_seconds: of a recording that has a frame.
    """

    def __init__(
        self,
        model: PackedModel,
        *,
        window_seconds: float = WINDOW_SECONDS,
        overlap_seconds: float = OVERLAP_SECONDS,
    ):
        """Take a model whose modules are those it shall compute with.

        Raises:
            InputError: a window that is not longer than two overlaps.
        """
        self.model = model
        self.sample_rate = model.sample_rate
        grid = model.front_end.grid
        self.shortest_seconds = grid.window_samples / grid.sample_rate
        self._frame_seconds = grid.shift_samples / grid.sample_rate
        # Even numbers, so that an encoder that halves its frame rate halves the same frames in
        # every window.
        self._kept = 2 * round((window_seconds - overlap_seconds) / self._frame_seconds / 2)
        self._margin = 2 * round(overlap_seconds / self._frame_seconds / 4)
        if self._margin < 0 or self._kept <= 2 * self._margin:
            raise InputError(
                f"windows of {window_seconds:g} s that overlap by {overlap_seconds:g} s, "
                "expected more than twice the overlap"
            )

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        window_seconds: float = WINDOW_SECONDS,
        overlap_seconds: float = OVERLAP_SECONDS,
    ) -> "Transcriber":
        """Return the transcriber of a packed file.

        Raises:
            InputError: what PackedModel.load raises, or the windows are not to be had.
        """
        use_fast_matmul(torch.device("cpu"))
        model = use_kernels(PackedModel.load(path))
        return cls(model, window_seconds=window_seconds, overlap_seconds=overlap_seconds)

    def transcribe(
        self, audio: Path | str | np.ndarray, *, channel: int | str | None = None
    ) -> Transcript:
        """Return what was said.

        Args:
            audio: a recording of any rate, or samples in [-1, 1] at `sample_rate`.
            channel: needed for a recording of several channels: a number from 0, or "mix".

        Raises:
            InputError: what `read_audio` raises, or samples that are not finite.
        """
        samples = audio
        if isinstance(audio, Path | str):
            samples, _ = read_audio(str(audio), sample_rate=self.sample_rate, channel=channel)
        _check_finite(samples)
        tokens = self._tokens(torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)))
        return Transcript(
            self._text(tokens), self._segments(tokens), len(samples) / self.sample_rate
        )

    def _tokens(self, samples: Float[Tensor, "samples"]) -> list[_Token]:
        """Return the best token of each frame, repeats merged and blanks removed."""
        best = self._best_ids(samples)
        if not len(best):
            return []
        ids, counts = best.unique_consecutive(return_counts=True)
        ends = counts.cumsum(0)
        runs = zip(ids.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True)
        return [_Token(*run) for run in runs if run[0] != BLANK]

    def _best_ids(self, samples: Float[Tensor, "samples"]) -> Tensor:
        """Return the best token of each frame, a window at a time."""
        grid = self.model.front_end.grid
        frames = grid.num_frames(len(samples))
        found: list[Tensor] = []
        start = 0  # frame that the window begins with
        while sum(map(len, found)) < frames:
            is_last = start + self._kept + 2 * self._margin >= frames
            count = frames - start if is_last else self._kept + 2 * self._margin
            first = start * grid.shift_samples
            window = samples[first : first + (count - 1) * grid.shift_samples + grid.window_samples]
            log_probs, lengths = self.model.log_probs(window[None], torch.tensor([len(window)]))
            ids = log_probs[0, : int(lengths[0])].argmax(dim=-1)
            begin = self._margin if start else 0
            found.append(ids[begin:] if is_last else ids[begin : self._margin + self._kept])
            start += self._kept
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.long)

    def _text(self, tokens: list[_Token]) -> str:
        return " ".join(self.model.tokenizer.decode([token.id for token in tokens]).split())

    def _segments(self, tokens: list[_Token]) -> list[Segment]:
        """Return the tokens in segments, parted between words at pauses."""
        pause = PAUSE_SECONDS / self._frame_seconds
        parts: list[list[_Token]] = []
        for token in tokens:
            if (parts and token.first - parts[-1][-1].end < pause) or (
                parts and not self._is_between_words(parts[-1], [token])
            ):
                parts[-1].append(token)
            else:
                parts.append([token])
        cut = [piece for part in parts for piece in self._short_enough(part)]
        return [
            Segment(
                round(piece[0].first * self._frame_seconds, 3),
                round(piece[-1].end * self._frame_seconds, 3),
                self._text(piece),
            )
            for piece in cut
            if self._text(piece)
        ]

    def _is_between_words(self, before: list[_Token], behind: list[_Token]) -> bool:
        """Return whether a cut there cuts no word."""
        joined = f"{self._text(before)} {self._text(behind)}".strip()
        return self._text([*before, *behind]) == joined

    def _short_enough(self, part: list[_Token]) -> list[list[_Token]]:
        """Return a part in pieces of at most LONGEST_SEGMENT_SECONDS, where its words allow."""
        if (part[-1].end - part[0].first) * self._frame_seconds <= LONGEST_SEGMENT_SECONDS:
            return [part]
        places = [
            place
            for place in range(1, len(part))
            if self._is_between_words(part[:place], part[place:])
            and self._text(part[:place])
            and self._text(part[place:])
        ]
        if not places:
            return [part]
        best = max(places, key=lambda place: part[place].first - part[place - 1].end)
        return [*self._short_enough(part[:best]), *self._short_enough(part[best:])]


def _check_finite(samples: np.ndarray) -> None:
    """Raise an InputError for samples that are NaN or infinite, with the place of the first."""
    is_finite = np.isfinite(samples)
    if not is_finite.all():
        place = int(np.argmin(is_finite))
        raise InputError(f"sample {place} is {samples[place]}, expected a number in [-1, 1]")
