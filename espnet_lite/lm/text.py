"""The text of a language model: lines of Kaldi `text` files or of plain ones, gzip or not."""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.data.tables import split_row
from espnet_lite.errors import InputError
from espnet_lite.files import read_lines


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence; `id` is the utterance's in a Kaldi text, None in a plain one."""

    id: str | None
    text: str


def read_text(paths: Iterable[Path], *, with_ids: bool = True) -> Iterator[Line]:
    """Yield the sentences of files, `<id> <words>` a line or the words alone.

    Empty plain lines are skipped, an id without words is an empty sentence. White space counts as one
    blank.

    Raises:
        InputError: a missing file, one that is not UTF-8 or not whole, or no line in it.
    """
    for path in paths:
        empty = True
        for line in _lines(path):
            if not line.strip():
                continue
            empty = False
            key, value = split_row(line) if with_ids else (None, line)
            yield Line(key, " ".join(value.split()))
        if empty:
            raise InputError("no lines, expected text", where=path)


def _lines(path: Path) -> Iterable[str]:
    if path.suffix != ".gz":
        return read_lines(path)
    return _unzipped(path)


def _unzipped(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise InputError("no such file", where=path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
    except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"not a whole gzip file of UTF-8 text: {error}", where=path) from error


@dataclass(frozen=True)
class Separated:
    """A text without what held-out sets have too.

    Books are read and quoted more than once: a model that has seen a test set's sentences elsewhere
    tells nothing of new ones.
    """

    lines: list[Line]
    left_out: int  # sentences that shared a run of words with a held-out one
    left_out_words: int


def without_held_out(
    lines: Sequence[Line], held_out: Iterable[Line], *, run_words: int, where: object
) -> Separated:
    """Return the sentences that have no run of `run_words` words in common with a held-out one.

    Shorter sentences in common are kept: one says YES in any set.

    Raises:
        InputError: an utterance of the held-out sets is itself in the text, or nothing is left.
    """
    ids, runs = set(), set()
    for line in held_out:
        ids.add(line.id)
        runs.update(_runs(line.text, run_words))
    for line in lines:
        if line.id is not None and line.id in ids:
            raise InputError(
                f"utterance '{line.id}' of a held-out set is in the text of the language model",
                where=where,
                fix="take the dev and test sets out of the text",
            )
    kept = (
        [line for line in lines if runs.isdisjoint(_runs(line.text, run_words))] if runs else lines
    )
    if not kept:
        raise InputError("every sentence stands in a held-out set too", where=where)
    words = sum(len(line.text.split()) for line in lines) - sum(
        len(line.text.split()) for line in kept
    )
    return Separated(list(kept), len(lines) - len(kept), words)


def _runs(text: str, words: int) -> Iterator[tuple[str, ...]]:
    """Yield each run of so many words."""
    split = text.split()
    return (tuple(split[i : i + words]) for i in range(len(split) - words + 1))
