"""Scores of one set under one kind of token: alignments, and counts by speaker and in all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from espnet_lite.score.alignment import Alignment, Counts, align


@dataclass(frozen=True, slots=True)
class SetScore:
    """What a set of utterances scored: everything else (tables, JSON, intervals) reads this."""

    alignments: dict[str, Alignment]  # by utterance, in the reference's order
    speakers: dict[str, str]  # speaker of each of those utterances

    @property
    def by_speaker(self) -> dict[str, Counts]:
        """Return the counts of each speaker, in the order in which they first appear."""
        totals: dict[str, Counts] = {}
        for utterance, alignment in self.alignments.items():
            speaker = self.speakers[utterance]
            totals[speaker] = totals.get(speaker, Counts()) + alignment.counts
        return totals

    @property
    def total(self) -> Counts:
        return sum(self.by_speaker.values(), Counts())


def score_pairs(
    pairs: Mapping[str, tuple[str, str]],
    split: Callable[[str], list[str]],
    *,
    speakers: Mapping[str, str],
) -> SetScore:
    """Return the score of `{utterance: (reference text, hypothesis text)}`, split into tokens."""
    alignments = {
        utterance: align(split(reference), split(hypothesis))
        for utterance, (reference, hypothesis) in pairs.items()
    }
    return SetScore(alignments, {utterance: speakers[utterance] for utterance in alignments})


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


def scores_to_plain(scores: Mapping[str, SetScore]) -> dict:
    """Return `score.json` of `{"wer": ..., "cer": ..., ["ter": ...]}` or of `{"per": ...}`.

    WER, CER and TER that are not given are null: a model of phones has the phone error rate alone,
    and then `phones` stands in the place of `words`.
    """
    kind = "per" if "per" in scores else "wer"
    total = scores[kind].total
    plain = {"utterances": total.utterances, "wer": None, "cer": None, "ter": None}
    plain["words" if kind == "wer" else "phones"] = total.tokens
    for kind, score in scores.items():
        speakers = score.by_speaker.items()
        plain[kind] = counts_to_plain(score.total)
        plain[kind]["speakers"] = {name: counts_to_plain(counts) for name, counts in speakers}
    return plain
