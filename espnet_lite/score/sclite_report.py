"""`result.txt`: the report of `sclite -s -i rm -o all dtl stdout`, to the byte.

Four parts in sclite's order: percentages by speaker (its `.sys`), the same in counts (`.raw`), the
overall report with all confusions (`.dtl`), and every alignment (`.pra`). ESPnet's `result.txt` is
that of `sclite -o all`: the same without the third part. Layouts are those of sctk 2.4.10, found by
comparing outputs; the tests and `tools/benchmarks/sclite_parity.py` compare the bytes. Two things
differ: where a token is not ASCII, columns follow what a terminal shows, sclite's follow bytes; and
where several speakers have no reference words, sclite takes other ones than these out of mean,
deviation and median.
"""

import statistics
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from espnet_lite.score.alignment import (
    CORRECT,
    DELETED,
    INSERTED,
    SUBSTITUTED,
    Alignment,
    Counts,
    half_up,
    percent_text,
)
from espnet_lite.score.confusions import Confusions, count_confusions
from espnet_lite.score.sclite import escape_speaker, escape_token, escape_tokens, trn_id
from espnet_lite.score.scoring import SetScore

_PAGE_WIDTH = 80
_HEADINGS = ("# Snt", "# Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err")
_GROUPS = (slice(0, 2), slice(2, 8))  # columns between two bars
_NO_REFERENCE = """
* No Reference words for this/these speaker(s).  Word counts supplied
  rather than percents.
# No Reference words for this/these speaker(s).  NCE not computable.
+ Speaker(s) with no reference data is ignored
"""


def result_text(score: SetScore, *, title: str) -> Iterator[str]:
    """Yield `result.txt` in pieces.

    Args:
        title: name of the system, shorter than the table is wide; ESPnet's is `hyp.trn`.
    """
    by_speaker = {escape_speaker(name): counts for name, counts in score.by_speaker.items()}
    yield _percent_table(by_speaker, score.total, title)
    if any(counts.tokens == 0 for counts in by_speaker.values()):
        yield _NO_REFERENCE
    yield _count_table(by_speaker, score.total, title)
    yield from _overall(score, title)
    yield from _alignments(score, title)


# ------------------------------------------------------------------ by speaker: .sys and .raw


def _percent_table(by_speaker: Mapping[str, Counts], total: Counts, title: str) -> str:
    """Return `.sys`. Without reference words: counts and a star; no part of mean and median."""
    rows, values = {}, []
    for name, counts in by_speaker.items():
        rates = [percent_text(n, counts.tokens) for n in _of_tokens(counts)]
        cells = [
            f"{n:>5}*" if rate is None else f"{rate:>5} "
            for n, rate in zip(_of_tokens(counts), rates, strict=True)
        ]
        rows[name] = [*_sizes(counts), *cells, _utterance_rate(counts)]
        percent = [counts.of_tokens(n) for n in _of_tokens(counts)]
        values.append([counts.utterances, counts.tokens, *percent, counts.utterance_error_rate])
    flag = "+" if any(counts.tokens == 0 for counts in by_speaker.values()) else " "
    rates = [f"{percent_text(n, total.tokens) or '0.0':>5}" for n in _of_tokens(total)]
    sums = [*_sizes(total), *rates, _utterance_rate(total)]
    return _table(title, rows, ("Sum/Avg", sums), _statistics(values, flags=f"  {flag * 5} "))


def _count_table(by_speaker: Mapping[str, Counts], total: Counts, title: str) -> str:
    """Return `.raw`."""
    values = {name: _all_counts(counts) for name, counts in by_speaker.items()}
    rows = {name: [f"{n:>5}" for n in counts] for name, counts in values.items()}
    sums = [f"{n:>5}" for n in _all_counts(total)]
    return _table(title, rows, ("Sum", sums), _statistics(list(values.values()), flags=" " * 8))


def _of_tokens(counts: Counts) -> tuple[int, ...]:
    """Return what percent of the tokens is taken of."""
    return counts.correct, counts.substituted, counts.deleted, counts.inserted, counts.errors


def _all_counts(counts: Counts) -> tuple[int, ...]:
    return counts.utterances, counts.tokens, *_of_tokens(counts), counts.wrong_utterances


def _sizes(counts: Counts) -> list[str]:
    return [f"{counts.utterances:>5}", f"{counts.tokens:>5}"]


def _utterance_rate(counts: Counts) -> str:
    return f"{percent_text(counts.wrong_utterances, counts.utterances) or '0.0':>5}"


def _statistics(
    values: Sequence[Sequence[int | float | None]], *, flags: str
) -> dict[str, list[str]]:
    """Return the cells of mean, standard deviation (n − 1) and median of each column."""
    found: dict[str, list[str]] = {"Mean": [], "S.D.": [], "Median": []}
    for column, flag in zip(zip(*values, strict=True), flags, strict=True):
        known = [value for value in column if value is not None] or [0.0]
        deviation = statistics.stdev(known) if len(known) > 1 else 0.0
        for name, value in (
            ("Mean", statistics.fmean(known)),
            ("S.D.", deviation),
            ("Median", statistics.median(known)),
        ):
            found[name].append(f"{half_up(value):5.1f}{flag}".rstrip(" "))
    return found


def _table(
    title: str,
    rows: Mapping[str, Sequence[str]],
    total: tuple[str, Sequence[str]],
    below: Mapping[str, Sequence[str]],
) -> str:
    """Return the page of a table.

    Cells of a column are centred, the blank that does not halve to the right of them, to the left
    of headings. Only the last column of a group has no blank of its own after it, in which a star
    or a plus may stand.
    """
    lines = [*rows.values(), total[1], *below.values()]
    widths = [max(5, *(len(line[i].rstrip(" *+")) for line in lines)) for i in range(8)]
    is_last = [i + 1 in (group.stop for group in _GROUPS) for i in range(8)]
    label_width = max(len(total[0]) + 1, 6, *(len(name) + 2 for name in rows))

    def joined(label: str, cells: Sequence[str]) -> str:
        return "|".join(["", label, *(" ".join(cells[group]) + " " for group in _GROUPS), ""])

    def line(label: str, cells: Sequence[str]) -> str:
        centred = []
        for cell, width, last in zip(cells, widths, is_last, strict=True):
            left = (width - len(cell.rstrip(" *+"))) // 2
            centred.append((" " * left + cell).ljust(width + (not last)))
        return joined(label, centred)

    headings = []
    for heading, width, last in zip(_HEADINGS, widths, is_last, strict=True):
        room = width + (not last)
        headings.append((" " * ((room - len(heading) + 1) // 2) + heading).ljust(room))
    head = joined(" SPKR".ljust(label_width), headings)
    inner = len(head) - 2
    rule = "".join("|" if i in (0, inner + 1) else "+-"[c != "|"] for i, c in enumerate(head))
    double = f"|{'=' * inner}|"
    body = [f",{'-' * inner}.", f"|{_centred(title, inner)}|", f"|{'-' * inner}|", head]
    for name, cells in rows.items():
        body += [rule, line(f" {name}".ljust(label_width), cells)]
    body += [double, line(f" {total[0]}".ljust(label_width), total[1]), double]
    body += [line(_centred(name, label_width), cells) for name, cells in below.items()]
    body.append(f"`{'-' * inner}'")
    margin = " " * max(0, (_PAGE_WIDTH - inner - 2) // 2)
    heading = _centred("SYSTEM SUMMARY PERCENTAGES by SPEAKER", _PAGE_WIDTH)
    return "\n".join(["", "", "", heading, "", *(margin + one for one in body)]) + "\n"


def _centred(text: str, width: int) -> str:
    return (" " * ((width - len(text)) // 2) + text).ljust(width)


# ------------------------------------------------------------------------------ overall: .dtl


def _overall(score: SetScore, title: str) -> Iterator[str]:
    total = score.total
    with_step = {
        step: sum(step in alignment.steps for alignment in score.alignments.values())
        for step in (SUBSTITUTED, DELETED, INSERTED)
    }
    yield f"DETAILED OVERALL REPORT FOR THE SYSTEM: {title}\n\nSENTENCE RECOGNITION PERFORMANCE\n\n"
    yield f" sentences {total.utterances:>43}\n"
    yield _sentences(" with errors", total.wrong_utterances, total)
    yield "\n"
    yield _sentences("   with substitions", with_step[SUBSTITUTED], total)  # sclite's spelling
    yield _sentences("   with deletions", with_step[DELETED], total)
    yield _sentences("   with insertions", with_step[INSERTED], total)
    yield "\n\nWORD RECOGNITION PERFORMANCE\n\n"
    for label, number in (
        ("Total Error", total.errors),
        ("Correct", total.correct),
        ("Substitution", total.substituted),
        ("Deletions", total.deleted),
        ("Insertions", total.inserted),
    ):
        rate = percent_text(number, total.tokens) or "UNDEF"
        yield f"Percent {label:<17} = {rate:>6}%   ({number:>4})\n"
        yield "\n" * (label in ("Total Error", "Correct"))
    accuracy = percent_text(total.tokens - total.errors, total.tokens) or "UNDEF"
    yield f"Percent Word Accuracy     = {accuracy:>6}%\n\n\n"
    hypothesis = total.correct + total.substituted + total.inserted
    yield f"Ref. words                =           ({total.tokens:>4})\n"
    yield f"Hyp. words                =           ({hypothesis:>4})\n"
    yield f"Aligned words             =           ({total.tokens + total.inserted:>4})\n\n"
    yield from _confusion_lists(count_confusions(score))


def _sentences(label: str, number: int, total: Counts) -> str:
    rate = percent_text(number, total.utterances) or "0.0"
    return f"{label:<40}{rate:>5}%   ({number:>4})\n"


def _confusion_lists(found: Confusions) -> Iterator[str]:
    pairs = {
        f"{escape_token(reference)} ==> {escape_token(hypothesis)}": count
        for (reference, hypothesis), count in found.pairs.items()
    }
    yield _counted("CONFUSION PAIRS", pairs)
    yield _counted("INSERTIONS", _escaped(found.inserted))
    yield _counted("DELETIONS", _escaped(found.deleted))
    yield _counted("SUBSTITUTIONS", _escaped(found.substituted), after="")
    yield "* NOTE: The 'Substitution' words are those reference words\n"
    yield "        for which the recognizer supplied an incorrect word.\n\n\n"
    yield _counted("FALSELY RECOGNIZED", _escaped(found.falsely), after="")
    yield "* NOTE: The 'Falsely Recognized' words are those hypothesis words\n"
    yield "        which the recognizer incorrectly substituted for a reference word.\n\n"


def _escaped(counts: Mapping[str, int]) -> dict[str, int]:
    return {escape_token(token): count for token, count in counts.items()}


def _counted(title: str, counts: Mapping[str, int], *, after: str = "\n") -> str:
    """Return a list of sclite's, the most frequent first and ties by their bytes."""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0].encode()))
    lines = [f"{title:<33}Total                 ({len(ordered)})"]
    lines += [f"{'':<33}With >=  1 occurrences ({len(ordered)})", ""]
    lines += [f"{i:>4}: {n:>4}  ->  {name}" for i, (name, n) in enumerate(ordered, start=1)]
    lines += ["     -------", f"     {sum(counts.values()):>5}", "", "", after]
    return "\n".join(lines)


# --------------------------------------------------------------------------- alignments: .pra

_MARKS = {SUBSTITUTED: "S", DELETED: "D", INSERTED: "I"}


def _alignments(score: SetScore, title: str) -> Iterator[str]:
    by_speaker: dict[str, list[str]] = {}
    for utterance in score.alignments:
        by_speaker.setdefault(score.speakers[utterance], []).append(utterance)
    yield f"\n\n\t\tDUMP OF SYSTEM ALIGNMENT STRUCTURE\n\nSystem name:   {title}\n\nSpeakers: \n"
    for number, speaker in enumerate(by_speaker):
        yield f"   {number:>2}:  {escape_speaker(speaker)}\n"
    yield "\n"
    for number, (speaker, utterances) in enumerate(by_speaker.items()):
        yield f"Speaker sentences {number:>3}:  {escape_speaker(speaker)}   #utts: {len(utterances)}\n"
        for utterance in utterances:
            alignment = score.alignments[utterance]
            yield f"id: ({trn_id(speaker, utterance)})\n{scores_line(score.counts[utterance])}"
            yield f"Attributes: Case_sensitve \n{alignment_lines(alignment)}\n"  # sclite's spelling
    yield "\n"


def scores_line(counts: Counts) -> str:
    """Return sclite's line of the counts of an utterance."""
    scores = (counts.correct, counts.substituted, counts.deleted, counts.inserted)
    return f"Scores: (#C #S #D #I) {' '.join(map(str, scores))}\n"


def alignment_lines(alignment: Alignment) -> str:
    """Return REF, HYP and Eval of a pair, three lines that read in columns; none of two empty sides.

    `*` fills the side on which a token is missing.
    """
    if not alignment.steps:
        return ""
    expected, found = escape_tokens(alignment.reference), escape_tokens(alignment.hypothesis)
    reference, hypothesis, marks = [], [], []
    for steps, row, column in alignment.runs():
        if steps[0] == CORRECT:
            text = " ".join(expected[row : row + len(steps)])
            reference.append(text)
            hypothesis.append(text)
            marks.append(" " * display_width(text))
            continue
        above = "" if steps == INSERTED else expected[row]
        below = "" if steps == DELETED else found[column]
        above_width, below_width = display_width(above), display_width(below)
        width = max(above_width, below_width)
        reference.append(above + " " * (width - above_width) if above else "*" * width)
        hypothesis.append(below + " " * (width - below_width) if below else "*" * width)
        marks.append(_MARKS[steps].ljust(width))
    lines = (("REF: ", reference), ("HYP: ", hypothesis), ("Eval:", marks))
    return "".join(f"{name} {' '.join(cells)} \n" for name, cells in lines)


def display_width(text: str) -> int:
    """Return the columns of a terminal that `text` takes: 2 for wide (CJK), 0 for combining."""
    return len(text) if text.isascii() else sum(map(_columns, text))


@lru_cache(maxsize=1 << 16)
def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 1 + (unicodedata.east_asian_width(character) in "WF")
