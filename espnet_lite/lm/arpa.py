"""n-gram models as ARPA files, the text format of SRILM, KenLM and others; gzip where the name ends in .gz.

    \\data\\
    ngram 1=3                      entries of each order
    \\1-grams:
    -0.9542425<TAB>the<TAB>-0.30103   log10 probability, words, log10 back-off weight (0 if left out)
    \\end\\
"""

import gzip
import itertools
import zlib
from collections.abc import Iterator, Sequence
from io import TextIOBase
from pathlib import Path

import numpy as np

from espnet_lite.errors import InputError
from espnet_lite.files import atomic_path
from espnet_lite.lm.ngram import BEGIN, END, NEVER, SPECIAL_WORDS, Level, NgramModel

_LINES_AT_A_TIME = 100_000
_LOG_10 = np.log(10.0)


def write_arpa(path: Path, model: NgramModel) -> None:
    """Write a model, whole or not at all.

    Raises:
        InputError: the folder cannot be written.
    """
    with atomic_path(path) as temporary:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(temporary, "wt", encoding="utf-8", newline="\n") as file:
            file.write("\\data\\\n")
            for order, count in enumerate(model.counts(), start=1):
                file.write(f"ngram {order}={count}\n")
            texts = [""]
            for order in range(1, model.order + 1):
                texts = _write_level(file, model, order, texts)
            file.write("\n\\end\\\n")


def _write_level(file: TextIOBase, model: NgramModel, order: int, lower: list[str]) -> list[str]:
    """Write the n-grams of one order and return their words; `lower`: those of the order below."""
    first, last = model.level_starts[order - 1 : order + 1].tolist()
    before = 0 if order == 1 else int(model.level_starts[order - 2])
    rows = zip(
        (model.parent[first:last] - before).tolist(),
        model.word[first:last].tolist(),
        (model.log_prob[first:last] / _LOG_10).tolist(),
        (model.backoff[first:last] / _LOG_10).tolist(),
        strict=True,
    )
    file.write(f"\n\\{order}-grams:\n")
    texts = []
    is_last = order == model.order
    for parent, word, log_prob, backoff in rows:
        text = f"{lower[parent]} {model.words[word]}" if order > 1 else model.words[word]
        texts.append(text)
        file.write(
            f"{log_prob:.7g}\t{text}\n" if is_last else f"{log_prob:.7g}\t{text}\t{backoff:.7g}\n"
        )
    return texts


def read_arpa(path: Path) -> NgramModel:
    """Return the model of an ARPA file.

    A file without <unk> gives an unknown word the probability 10^-99.

    Raises:
        InputError: with file and line: not an ARPA file; another number of n-grams or words than was
            said; a word without a unigram; an n-gram without the one before its last word, or twice; no
            number; a probability above 1; no <s> or </s>; an end that is missing.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    if not path.is_file():
        raise InputError("no such file", where=path)
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            return _Reader(path, file).model()
    except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"not a whole ARPA file: {error}", where=path) from error


class _Reader:
    """Goes through the lines of a file, counting them."""

    def __init__(self, path: Path, file: TextIOBase):
        self.path = path
        self.file = file
        self.line = 0
        self.words: list[str] = []

    def model(self) -> NgramModel:
        counts = self._header()
        levels = [self._unigrams(counts[0])]
        keys: list[
            np.ndarray
        ] = []  # of orders 2, 3, …: (number of the parent, last word) as one number
        for order, count in enumerate(counts[1:], start=2):
            level, of_level = self._level(order, count, keys)
            levels.append(level)
            keys.append(of_level)
        if self._next() != "\\end\\":
            raise self._fault("expected \\end\\ or one more order in the header")
        return NgramModel.from_levels(self.words, levels)

    def _next(self) -> str:
        """Return the next line that is not empty, "" at the end of the file."""
        for raw in self.file:
            self.line += 1
            if text := raw.strip():
                return text
        return ""

    def _fault(self, message: str) -> InputError:
        return InputError(message, where=f"{self.path}:{self.line}", fix="make the file again")

    def _header(self) -> list[int]:
        text = self._next()
        while text not in ("\\data\\", ""):
            text = self._next()  # a comment may stand before it
        if not text:
            raise self._fault("no \\data\\, expected an ARPA file")
        counts: list[int] = []
        text = self._next()
        while text.startswith("ngram "):
            order, equals, count = text.removeprefix("ngram ").partition("=")
            if not (equals and count.strip().isdecimal() and order.strip() == str(len(counts) + 1)):
                raise self._fault(f"'{text}', expected 'ngram {len(counts) + 1}=COUNT'")
            counts.append(int(count))
            text = self._next()
        if not counts:
            raise self._fault(f"'{text}', expected 'ngram 1=COUNT'")
        self._check_title(text, 1)
        return counts

    def _check_title(self, text: str, order: int) -> None:
        if text != f"\\{order}-grams:":
            raise self._fault(f"'{text}', expected '\\{order}-grams:'")

    def _rows(self, order: int, count: int) -> Iterator[list[str]]:
        """Yield [log10 probability, word 1, …, word n, log10 back-off] of each n-gram."""
        for _ in range(count):
            text = self._next()
            if not text or text.startswith("\\"):
                found = "the end of the file" if not text else f"'{text}'"
                raise self._fault(f"{found} before {count} {order}-grams, as the header has it")
            fields = text.split()
            if len(fields) == order + 1:
                fields.append("0")
            elif len(fields) != order + 2:
                raise self._fault(
                    f"{len(fields)} fields in '{text[:80]}', expected a log10 probability, {order} "
                    "words and maybe a back-off weight"
                )
            yield fields

    def _numbers(self, texts: Sequence[str], what: str, first_line: int) -> np.ndarray:
        try:
            values = np.array(texts, dtype=np.float64)
        except ValueError:
            values = np.array([_number(text) for text in texts])
        wrong = ~np.isfinite(values) if what == "back-off weight" else ~(values <= 0)
        if wrong.any():
            place = int(wrong.argmax())
            self.line = first_line + place
            expected = "a number" if what == "back-off weight" else "a number up to 0"
            raise self._fault(f"log10 {what} '{texts[place]}', expected {expected}")
        return np.maximum(values, -1e6) * _LOG_10

    def _unigrams(self, count: int) -> Level:
        rows, first_line = list(self._rows(1, count)), self.line - count + 1
        log_probs = self._numbers([row[0] for row in rows], "probability", first_line)
        backoffs = self._numbers([row[2] for row in rows], "back-off weight", first_line)
        given = {row[1]: place for place, row in enumerate(rows)}
        if len(given) < len(rows):
            raise self._fault(f"{len(rows) - len(given)} unigrams stand twice")
        for word in (BEGIN, END):
            if word not in given:
                raise self._fault(f"no unigram {word}, expected <s> and </s>")
        self.words = [*SPECIAL_WORDS, *(word for word in given if word not in SPECIAL_WORDS)]
        places = np.array([given.get(word, -1) for word in self.words])
        has = places >= 0
        log_prob = np.where(has, log_probs[places], NEVER)
        log_prob[SPECIAL_WORDS.index(BEGIN)] = NEVER
        zeros = np.zeros(len(self.words), dtype=np.int64)
        self.numbers = {word: number for number, word in enumerate(self.words)}
        return Level(zeros, np.arange(len(zeros)), log_prob, np.where(has, backoffs[places], 0.0))

    def _level(self, order: int, count: int, keys: list[np.ndarray]) -> tuple[Level, np.ndarray]:
        self._check_title(self._next(), order)
        first_line = self.line + 1
        blocks = []
        rows = self._rows(order, count)
        while block := list(itertools.islice(rows, _LINES_AT_A_TIME)):
            blocks.append(self._block(block, order, keys))
        parts = [np.concatenate(part) for part in zip(*blocks, strict=True)] if blocks else []
        parent, word, log_prob, backoff = parts or [np.zeros(0, dtype=np.int64)] * 4
        of_rows = parent * len(self.words) + word
        turn = of_rows.argsort(kind="stable")
        of_level = of_rows[turn]
        twice = np.flatnonzero(of_level[1:] == of_level[:-1])
        if len(twice):
            self.line = first_line + int(turn[twice[0] + 1])
            raise self._fault(f"this {order}-gram stands for the second time")
        return Level(parent[turn], word[turn], log_prob[turn], backoff[turn]), of_level

    def _block(
        self, rows: list[list[str]], order: int, keys: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return parents, last words, probabilities and back-off weights of some n-grams."""
        first_line = self.line - len(rows) + 1
        columns = list(zip(*rows, strict=True))
        log_prob = self._numbers(columns[0], "probability", first_line)
        backoff = self._numbers(columns[-1], "back-off weight", first_line)
        words = []
        for column in columns[1:-1]:
            known = [self.numbers.get(text, -1) for text in column]
            if -1 in known:
                place = known.index(-1)
                self.line = first_line + place
                raise self._fault(f"word '{column[place]}' has no unigram")
            words.append(np.array(known, dtype=np.int64))
        parent = words[0]
        for length, (lower, word) in enumerate(zip(keys, words[1:-1], strict=True), start=2):
            wanted = parent * len(self.words) + word
            parent = np.searchsorted(lower, wanted)
            found = np.append(lower, -1)[parent] == wanted
            if not found.all():
                place = int((~found).argmax())
                self.line = first_line + place
                raise self._fault(
                    f"the {order}-gram '{' '.join(rows[place][1:-1])}' without the {length}-gram that it "
                    "begins with"
                )
        return parent, words[-1], log_prob, backoff


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
