"""Tables for people: the summary that stage score ends with, and `errors.txt`.

Columns are those of sclite: Snt (utterances), Wrd (reference tokens), Corr, Sub, Del, Ins, Err in
percent of the reference tokens, S.Err in percent of the utterances.
"""

from collections.abc import Iterator, Mapping, Sequence

from espnet_lite.score.alignment import Counts, percent_text
from espnet_lite.score.bootstrap import bounds_text
from espnet_lite.score.confusions import count_confusions
from espnet_lite.score.error_analysis import by_length, worst_utterances
from espnet_lite.score.sclite_report import alignment_lines, display_width, scores_line
from espnet_lite.score.scoring import SetScore

HEADINGS = ("# Snt", "# Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err")
NO_REFERENCE_NOTE = "* no reference tokens: a count instead of percent"
_SPEAKERS, _CONFUSIONS, _UTTERANCES = 20, 20, 20  # at most so many lines in `errors.txt`


def percent_cells(counts: Counts) -> list[str]:
    """Return the eight cells of a line.

    Without reference tokens there is nothing to take percent of: counts with a star, as sclite
    prints for a speaker. (In its sum line sclite prints 0.0 there, which hides insertions; here
    the star stands in both.)
    """
    numbers = (counts.correct, counts.substituted, counts.deleted, counts.inserted, counts.errors)
    cells = [percent_text(number, counts.tokens) or f"{number}*" for number in numbers]
    s_err = percent_text(counts.wrong_utterances, counts.utterances) or "0*"
    return [str(counts.utterances), str(counts.tokens), *cells, s_err]


def interval_text(interval: Mapping | None) -> str:
    """Return `[4.5, 8.9] by speakers` of the JSON form of an interval; `-` where there is none."""
    if interval is None:
        return "-"
    return f"{bounds_text(interval['low'], interval['high'])} by {interval['over']}"


def summary_table(scores: Mapping[str, SetScore]) -> str:
    """Return the table that a score stage ends with: a line for each of WER, CER, TER."""
    rows = {
        name.upper(): [*percent_cells(score.total), interval_text(score.interval)]
        for name, score in scores.items()
    }
    starred = any(score.total.tokens == 0 for score in scores.values())
    return _table("", (*HEADINGS, "95 % of Err"), rows) + f"{NO_REFERENCE_NOTE}\n" * starred


def errors_text(score: SetScore, *, title: str) -> Iterator[str]:
    """Yield `errors.txt` in pieces: what a look at the errors of a set begins with."""
    total = score.total
    yield f"{title}\n\n{total.errors} errors in {total.tokens} tokens of {total.utterances} utterances"
    yield f", 95 % interval {interval_text(score.interval)}\n\n"
    by_rate = sorted(
        score.by_speaker.items(), key=lambda one: (-(one[1].error_rate or 0.0), one[0])
    )
    yield _heading("Speakers, the worst first", len(by_rate), _SPEAKERS)
    speakers = {name: percent_cells(counts) for name, counts in by_rate[:_SPEAKERS]}
    yield _table("SPKR", HEADINGS, speakers)
    yield "\n" + _heading("Utterances by length in reference tokens", 0, 0)
    lengths = {
        f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}": counts
        for (low, high), counts in by_length(score).items()
    }
    yield _table("tokens", HEADINGS, {name: percent_cells(one) for name, one in lengths.items()})
    if any(counts.tokens == 0 for counts in (*score.by_speaker.values(), *lengths.values())):
        yield f"{NO_REFERENCE_NOTE}\n"
    found = count_confusions(score)
    pairs = {f"{one} → {other}": count for (one, other), count in found.pairs.items()}
    for name, counts in (
        ("Substituted", pairs),
        ("Deleted", found.deleted),
        ("Inserted", found.inserted),
    ):
        ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
        yield "\n" + _heading(f"{name}, the most frequent first", len(ordered), _CONFUSIONS)
        yield "".join(f"{count:>6}  {token}\n" for token, count in ordered[:_CONFUSIONS])
    worst = worst_utterances(score)
    yield "\n" + _heading("Utterances, the most errors first", len(worst), _UTTERANCES)
    for utterance in worst[:_UTTERANCES]:
        alignment = score.alignments[utterance]
        yield f"id: ({utterance}), speaker {score.speakers[utterance]}\n"
        yield f"{scores_line(score.counts[utterance])}{alignment_lines(alignment)}\n"


def _heading(text: str, count: int, most: int) -> str:
    return f"{text} ({most} of {count})\n" if count > most else f"{text}\n"


def _table(corner: str, headings: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Return lines `| name | Snt Wrd | Corr Sub Del Ins Err S.Err | further |`."""
    widths = [max(5, *map(len, column)) for column in zip(headings, *rows.values(), strict=True)]
    name_width = max(3, *map(display_width, (corner, *rows)))

    def line(name: str, cells: Sequence[str]) -> str:
        right = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        label = name + " " * (name_width - display_width(name))
        groups = [label, "  ".join(right[:2]), "  ".join(right[2:8]), *right[8:]]
        return f"| {' | '.join(groups)} |\n"

    return line(corner, headings) + "".join(line(name, cells) for name, cells in rows.items())
