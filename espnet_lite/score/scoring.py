"""Scores of one set under one kind of token: alignments, counts and their interval."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from espnet_lite.score.alignment import Alignment, Counts, align_all
from espnet_lite.score.bootstrap import (
    UTTERANCES,
    interval_of_speakers,
    interval_to_plain,
    rate_interval,
)


@dataclass(frozen=True)
class SetScore:
    """What a set of utterances scored: everything else (tables, JSON, intervals) reads this."""

    alignments: dict[str, Alignment]  # by utterance, in the reference's order
    speakers: dict[str, str]  # speaker of each of those utterances

    @cached_property
    def counts(self) -> dict[str, Counts]:
        """Return the counts of each utterance."""
        return {name: alignment.counts for name, alignment in self.alignments.items()}

    @cached_property
    def by_speaker(self) -> dict[str, Counts]:
        """Return the counts of each speaker, in the order in which they first appear."""
        totals: dict[str, Counts] = {}
        for utterance, counts in self.counts.items():
            speaker = self.speakers[utterance]
            totals[speaker] = totals.get(speaker, Counts()) + counts
        return totals

    @property
    def total(self) -> Counts:
        return sum(self.by_speaker.values(), Counts())

    @cached_property
    def interval(self) -> dict | None:
        """Return the 95 % interval of the error rate as JSON: by speaker where there are enough
        speakers, else by utterance; None where there is no reference token."""
        speakers = {name: (one.errors, one.tokens) for name, one in self.by_speaker.items()}
        if (found := interval_of_speakers(speakers)) is not None:
            return found
        errors, tokens = zip(
            *((one.errors, one.tokens) for one in self.counts.values()), strict=True
        )
        interval = rate_interval(errors, tokens)
        return interval and interval_to_plain(interval, over=UTTERANCES, drawn=len(errors))


def score_pairs(
    pairs: Mapping[str, tuple[str, str]],
    split: Callable[[str], list[str]],
    *,
    speakers: Mapping[str, str],
) -> SetScore:
    """Return the score of `{utterance: (reference text, hypothesis text)}`, split into tokens."""
    found = align_all(
        (split(reference), split(hypothesis)) for reference, hypothesis in pairs.values()
    )
    return SetScore(
        dict(zip(pairs, found, strict=True)),
        {utterance: speakers[utterance] for utterance in pairs},
    )


def counts_to_plain(counts: Counts) -> dict:
    """Return the JSON form of counts: `{counts: {...}, percent: {...}}`, sclite's column names.

    `percent` has 4 decimals; its values are null where there is no reference token (or no
    utterance, for `s_err`): a rate over nothing is no number.
    """
    numbers = {
        "corr": counts.correct,
        "sub": counts.substituted,
        "del": counts.deleted,
        "ins": counts.inserted,
        "err": counts.errors,
    }
    percent = {name: counts.of_tokens(number) for name, number in numbers.items()}
    percent["s_err"] = counts.utterance_error_rate
    return {
        "counts": {
            "utterances": counts.utterances,
            "tokens": counts.tokens,
            **numbers,
            "s_err": counts.wrong_utterances,
        },
        "percent": {
            name: None if rate is None else round(rate, 4) for name, rate in percent.items()
        },
    }
