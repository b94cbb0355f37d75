"""The most probable CTC path of a given transcript: which frames each token takes (Viterbi).

States are blank, token, blank, token, ..., blank (Graves et al., "Connectionist temporal
classification", ICML 2006, section 4.1). A frame costs some operations on the vector of all states.
Instead of where each state of each frame came from, the scores of every sqrt(frames)-th frame are
kept, and the path is read from recomputed blocks of the few states that it can pass: of an hour of
speech with 50,000 characters, 0.2 GB.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from espnet_lite.errors import InputError


@dataclass(frozen=True)
class ForcedPath:
    """Frames of the tokens of a transcript; all others are blank.

    Attributes:
        starts, ends: first frame of each token and the one after its last.
        log_probs: mean over a token's frames of its log-probability there.
        score: log-probability of the whole path, blanks included.
    """

    starts: list[int]
    ends: list[int]
    log_probs: list[float]
    score: float


@torch.inference_mode()
def forced_path(
    log_probs: Float[Tensor, "time vocab"], tokens: list[int], *, blank: int = 0
) -> ForcedPath:
    """Return the best path that reads `tokens`; sums are in float64.

    Of equal paths it is the one that, read from the end, stays where it is as long as it can.

    Args:
        log_probs: natural logarithms, a row for each frame.
        tokens: ids without blanks, repeats as they are; may be empty.

    Raises:
        InputError: fewer frames than tokens and the blanks between equal ones, or only paths of
            probability zero.
    """
    frames = len(log_probs)
    if frames < (needed := fewest_frames(tokens)):
        raise InputError(f"{frames} frames for {len(tokens)} tokens, which need {needed} or more")
    if frames == 0:
        return ForcedPath([], [], [], 0.0)
    lattice = _Lattice(log_probs, tokens, blank)
    kept, scores = _forward(lattice)
    ends = scores[-2:].tolist()  # a path ends in the last token or in the blank after it
    state = len(scores) - 1 - (len(ends) == 2 and ends[0] > ends[1])
    score = max(ends)
    if score == -math.inf:
        raise InputError(f"no path of these {len(tokens)} tokens has a probability above zero")
    states = torch.tensor(_states(lattice, kept, state))
    return _spans(states, log_probs, tokens, score)


def fewest_frames(tokens: list[int]) -> int:
    """Return the frames that a transcript needs: of tokens, and of blanks between equal ones."""
    return len(tokens) + sum(one == other for one, other in itertools.pairwise(tokens))


class _Lattice:
    """States of a transcript: which token each emits, and how a frame takes their scores on.

    Scores are vectors with two of −inf before those of the states.
    """

    def __init__(self, log_probs: Tensor, tokens: list[int], blank: int):
        self.log_probs = log_probs
        device = log_probs.device
        labels = torch.full((2 * len(tokens) + 1,), blank)
        labels[1::2] = torch.tensor(tokens, dtype=torch.int64)
        differs = labels[3::2] != labels[1:-2:2]
        # From token to token without a blank between: nothing where they differ, else impossible.
        skip = torch.full((len(labels),), -math.inf, dtype=torch.float64)
        skip[3::2][differs] = 0.0
        self.labels, self.skip = labels.to(device), skip.to(device)

    @property
    def block(self) -> int:
        """Return the frames between those whose scores are kept."""
        return math.isqrt(len(self.log_probs) - 1) + 1

    def begin(self) -> Tensor:
        """Return the scores after the first frame: a path begins with a blank or a token."""
        scores = self.log_probs.new_full((len(self.labels) + 2,), -math.inf, dtype=torch.float64)
        scores[2:4] = self.log_probs[0].double()[self.labels[:2]]
        return scores

    def advance(self, scores: Tensor, frame: int, first: int, out: Tensor) -> None:
        """Write the scores of some states after `frame` into `out`.

        Args:
            scores: those before it, of these states and of the two before `first`.
            first: the first of the states.
        """
        states = slice(first, first + len(out))
        torch.add(scores[:-2], self.skip[states], out=out)
        torch.maximum(out, scores[1:-1], out=out)
        torch.maximum(out, scores[2:], out=out)
        out += self.log_probs[frame].double()[self.labels[states]]


def _forward(lattice: _Lattice) -> tuple[list[Tensor], Tensor]:
    """Return the scores after the first frame of each block, and those of the states at the end.

    Of each frame only the states are computed that it can have reached and that can reach the end;
    others have −inf or an old score, which no such state looks at.
    """
    frames, count = len(lattice.log_probs), len(lattice.labels)
    scores = lattice.begin()
    kept, after = [scores.clone()], torch.full_like(scores, -math.inf)
    for frame in range(1, frames):
        low = max(0, count - 2 * (frames - frame))
        high = min(count, 2 * frame + 2)
        lattice.advance(scores[low : high + 2], frame, low, after[low + 2 : high + 2])
        scores, after = after, scores
        if frame % lattice.block == 0:
            kept.append(scores.clone())
    return kept, scores[2:]


def _states(lattice: _Lattice, kept: list[Tensor], state: int) -> list[int]:
    """Return the state of each frame of the best path that ends in `state`."""
    states = [state]
    stop = len(lattice.log_probs) - 1  # the frame that `state` is of
    while stop:
        number = (stop - 1) // lattice.block
        start = number * lattice.block
        # A frame goes back two states at most: what lies below is not passed in this block.
        first = max(0, state - 2 * (stop - start))
        history = [kept[number][first : state + 3]]
        for frame in range(start + 1, stop):
            scores = torch.full_like(history[-1], -math.inf)
            lattice.advance(history[-1], frame, first, scores[2:])
            history.append(scores)
        for scores in reversed(history):
            state = _before(lattice, scores, state, first)
            states.append(state)
        stop = start
    return states[::-1]


def _before(lattice: _Lattice, scores: Tensor, state: int, first: int) -> int:
    """Return the state that the best path to `state` comes from, by the scores of the frame before."""
    two, one, none = scores[state - first : state - first + 3].tolist()
    best = max(none, one, two + lattice.skip[state].item())
    return state if none == best else state - 1 if one == best else state - 2


def _spans(states: Tensor, log_probs: Tensor, tokens: list[int], score: float) -> ForcedPath:
    """Return where the odd states, those of tokens, begin and end."""
    frames = torch.arange(len(states))[states % 2 == 1]
    places = states[frames] // 2  # of each of these frames, which token it has; none is left out
    counts = torch.bincount(places, minlength=len(tokens))
    ends = counts.cumsum(0)
    starts = frames[ends - counts]
    emitted = log_probs[frames, torch.tensor(tokens, dtype=torch.int64)[places]].double().cpu()
    sums = torch.zeros(len(tokens), dtype=torch.float64).index_add_(0, places, emitted)
    return ForcedPath(starts.tolist(), (starts + counts).tolist(), (sums / counts).tolist(), score)
