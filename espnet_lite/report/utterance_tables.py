"""Every utterance of a set with what each row made of it, as compact as a page needs."""

from collections.abc import Mapping

from espnet_lite.score.alignment import CORRECT
from espnet_lite.score.score_folder import ScoredUtterance


def set_table(by_row: Mapping[str, Mapping[str, ScoredUtterance]]) -> dict[str, object]:
    """Return the table of a set, JSON-able; lists go by utterance.

    `ids`, `speakers`; `references`: lists of reference texts, more than one only where rows are
    scored in different tokens; `rows`: for each row the `reference` list it is compared with and its
    `outcomes`: null (not scored), 0 (as the reference), [steps, hypothesis] or, where there was no
    hypothesis, [steps, "", 1].

    Args:
        by_row: for each row what `read_utterances` returns.
    """
    speakers = {name: one.speaker for scored in by_row.values() for name, one in scored.items()}
    references: list[list[str]] = []
    rows = {}
    for row, scored in by_row.items():
        texts = [
            " ".join(scored[name].alignment.reference) if name in scored else ""
            for name in speakers
        ]
        if texts not in references:
            references.append(texts)
        rows[row] = {
            "reference": references.index(texts),
            "outcomes": [_outcome(scored.get(name)) for name in speakers],
        }
    return {
        "ids": list(speakers),
        "speakers": list(speakers.values()),
        "references": references,
        "rows": rows,
    }


def _outcome(one: ScoredUtterance | None) -> list[str | int] | int | None:
    if one is None:
        return None
    if one.missing:
        return [one.alignment.steps, "", 1]
    if set(one.alignment.steps) <= {CORRECT}:
        return 0
    return [one.alignment.steps, " ".join(one.alignment.hypothesis)]
