"""sclite's tables as text: percent and counts by speaker, alignments, and the short summary.

Columns are those of sclite: Snt (utterances), Wrd (reference tokens), Corr, Sub, Del, Ins, Err in
percent of the reference tokens, S.Err in percent of the utterances. The numbers of a line are
those of sclite's `.sys` and `.raw`, in the same order; rules between speakers are left out.
"""

import unicodedata
from collections.abc import Mapping, Sequence

from espnet_lite.score.alignment import (
    CORRECT,
    DELETED,
    INSERTED,
    SUBSTITUTED,
    Counts,
    percent_text,
)
from espnet_lite.score.scoring import SetScore

HEADINGS = ("# Snt", "# Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err")
NO_REFERENCE_NOTE = "* no reference tokens: a count instead of percent"


def percent_cells(counts: Counts) -> list[str]:
    """Return the eight cells of a `.sys` line.

    Without reference tokens there is nothing to take percent of: counts with a star, as sclite
    prints for a speaker. (In its sum line sclite prints 0.0 there, which hides insertions; here
    the star stands in both.)
    """
    numbers = (counts.correct, counts.substituted, counts.deleted, counts.inserted, counts.errors)
    cells = [percent_text(number, counts.tokens) or f"{number}*" for number in numbers]
    s_err = percent_text(counts.wrong_utterances, counts.utterances) or "0*"
    return [str(counts.utterances), str(counts.tokens), *cells, s_err]


def count_cells(counts: Counts) -> list[str]:
    """Return the eight cells of a `.raw` line."""
    numbers = (
        counts.utterances,
        counts.tokens,
        counts.correct,
        counts.substituted,
        counts.deleted,
        counts.inserted,
        counts.errors,
        counts.wrong_utterances,
    )
    return [str(number) for number in numbers]


def score_tables(score: SetScore, *, title: str) -> str:
    """Return `wer.txt`: sclite's table in percent, then the one in counts."""
    speakers = score.by_speaker
    percent = _table(
        f"{title}: percentages by speaker",
        {name: percent_cells(counts) for name, counts in speakers.items()},
        ("Sum/Avg", percent_cells(score.total)),
    )
    raw = _table(
        f"{title}: counts by speaker",
        {name: count_cells(counts) for name, counts in speakers.items()},
        ("Sum", count_cells(score.total)),
    )
    starred = any(counts.tokens == 0 for counts in speakers.values())
    note = f"{NO_REFERENCE_NOTE}\n" if starred else ""
    return f"{percent}{note}\n{raw}"


def summary_table(totals: Mapping[str, Counts]) -> str:
    """Return the table that a score stage ends with: a line for each of WER, CER, TER."""
    rows = {name.upper(): percent_cells(counts) for name, counts in totals.items()}
    widths = _widths([HEADINGS, *rows.values()])
    lines = [_line("", HEADINGS, widths, 3)]
    lines += [_line(name, cells, widths, 3) for name, cells in rows.items()]
    if any(counts.tokens == 0 for counts in totals.values()):
        lines.append(NO_REFERENCE_NOTE)
    return "\n".join(lines) + "\n"


def alignment_text(score: SetScore) -> str:
    """Return `alignments.txt`: each utterance as in sclite's `.pra` (id, scores, REF, HYP, Eval).

    The three lines read in columns; `*` fills the side on which a token is missing.
    """
    return "\n".join(_alignment_block(utterance, score) for utterance in score.alignments)


def _alignment_block(utterance: str, score: SetScore) -> str:
    alignment = score.alignments[utterance]
    counts = alignment.counts
    lines = [
        f"id: ({utterance})",
        f"speaker: {score.speakers[utterance]}",
        f"Scores: (#C #S #D #I) {counts.correct} {counts.substituted} {counts.deleted} "
        f"{counts.inserted}",
    ]
    reference, hypothesis, marks = [], [], []
    for step, expected, found in alignment.columns():
        width = max(_display_width(expected or ""), _display_width(found or ""))
        reference.append(_padded(expected or "*" * width, width))
        hypothesis.append(_padded(found or "*" * width, width))
        marks.append(_padded(_MARKS[step], width))
    for name, cells in (("REF: ", reference), ("HYP: ", hypothesis), ("Eval:", marks)):
        lines.append(f"{name} {' '.join(cells)}".rstrip())
    return "\n".join(lines) + "\n"


_MARKS = {CORRECT: "", SUBSTITUTED: "S", DELETED: "D", INSERTED: "I"}


def _display_width(text: str) -> int:
    """Return the columns of a terminal that `text` takes: 2 for wide (CJK), 0 for combining."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _display_width(text))


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(5, *map(len, column)) for column in zip(*rows, strict=True)]


def _line(name: str, cells: Sequence[str], widths: Sequence[int], name_width: int) -> str:
    """Return `| name | Snt Wrd | Corr Sub Del Ins Err S.Err |`."""
    right = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
    label = _padded(name, name_width)
    return f"| {label} | {'  '.join(right[:2])} | {'  '.join(right[2:])} |"


def _table(title: str, rows: Mapping[str, Sequence[str]], total: tuple[str, Sequence[str]]) -> str:
    widths = _widths([HEADINGS, *rows.values(), total[1]])
    name_width = max(_display_width(name) for name in (*rows, "SPKR", total[0]))
    head = _line("SPKR", HEADINGS, widths, name_width)
    rule = "|" + "-" * (len(head) - 2) + "|"
    lines = [title, head, rule]
    lines += [_line(name, cells, widths, name_width) for name, cells in rows.items()]
    lines += [rule.replace("-", "="), _line(*total, widths, name_width)]
    return "\n".join(lines) + "\n"
