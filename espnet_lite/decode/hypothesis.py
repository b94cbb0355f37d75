"""One reading of an utterance, as every search returns it."""

from dataclasses import dataclass, field

LENGTH_BONUS = "length_bonus"  # the part that counts tokens; its weight is what each one gains


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """Token ids without blanks and without <sos/eos>, and a natural-log score.

    `parts` are the unweighted scores of the search's scorers; their weighted sum is `score`.
    """

    tokens: list[int]
    score: float
    parts: dict[str, float] = field(default_factory=dict)
