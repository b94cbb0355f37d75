"""A table that stays on disk: memory holds where its lines begin, lines are read when asked for.

A million lines take 8 MB. They are found block by block with array operations, which also prove, for
every table that is as it should be, that its ids are in order and the same as in another table. What
this reader cannot prove is not wrong yet: `tables.read_table` looks at such a file line by line and
tells the fault, if there is one.
"""

import errno
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_lite.data.tables import split_row
from espnet_lite.errors import InputError

BLOCK_BYTES = 1 << 20  # fits in a core's cache with what is made of it

_ROWS_AT_A_TIME = 1024  # when all are asked for in turn

# Ids are compared in a matrix as wide as the longest; beyond this it would outgrow the block.
_WIDEST_KEY_BYTES = 256
_MOST_DIGITS = 18  # any number of so many digits fits in 64 bits

_TAB, _NEWLINE, _SPACE, _ZERO = b"\t\n 0"


class TableFile:
    """An open table of (key, value) lines, counted from 0.

    The file stays open until the object is gone, so a folder that is replaced or deleted meanwhile
    (as `atomic_folder` does) is read on as it was; one that is edited in place is refused. Threads
    may read at the same time.
    """

    def __init__(self, path: Path, descriptor: int, line_starts: np.ndarray):
        """Take over an open file.

        Args:
            path: for messages.
            descriptor: of the file; closed with this object.
            line_starts: byte offset of each line and of the end of the file, int64, shape [n + 1].
        """
        self.path = path
        self._descriptor = descriptor
        self._line_starts = line_starts
        self._state = _file_state(descriptor)
        weakref.finalize(self, os.close, descriptor)

    def __reduce__(self):
        """Refuse to be copied or sent: the number of an open file means another one elsewhere."""
        raise TypeError(f"the open table {self.path} cannot be copied: read the folder again")

    def __len__(self) -> int:
        return len(self._line_starts) - 1

    def rows(self, first: int, last: int) -> list[tuple[str, str]]:
        """Return (key, value) of the lines from `first` to before `last`.

        Raises:
            InputError: the file was edited since it was opened.
        """
        begin, end = int(self._line_starts[first]), int(self._line_starts[last])
        raw = os.pread(self._descriptor, end - begin, begin)
        try:
            lines = raw.removesuffix(b"\n").decode("utf-8").split("\n")
        except UnicodeDecodeError:
            raise self.edited(first) from None
        is_as_it_was = _file_state(self._descriptor) == self._state
        if not is_as_it_was or len(raw) != end - begin or len(lines) != last - first:
            raise self.edited(first)
        return [split_row(line) for line in lines]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield (key, value) of every line."""
        for first in range(0, len(self), _ROWS_AT_A_TIME):
            yield from self.rows(first, min(first + _ROWS_AT_A_TIME, len(self)))

    def edited(self, line: int) -> InputError:
        """Return the error for a line (counted from 0) that is not what it was."""
        return InputError(
            "edited while it was being read, expected the table as it was at the start",
            where=f"{self.path}:{line + 1}",
            fix="run again",
        )


@dataclass(frozen=True)
class IndexedTable:
    """An open table and what was learnt on the way through it.

    Attributes:
        file: the table.
        keys: its keys as bytes, shape [n]; None where they were compared with given ones.
        is_proven: True where the keys are there, sorted and unique, or the same as the given ones.
        numbers: the values as int64, shape [n]; None where not asked for, or where a value is
            something else than a positive number of at most 18 digits.
    """

    file: TableFile
    keys: np.ndarray | None
    is_proven: bool
    numbers: np.ndarray | None


def _file_state(descriptor: int) -> tuple[int, int]:
    """Return size and time of the last change, which a replaced or deleted file keeps."""
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


def index_table(
    path: Path,
    *,
    same_keys: np.ndarray | None = None,
    with_numbers: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> IndexedTable | None:
    """Open a table and find its lines.

    Args:
        path: the table.
        same_keys: keys it should have, as `IndexedTable.keys`; None: any that are in order.
        with_numbers: the values are numbers: keep them.
        block_bytes: read at a time.

    Returns:
        None for a file that is missing, not UTF-8, with a carriage return or an empty line.

    Raises:
        InputError: no permission to read it, or too many open files.
    """
    if not path.is_file():
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        full = "join the folders with combine_data, or raise the limit: ulimit -n 4096"
        raise InputError(
            f"cannot be opened: {error.strerror}",
            where=path,
            fix=full if error.errno == errno.EMFILE else "",
        ) from error
    scan = _Scan(same_keys=same_keys, with_numbers=with_numbers)
    is_table = False
    try:
        is_table = all(scan.take(block) for block in _blocks(descriptor, block_bytes))
        size = os.fstat(descriptor).st_size
    finally:
        if not is_table:
            os.close(descriptor)
    return scan.result(path, descriptor, size) if is_table else None


def _blocks(descriptor: int, block_bytes: int) -> Iterator[bytes]:
    """Yield the file as blocks of whole lines; the last line gets the line end it may lack."""
    rest = b""
    with open(descriptor, "rb", closefd=False) as file:
        while block := file.read(block_bytes):
            block = rest + block
            cut = block.rfind(b"\n") + 1
            if cut:
                yield block[:cut]
            rest = block[cut:]
    if rest:
        yield rest + b"\n"


class _Scan:
    """What the blocks of a table add up to."""

    def __init__(self, *, same_keys: np.ndarray | None, with_numbers: bool):
        self.same_keys = same_keys
        self.is_proven = True
        self.line_starts: list[np.ndarray] = []
        self.keys: list[np.ndarray] = []
        self.numbers: list[np.ndarray] | None = [] if with_numbers else None
        self.bytes = 0
        self.lines = 0

    def take(self, block: bytes) -> bool:
        """Add the next block; return False for one that no table has."""
        if b"\r" in block or not _is_utf8(block):
            return False
        words = _Words(block)
        if words.has_empty_line:
            return False
        if self.is_proven:
            self.is_proven = self._prove(words.keys())
        if self.numbers is not None:
            numbers = words.numbers()
            if numbers is None:
                self.numbers = None
            else:
                self.numbers.append(numbers)
        self.line_starts.append(words.line_starts + self.bytes)
        self.lines += len(words.line_starts)
        self.bytes += len(block)
        return True

    def _prove(self, keys: np.ndarray | None) -> bool:
        if keys is None:
            return False
        if self.same_keys is not None:
            return np.array_equal(keys, self.same_keys[self.lines : self.lines + len(keys)])
        is_first = not self.keys
        self.keys.append(keys)
        follows = is_first or bool(keys[0] > self.keys[-2][-1])
        return follows and bool((keys[1:] > keys[:-1]).all())

    def result(self, path: Path, descriptor: int, size: int) -> IndexedTable:
        expected = self.lines if self.same_keys is None else len(self.same_keys)
        is_proven = self.is_proven and 0 < self.lines == expected
        keys = np.concatenate(self.keys) if is_proven and self.same_keys is None else None
        numbers = np.concatenate(self.numbers) if self.numbers else None
        line_starts = np.concatenate([*self.line_starts, np.array([size], dtype=np.int64)])
        return IndexedTable(TableFile(path, descriptor, line_starts), keys, is_proven, numbers)


class _Words:
    """Where the lines and words of a block begin and end; words are parted by spaces and tabs."""

    def __init__(self, block: bytes):
        self.block = block
        data = np.frombuffer(block, dtype=np.uint8)
        is_word = np.zeros(len(data) + 1, dtype=bool)  # the first one stands before the block
        np.not_equal(data, _SPACE, out=is_word[1:])
        is_word[1:] &= data != _TAB
        is_word[1:] &= data != _NEWLINE
        edges = np.flatnonzero(is_word[1:] != is_word[:-1])
        self.starts, self.ends = edges[0::2], edges[1::2]
        line_ends = np.flatnonzero(data == _NEWLINE)
        self.line_starts = np.concatenate([[0], line_ends[:-1] + 1])
        self.first = np.searchsorted(self.starts, self.line_starts)  # word of each line
        self.words = np.diff(self.first, append=len(self.starts))  # in each line

    @property
    def has_empty_line(self) -> bool:
        return not self.words.all()

    def keys(self) -> np.ndarray | None:
        """Return the first word of each line; None where an array cannot tell them apart."""
        if b"\0" in self.block:  # numpy takes it for padding
            return None
        return self._gather(self.first, most_bytes=_WIDEST_KEY_BYTES)

    def numbers(self) -> np.ndarray | None:
        """Return the second word of each line as int64; None unless it is the last, and a number."""
        if (self.words != 2).any():
            return None
        words = self._gather(self.first + 1, most_bytes=_MOST_DIGITS)
        if words is None:
            return None
        numbers = np.zeros(len(words), dtype=np.int64)
        for column in words.view(np.uint8).reshape(len(words), -1).T:
            is_inside = column != 0
            if ((column - _ZERO)[is_inside] > 9).any():  # unsigned: what is below '0' is above too
                return None
            numbers[is_inside] = numbers[is_inside] * 10 + (column - _ZERO)[is_inside]
        return None if (numbers == 0).any() else numbers

    def _gather(self, which: np.ndarray, *, most_bytes: int) -> np.ndarray | None:
        """Return the words at these places as an array of bytes; None if one is too long."""
        starts = self.starts[which]
        lengths = self.ends[which] - starts
        width = int(lengths.max())
        if width > most_bytes:
            return None
        padded = np.frombuffer(self.block + bytes(width), dtype=np.uint8)
        words = np.lib.stride_tricks.sliding_window_view(padded, width)[starts]
        words[np.arange(width) >= lengths[:, None]] = 0
        return words.view(f"S{width}").ravel()


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
