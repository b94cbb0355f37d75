"""The utterances of data directories as a sequence that reads each one when it is asked for."""

import itertools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from espnet_lite.data.table_file import TableFile
from espnet_lite.data.tables import BLANKS

_ROWS_AT_A_TIME = 1024  # read together when all are asked for in turn


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance of a data directory.

    Attributes:
        id: unique name, begins with the speaker.
        audio: the wav.scp entry: a path, `ark:offset`, or a pipe.
        start_seconds, end_seconds: the part of the recording; None for its begin and end.
        text: words parted by single spaces; None for unlabelled data.
        speaker: speaker name.
        num_samples: samples at the rate of the dump stage; None where not measured.
    """

    id: str
    audio: str
    start_seconds: float | None
    end_seconds: float | None
    text: str | None
    speaker: str
    num_samples: int | None


@dataclass(frozen=True, slots=True)
class SegmentArrays:
    """The segments of a folder: shape [utterances] each.

    Attributes:
        recordings: line of the recording in wav.scp, counted from 0, int64.
        start_seconds: float64.
        end_seconds: float64; infinite = to the end of the recording.
    """

    recordings: np.ndarray
    start_seconds: np.ndarray
    end_seconds: np.ndarray


@dataclass(frozen=True, slots=True)
class FolderTables:
    """The tables of one data directory, checked: line i of each is utterance i.

    Attributes:
        audio: wav.scp; where there are segments, its lines are recordings.
        speakers: utt2spk.
        texts: text; None for unlabelled data.
        segments: None where every recording is one utterance.
        num_samples: of each utterance, int64; None where not measured.
    """

    audio: TableFile
    speakers: TableFile
    texts: TableFile | None
    segments: SegmentArrays | None
    num_samples: np.ndarray | None

    def utterances(self, first: int, last: int) -> list[Utterance]:
        """Return the utterances from `first` to before `last`.

        Raises:
            InputError: a table was edited since it was opened.
        """
        speakers = self.speakers.rows(first, last)
        audio = self._audio(first, last)
        texts = None if self.texts is None else self.texts.rows(first, last)
        samples = None if self.num_samples is None else self.num_samples[first:last].tolist()
        starts: Sequence[float | None] = [None] * len(speakers)
        ends: Sequence[float | None] = starts
        if self.segments is not None:
            starts = self.segments.start_seconds[first:last].tolist()
            ends = [
                None if end == np.inf else end
                for end in self.segments.end_seconds[first:last].tolist()
            ]
        found = []
        for i, (key, speaker) in enumerate(speakers):
            if texts is not None and texts[i][0] != key:
                raise self.texts.edited(first + i)
            if self.segments is None and audio[i][0] != key:
                raise self.audio.edited(first + i)
            found.append(
                Utterance(
                    id=key,
                    audio=audio[i][1],
                    start_seconds=starts[i],
                    end_seconds=ends[i],
                    text=None if texts is None else BLANKS.sub(" ", texts[i][1]),
                    speaker=speaker,
                    num_samples=None if samples is None else samples[i],
                )
            )
        return found

    def _audio(self, first: int, last: int) -> list[tuple[str, str]]:
        if self.segments is None:
            return self.audio.rows(first, last)
        lines = self.segments.recordings[first:last].tolist()
        return [self.audio.rows(line, line + 1)[0] for line in lines]


class UtteranceTable(Sequence[Utterance]):
    """The utterances of one or more data directories; the text of the tables stays on disk.

    A million utterances take about 35 MB. An index gives an `Utterance`, a slice a list of them. The
    files are open until the table is gone, so what it holds does not change when a folder is
    replaced or deleted. Threads may share a table; a process opens its own.

    Attributes:
        num_samples: of each utterance, int64, shape [n]; None unless all are measured.
        has_text: whether every utterance has a text.
    """

    def __init__(self, folders: Sequence[FolderTables]):
        """Join the folders in the order given; an id may occur in several."""
        self._folders = tuple(folders)
        self._ends = list(itertools.accumulate(len(folder.speakers) for folder in self._folders))
        counts = [folder.num_samples for folder in self._folders]
        self.num_samples: np.ndarray | None = None
        if counts and all(count is not None for count in counts):
            self.num_samples = counts[0] if len(counts) == 1 else np.concatenate(counts)
        self.has_text = all(folder.texts is not None for folder in self._folders)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Utterance: ...

    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = operator.index(index)
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"utterance {index} of {len(self)}")
        before = 0
        for folder, end in zip(self._folders, self._ends, strict=True):
            if position < end:
                return folder.utterances(position - before, position - before + 1)[0]
            before = end
        raise AssertionError("the ends grow up to the length")

    def __iter__(self) -> Iterator[Utterance]:
        for folder in self._folders:
            size = len(folder.speakers)
            for first in range(0, size, _ROWS_AT_A_TIME):
                yield from folder.utterances(first, min(first + _ROWS_AT_A_TIME, size))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # as a list: equal tables may be read from other files

    def __repr__(self) -> str:
        """Return all of it, as a list does: equal texts mean equal utterances."""
        return f"UtteranceTable({list(self)!r})"


def join_tables(tables: Sequence[UtteranceTable]) -> UtteranceTable:
    """Return the utterances of several tables, one table after the other."""
    return UtteranceTable([folder for table in tables for folder in table._folders])
