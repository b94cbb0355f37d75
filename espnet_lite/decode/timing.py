"""From frames of tokens to seconds of tokens and words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from espnet_lite.decode.forced import ForcedPath
from espnet_lite.features.frame_grid import FrameGrid

# CTC marks a token, it does not span it: of the blanks between two words each takes its half, but no
# more than this, beyond which there is a pause. Chosen on 60 utterances, see docs/alignment.md.
REACH_SECONDS = 0.04


@dataclass(frozen=True)
class TimedLabel:
    """A token or word in time.

    Attributes:
        confidence: geometric mean over its frames of the probability that its tokens have there.
    """

    label: str
    start_seconds: float
    end_seconds: float
    confidence: float


def token_times(
    path: ForcedPath, tokens: Sequence[str], grid: FrameGrid, *, num_samples: int
) -> list[TimedLabel]:
    """Return when each token is: a frame stands for the time that is nearest to its middle.

    Args:
        tokens: as text, those of the path.
        num_samples: of the audio; nothing is beyond it.
    """
    before = (grid.window_samples - grid.shift_samples) / 2  # samples before the first frame's time

    def seconds(frame: int) -> float:
        sample = min(max(0.0, frame * grid.shift_samples + before), float(num_samples))
        return sample / grid.sample_rate

    return [
        TimedLabel(token, seconds(start), seconds(end), math.exp(log_prob))
        for token, start, end, log_prob in zip(
            tokens, path.starts, path.ends, path.log_probs, strict=True
        )
    ]


def word_times(
    tokens: Sequence[TimedLabel],
    words: Sequence[str],
    word_of: Sequence[int | None],
    *,
    end_seconds: float,
    reach_seconds: float = REACH_SECONDS,
) -> list[TimedLabel]:
    """Return when each word is: from its first token to its last and, on both sides, half of what
    is between it and the next word, at most `reach_seconds`.

    Args:
        word_of: of each token its word, None for a space.
        end_seconds: of the audio.
    """
    spans: dict[int, list[TimedLabel]] = {}
    for token, place in zip(tokens, word_of, strict=True):
        if place is not None:
            spans.setdefault(place, []).append(token)
    bare = [
        TimedLabel(word, spans[i][0].start_seconds, spans[i][-1].end_seconds, _mean(spans[i]))
        for i, word in enumerate(words)
    ]
    wide = list(bare)
    for place, word in enumerate(bare):
        before = bare[place - 1].end_seconds if place else -math.inf
        after = bare[place + 1].start_seconds if place + 1 < len(bare) else math.inf
        left = min(reach_seconds, (word.start_seconds - before) / 2)
        right = min(reach_seconds, (after - word.end_seconds) / 2)
        wide[place] = replace(
            word,
            start_seconds=max(0.0, word.start_seconds - left),
            end_seconds=min(end_seconds, word.end_seconds + right),
        )
    return wide


def _mean(tokens: Sequence[TimedLabel]) -> float:
    """Return the geometric mean of confidences, each for as long as its token is."""
    seconds = [token.end_seconds - token.start_seconds for token in tokens]
    total = sum(seconds)
    if total == 0 or any(token.confidence == 0 for token in tokens):
        return min(token.confidence for token in tokens)
    logs = (math.log(one.confidence) * part for one, part in zip(tokens, seconds, strict=True))
    return math.exp(sum(logs) / total)


def ctm_lines(utterance: str, labels: Sequence[TimedLabel]) -> str:
    """Return lines of a CTM: utterance, channel, start and duration in seconds, label, confidence.

    (NIST sctk, "ctm" format.)
    """
    return "".join(
        f"{utterance} 1 {one.start_seconds:.3f} {one.end_seconds - one.start_seconds:.3f} "
        f"{one.label} {one.confidence:.4f}\n"
        for one in labels
    )
