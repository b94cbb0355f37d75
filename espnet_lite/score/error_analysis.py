"""Where the errors of a set are: in which tokens, how long utterances, which utterances."""

import itertools
from collections.abc import Mapping

from espnet_lite.score.alignment import Counts
from espnet_lite.score.confusions import count_confusions
from espnet_lite.score.scoring import SetScore, counts_to_plain

# Upper ends of the ranges of reference tokens that utterances are counted in; the last has none.
LENGTHS = (0, 5, 10, 20, 30, 40, 60)
MOST_CONFUSIONS = 100  # in score.json; result.txt has all
MOST_UTTERANCES = 100


def worst_utterances(score: SetScore) -> list[str]:
    """Return the utterances with errors: the most errors first, of as many the highest rate."""

    def badness(utterance: str) -> tuple[int, int, str]:
        counts = score.counts[utterance]
        return -counts.errors, counts.tokens, utterance

    return sorted((name for name, one in score.counts.items() if one.errors), key=badness)


def by_length(score: SetScore) -> dict[tuple[int, int | None], Counts]:
    """Return `{(fewest, most reference tokens): counts}` of the ranges that utterances are in.

    The last range is open: None.
    """
    edges = [(0, 0)]
    edges += [(low + 1, high) for low, high in itertools.pairwise(LENGTHS)]
    edges.append((LENGTHS[-1] + 1, None))
    found: dict[tuple[int, int | None], Counts] = {}
    for counts in score.counts.values():
        place = next(
            i for i, (_, high) in enumerate(edges) if high is None or counts.tokens <= high
        )
        found[edges[place]] = found.get(edges[place], Counts()) + counts
    return {edge: found[edge] for edge in edges if edge in found}


def analysis_to_plain(score: SetScore) -> dict:
    """Return what `score.json` has under `analysis`; lists are the most frequent first."""
    found = count_confusions(score)

    def most(counts: Mapping) -> list[list]:
        ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:MOST_CONFUSIONS]
        return [[*(key if isinstance(key, tuple) else (key,)), n] for key, n in ordered]

    return {
        "substituted": most(found.pairs),
        "deleted": most(found.deleted),
        "inserted": most(found.inserted),
        "by_length": [
            {"fewest": low, "most": high, **counts_to_plain(counts)}
            for (low, high), counts in by_length(score).items()
        ],
        "worst": worst_utterances(score)[:MOST_UTTERANCES],
    }
