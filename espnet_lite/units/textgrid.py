"""Alignments in Praat's TextGrid files, in its long and its short text format.

Praat itself reads both in one way: of the text only quoted strings, flags as <exists> and numbers that
stand free between blanks count, in their order; what else there is, is for people (Praat manual,
"TextGrid file formats"). This reader does the same.
"""

import codecs
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.errors import InputError

Interval = tuple[float, float, str]  # start and end in seconds, label

_SUFFIX = ".textgrid"  # whatever the case
_TOKEN = re.compile(
    r'"(?P<string>(?:[^"]|"")*)"'
    r"|(?P<flag><\w+>)"
    r"|(?<!\S)(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\S)"
    r"|(?<!\S)!.*"  # a comment to the end of its line
    r'|(?P<open>")'
)
_KINDS = {"string": "a string in quotes", "flag": "a flag", "number": "a number"}
_SILENCES = ("", "sil", "sp", "spn", "<eps>")  # of the Montreal Forced Aligner and Kaldi
SILENCE = "sil"  # the one class of all of them
# Of the end of an interval beyond the begin of the next: aligners round.
_OVERLAP_SECONDS = 1.0e-4


@dataclass(frozen=True)
class IntervalTier:
    """A tier of intervals in their order; those without a label are there too."""

    name: str
    intervals: list[Interval]


def read_textgrid(path: Path | str) -> list[IntervalTier]:
    """Return the interval tiers of a TextGrid; tiers of points are passed over.

    Raises:
        InputError: no such file, neither UTF-8 nor UTF-16, not a TextGrid, cut short, or intervals
            that overlap or run backwards, with file and line.
    """
    return _Reader(Path(path)).tiers()


def read_phones(path: Path | str, *, tier: str = "phones") -> list[Interval]:
    """Return (start, end, label) of one tier of a TextGrid.

    Raises:
        InputError: what `read_textgrid` raises, or no such tier.
    """
    tiers = read_textgrid(path)
    for found in tiers:
        if found.name == tier:
            return found.intervals
    names = ", ".join(f"'{found.name}'" for found in tiers)
    raise InputError(
        f"no tier of intervals '{tier}', it has {names or 'none'}",
        where=path,
        fix="give --tier NAME",
    )


def textgrid_text(tiers: Iterable[IntervalTier], *, end_seconds: float) -> str:
    """Return a TextGrid in the long format, as Praat and the Montreal Forced Aligner write it.

    What lies between the intervals of a tier is filled with empty ones: Praat wants no gaps.

    Args:
        tiers: their intervals in order; one of no length is left out.
        end_seconds: of all tiers.
    """
    tiers = list(tiers)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {end_seconds:.6g}", "tiers? <exists>", f"size = {len(tiers)}"]
    lines.append("item []:")
    for number, tier in enumerate(tiers, start=1):
        filled = list(_without_gaps(tier.intervals, end_seconds))
        lines += [f"    item [{number}]:", '        class = "IntervalTier"']
        lines += [f"        name = {_quoted(tier.name)}", "        xmin = 0"]
        lines += [f"        xmax = {end_seconds:.6g}", f"        intervals: size = {len(filled)}"]
        for place, (start, end, label) in enumerate(filled, start=1):
            lines += [f"        intervals [{place}]:", f"            xmin = {start:.6g}"]
            lines += [f"            xmax = {end:.6g}", f"            text = {_quoted(label)}"]
    return "\n".join(lines) + "\n"


def _without_gaps(intervals: Iterable[Interval], end_seconds: float) -> Iterator[Interval]:
    now = 0.0
    for start, end, label in intervals:
        if end <= start:
            continue
        if start > now:
            yield now, start, ""
        yield start, end, label
        now = end
    if end_seconds > now:
        yield now, end_seconds, ""


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def phone_class(label: str) -> str:
    """Return a phone without its stress (AH0 → AH); all kinds of silence are SILENCE."""
    return SILENCE if label.strip().lower() in _SILENCES else label.strip().rstrip("012")


def find_textgrids(folders: Iterable[Path | str]) -> dict[str, Path]:
    """Return the TextGrid files anywhere below the folders by their name without the suffix.

    Raises:
        InputError: no such folder, a name that stands twice, or none at all.
    """
    found: dict[str, Path] = {}
    folders = [Path(folder) for folder in folders]
    for folder in folders:
        if not folder.is_dir():
            raise InputError("no such folder", where=folder)
        for root, subfolders, names in os.walk(folder):
            subfolders.sort()
            for name in sorted(names):
                path = Path(root) / name
                if path.suffix.lower() != _SUFFIX:
                    continue
                if path.stem in found:
                    raise InputError(
                        f"the alignment of '{path.stem}' is in {found[path.stem]} too", where=path
                    )
                found[path.stem] = path
    if not found:
        raise InputError("no *.TextGrid file below it", where=", ".join(map(str, folders)))
    return found


class _Reader:
    """The tokens of a file, taken one after the other."""

    def __init__(self, path: Path):
        self._path = path
        self._text = _decode(path)
        self._tokens = self._matches()
        self._start = 0  # of the token taken last

    def tiers(self) -> list[IntervalTier]:
        if not self._take("string").startswith("ooTextFile") or self._take("string") != "TextGrid":
            raise self._fault("not a TextGrid in text format")
        self._take("number")
        self._take("number")
        if self._take("flag") != "<exists>":
            return []
        tiers = []
        for _ in range(self._count()):
            kind = self._take("string")
            if kind not in ("IntervalTier", "TextTier"):
                raise self._fault(f"tier of class '{kind}', expected IntervalTier or TextTier")
            name = self._take("string")
            self._take("number")
            self._take("number")
            if kind == "IntervalTier":
                tiers.append(IntervalTier(name, self._intervals()))
                continue
            for _ in range(self._count()):
                self._take("number")
                self._take("string")
        return tiers

    def _intervals(self) -> list[Interval]:
        intervals: list[Interval] = []
        before = -float("inf")
        for _ in range(self._count()):
            start = float(self._take("number"))
            if start < before - _OVERLAP_SECONDS:
                raise self._fault(f"interval from {start:g} s, the one before ends at {before:g} s")
            before = float(self._take("number"))
            if before < start:
                raise self._fault(f"interval from {start:g} s to {before:g} s runs backwards")
            intervals.append((start, before, self._take("string")))
        return intervals

    def _count(self) -> int:
        number = self._take("number")
        if not number.isdecimal():
            raise self._fault(f"{number}, expected a count")
        return int(number)

    def _take(self, kind: str) -> str:
        match = next(self._tokens, None)
        if match is None:
            self._start = len(self._text)
            raise self._fault(f"ends here, expected {_KINDS[kind]}")
        self._start = match.start()
        if match.lastgroup == "open":
            raise self._fault("a quote that is not closed")
        if match.lastgroup != kind:
            raise self._fault(f"{match.group()[:40]}, expected {_KINDS[kind]}")
        value = match.group(kind)
        return value.replace('""', '"') if kind == "string" else value

    def _matches(self) -> Iterator[re.Match]:
        return (match for match in _TOKEN.finditer(self._text) if match.lastgroup is not None)

    def _fault(self, message: str) -> InputError:
        line = self._text.count("\n", 0, self._start) + 1
        return InputError(message, where=f"{self._path}:{line}")


def _decode(path: Path) -> str:
    """Return the text of a file in UTF-8 or, by its first two bytes, in UTF-16."""
    if not path.is_file():
        raise InputError("no such file", where=path)
    raw = path.read_bytes()
    has_mark = raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if has_mark else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(
            "neither UTF-8 nor UTF-16",
            where=f"{path}:{line}",
            fix=f"convert it: iconv -f latin1 -t utf-8 {path}",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
