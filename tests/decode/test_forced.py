"""Forced alignment against every path of tiny lattices, and against a plain table of all scores."""

import itertools
import math

import pytest
import torch

from espnet_lite.decode.forced import forced_path
from espnet_lite.errors import InputError


def random_log_probs(frames: int, vocab: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, vocab, generator=generator).mul(2).log_softmax(dim=-1)


def read(labels) -> list[int]:
    """Return the tokens that a path of labels reads."""
    merged = [label for label, _ in itertools.groupby(labels)]
    return [label for label in merged if label]


def path_of(found, tokens: list[int], frames: int) -> list[int]:
    labels = [0] * frames
    for token, start, end in zip(tokens, found.starts, found.ends, strict=True):
        labels[start:end] = [token] * (end - start)
    return labels


def score_of(log_probs: torch.Tensor, labels) -> float:
    return sum(log_probs[frame, label].double().item() for frame, label in enumerate(labels))


@pytest.mark.parametrize("seed", range(6))
def test_every_transcript_of_tiny_lattices_has_the_best_of_all_paths(seed):
    frames, vocab = 1 + seed, 3
    log_probs = random_log_probs(frames, vocab, seed)
    best: dict[tuple[int, ...], float] = {}
    for labels in itertools.product(range(vocab), repeat=frames):
        tokens = tuple(read(labels))
        best[tokens] = max(best.get(tokens, -math.inf), score_of(log_probs, labels))
    assert () in best
    for tokens, score in best.items():
        found = forced_path(log_probs, list(tokens))
        labels = path_of(found, list(tokens), frames)
        assert read(labels) == list(tokens)
        assert found.score == pytest.approx(score, abs=1e-9)
        assert score_of(log_probs, labels) == pytest.approx(score, abs=1e-9)


def plain_path(log_probs: torch.Tensor, tokens: list[int]) -> list[int]:
    """Return the label of each frame from a table of all scores, one state at a time."""
    labels = [0, *(label for token in tokens for label in (token, 0))]
    table = [[-math.inf] * len(labels) for _ in log_probs]
    origin = [[0] * len(labels) for _ in log_probs]
    for frame, row in enumerate(log_probs.double().tolist()):
        for state, label in enumerate(labels):
            if frame == 0:
                table[0][state] = row[label] if state < 2 else -math.inf
                continue
            origins = [state, state - 1]
            if label != 0 and state > 1 and labels[state - 2] != label:
                origins.append(state - 2)
            origins = [place for place in origins if place >= 0]
            best = max(origins, key=lambda place: table[frame - 1][place])
            table[frame][state] = table[frame - 1][best] + row[label]
            origin[frame][state] = best
    state = len(labels) - 1
    if tokens and table[-1][state - 1] > table[-1][state]:
        state -= 1
    path = []
    for frame in reversed(range(len(log_probs))):
        path.append(labels[state])
        state = origin[frame][state]
    return path[::-1]


@pytest.mark.parametrize("frames", [1, 2, 9, 16, 17, 30, 101])
@pytest.mark.parametrize("seed", range(3))
def test_blocks_give_the_path_of_the_whole_table(frames, seed):
    generator = torch.Generator().manual_seed(seed)
    count = max(1, frames // 3)
    tokens = torch.randint(1, 4, (count,), generator=generator).tolist()
    log_probs = random_log_probs(frames, 4, seed)
    found = forced_path(log_probs, tokens)
    assert path_of(found, tokens, frames) == plain_path(log_probs, tokens)


def test_equal_scores_are_decided_as_said():
    log_probs = torch.full((6, 3), -1.0)
    found = forced_path(log_probs, [1, 2])
    assert path_of(found, [1, 2], 6) == plain_path(log_probs, [1, 2])


def test_the_mean_log_probability_of_a_token_is_over_its_frames():
    probs = torch.tensor(
        [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6]]
    )
    found = forced_path(probs.log(), [1, 2])
    assert (found.starts, found.ends) == ([1, 4], [3, 5])
    assert found.log_probs == pytest.approx([math.log(0.8 * 0.4) / 2, math.log(0.6)])
    assert found.score == pytest.approx(math.log(0.7 * 0.8 * 0.4 * 0.9 * 0.6))


def test_too_few_frames_and_impossible_paths_are_refused():
    log_probs = random_log_probs(4, 3, 0)
    assert forced_path(log_probs, [1, 2, 1, 2]).starts == [0, 1, 2, 3]
    with pytest.raises(InputError, match="4 frames for 4 tokens, which need 5 or more"):
        forced_path(log_probs, [1, 2, 2, 1])
    with pytest.raises(InputError, match="0 frames for 1 tokens, which need 1 or more"):
        forced_path(log_probs[:0], [1])
    assert forced_path(log_probs[:0], []).starts == []
    log_probs[:, 2] = -math.inf
    with pytest.raises(InputError, match="no path of these 2 tokens has a probability above zero"):
        forced_path(log_probs, [1, 2])


def test_long_audio_has_the_right_tokens():
    """Four minutes at 40 ms: 6,000 frames and 2,000 tokens of a path that is made certain."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 30, (2000,), generator=generator).tolist()
    labels = [label for token in tokens for label in (token, token, 0)]
    log_probs = torch.full((len(labels), 30), 1e-3).log()
    log_probs[torch.arange(len(labels)), torch.tensor(labels)] = math.log(0.97)
    found = forced_path(log_probs, tokens)
    assert found.starts == list(range(0, 6000, 3))
    assert found.ends == list(range(2, 6000, 3))
