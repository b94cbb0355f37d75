"""The units of a corpus on disk: int16 labels of all utterances, an index, and what they are.

    units.int16            labels, little-endian, utterances one after the other in byte order of ids
    index                  `utterance offset_frames num_frames num_samples` a line
    units.json             clusters, the frames' grid, the features, quality, and the store's identity
    centroids.safetensors  `centroids`, float32, shape [clusters, dim]

960 hours at 100 labels a second are 0.7 GB, which a reader maps into memory.
"""

import array
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
from jaxtyping import Float
from torch import Tensor

from espnet_lite.errors import InputError
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.files import atomic_folder, in_key_order

MAKE_AGAIN = "make the units again: ./run.sh --stage units"
MOST_CLUSTERS = 32767  # that int16 can number
_LABEL_BYTES = 2
_HASH_BYTES = 1 << 20
_COUNTED_LABELS = 1 << 22  # at a time: numpy counts int64 copies


class UnitStore:
    """An open folder of units. Labels stay on disk; a million utterances take some 50 MB.

    Attributes:
        folder: where it lies.
        grid: where the labelled frames lie in the waveform.
        clusters: labels are 0 to clusters - 1.
        identity: digest of labels and centroids: another one, other units.
        description: units.json as a whole.
    """

    def __init__(self, folder: Path | str):
        """Open a folder and check its parts against each other.

        Raises:
            InputError: a part is missing, truncated or contradicts another one.
        """
        self.folder = Path(folder)
        self.description = _read_description(self.folder / "units.json")
        where = self.folder / "units.json"
        self.grid = FrameGrid(
            _number(self.description, "sample_rate", where=where),
            _number(self.description, "window_samples", where=where),
            _number(self.description, "shift_samples", where=where),
        )
        self.clusters = _number(self.description, "clusters", where=where)
        self.identity = str(self.description.get("units_id", ""))
        self._index = _Index(self.folder / "index", self.grid)
        path = self.folder / "units.int16"
        if not path.is_file():
            raise InputError("no such file", where=path, fix=MAKE_AGAIN)
        size, expected = path.stat().st_size, self._index.total * _LABEL_BYTES
        if size != expected:
            raise InputError(
                f"{size} bytes, but the index has {self._index.total} units of {_LABEL_BYTES} bytes, "
                f"which is {expected}",
                where=path,
                fix=MAKE_AGAIN,
            )
        self._labels = np.memmap(path, dtype="<i2", mode="r") if size else np.empty(0, "<i2")

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self._index.ids)

    def utterances(self) -> list[str]:
        """Return the ids in byte order."""
        return [name.decode("utf-8") for name in self._index.ids.tolist()]

    def num_samples(self, utterance: str) -> int:
        """Return the length of the audio that the units were made of.

        Raises:
            InputError: no such utterance.
        """
        return int(self._index.num_samples[self._row(utterance)])

    def units_of(self, utterance: str) -> np.ndarray:
        """Return the labels of an utterance, int16, one a frame of `grid`; a view of the file.

        Raises:
            InputError: no such utterance, or a label that is no cluster's.
        """
        row = self._row(utterance)
        start = int(self._index.offsets[row])
        units = self._labels[start : start + int(self._index.num_frames[row])]
        if len(units) and (int(units.min()) < 0 or int(units.max()) >= self.clusters):
            raise InputError(
                f"units from {units.min()} to {units.max()} of utterance '{utterance}', expected 0 "
                f"to {self.clusters - 1}",
                where=self.folder / "units.int16",
                fix=MAKE_AGAIN,
            )
        return units

    def counts(self) -> np.ndarray:
        """Return how many frames have each unit, int64 of shape [clusters].

        Raises:
            InputError: a label that is no cluster's.
        """
        counts = np.zeros(self.clusters, dtype=np.int64)
        for start in range(0, len(self._labels), _COUNTED_LABELS):
            block = self._labels[start : start + _COUNTED_LABELS]
            if int(block.min()) < 0 or int(block.max()) >= self.clusters:
                raise InputError(
                    f"units from {block.min()} to {block.max()}, expected 0 to {self.clusters - 1}",
                    where=self.folder / "units.int16",
                    fix=MAKE_AGAIN,
                )
            counts += np.bincount(block, minlength=self.clusters)
        return counts

    def centroids(self) -> Float[Tensor, "clusters dim"]:
        """Return the centroids.

        Raises:
            InputError: no such file, or not one of so many centroids.
        """
        path = self.folder / "centroids.safetensors"
        centroids = read_centroids(path)
        if centroids.size(0) != self.clusters:
            raise InputError(
                f"{centroids.size(0)} centroids, expected {self.clusters}",
                where=path,
                fix=MAKE_AGAIN,
            )
        return centroids

    def targets(self, model_grid: FrameGrid) -> "UnitTargets":
        """Return the labels as a model with frames on `model_grid` is trained with.

        Raises:
            InputError: another sample rate.
        """
        return UnitTargets(self, model_grid)

    def _row(self, utterance: str) -> int:
        row = self._index.row(utterance)
        if row is None:
            raise InputError(
                f"no units of utterance '{utterance}'", where=self.folder / "index", fix=MAKE_AGAIN
            )
        return row


class UnitTargets:
    """For each frame of a model the unit of the frame whose middle is nearest."""

    def __init__(self, store: UnitStore, grid: FrameGrid):
        store.grid.nearest(grid, num_samples=0)  # refuses another sample rate
        self._store = store
        self._grid = grid

    def units_for(
        self, utterance: str, *, num_samples: int, start_samples: int, part_samples: int
    ) -> np.ndarray:
        """Return the units of a part of an utterance, int64, one a frame of the model.

        Args:
            utterance: its id.
            num_samples: of the whole utterance, as it is loaded now.
            start_samples: where the part begins.
            part_samples: its length.

        Raises:
            InputError: no such utterance, or one of another length than the units were made of, or
                one too short for a unit that yet has a frame of the model.
        """
        store = self._store
        made_of = store.num_samples(utterance)
        if made_of != num_samples:
            raise InputError(
                f"utterance '{utterance}' has {num_samples} samples, its units were made of "
                f"{made_of}",
                where=store.folder / "index",
                fix=MAKE_AGAIN,
            )
        units = store.units_of(utterance)
        frames = store.grid.nearest(
            self._grid, num_samples=part_samples, start_samples=start_samples
        )
        if len(frames) and not len(units):
            raise InputError(
                f"utterance '{utterance}' of {num_samples} samples has no unit, which needs "
                f"{store.grid.window_samples}",
                where=store.folder / "index",
                fix=f"set data.min_seconds to {store.grid.window_samples / store.grid.sample_rate:.2f}"
                " or more",
            )
        return units[np.clip(frames, 0, max(0, len(units) - 1))].astype(np.int64)


class _Index:
    """The index file as arrays, in byte order of the ids."""

    def __init__(self, path: Path, grid: FrameGrid):
        if not path.is_file():
            raise InputError("no such file", where=path, fix=MAKE_AGAIN)
        self.path = path
        names: list[bytes] = []
        numbers = array.array("q")
        with path.open("rb") as file:
            for line, text in enumerate(file, start=1):
                words = text.split()
                if len(words) != 4 or not all(map(_is_count, words[1:])):
                    raise InputError(
                        f"'{text.decode('utf-8', 'replace').strip()}', expected "
                        "'utterance offset_frames num_frames num_samples'",
                        where=f"{path}:{line}",
                        fix=MAKE_AGAIN,
                    )
                if not (words[0].isascii() or _is_utf8(words[0])):
                    raise InputError(
                        f"utterance id {words[0]!r} is not UTF-8",
                        where=f"{path}:{line}",
                        fix=MAKE_AGAIN,
                    )
                names.append(words[0])
                numbers.extend(map(int, words[1:]))
        self.ids = np.array(names, dtype=np.bytes_)
        table = np.array(numbers, dtype=np.int64).reshape(-1, 3)
        self.offsets, self.num_frames, self.num_samples = table.T.copy()
        self.total = int(self.num_frames.sum())
        self._check(grid)

    def row(self, utterance: str) -> int | None:
        """Return the line of an utterance from 0, or None."""
        wanted = np.bytes_(utterance.encode("utf-8"))
        row = int(np.searchsorted(self.ids, wanted))
        return row if row < len(self.ids) and self.ids[row] == wanted else None

    def _check(self, grid: FrameGrid) -> None:
        unsorted = np.flatnonzero(self.ids[1:] <= self.ids[:-1])
        if len(unsorted):
            row = int(unsorted[0]) + 1
            raise self._fault(row, "it stands twice or out of byte order")
        expected = grid.num_frames(self.num_samples)
        wrong = np.flatnonzero(expected != self.num_frames)
        if len(wrong):
            row = int(wrong[0])
            message = f"{self.num_frames[row]} units, expected {expected[row]} of "
            raise self._fault(row, f"{message}{self.num_samples[row]} samples")
        wrong = np.flatnonzero(self.offsets != np.cumsum(self.num_frames) - self.num_frames)
        if len(wrong):
            row = int(wrong[0])
            raise self._fault(row, "its units do not follow those of the utterance before")

    def _fault(self, row: int, message: str) -> InputError:
        name = self.ids[row].decode("utf-8", "replace")
        return InputError(
            f"utterance '{name}': {message}", where=f"{self.path}:{row + 1}", fix=MAKE_AGAIN
        )


def _is_count(word: bytes) -> bool:
    """Return whether a word is a whole number whose sums stay below 2^63."""
    return word.isdigit() and len(word) <= 15


def _is_utf8(word: bytes) -> bool:
    try:
        word.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _read_description(path: Path) -> dict:
    if not path.is_file():
        raise InputError("no such file", where=path, fix=MAKE_AGAIN)
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not JSON ({error})", where=path, fix=MAKE_AGAIN) from error
    if not isinstance(description, dict):
        raise InputError("not the description of units", where=path, fix=MAKE_AGAIN)
    return description


def _number(description: dict, key: str, *, where: Path) -> int:
    value = description.get(key)
    if type(value) is not int or value < 1:
        raise InputError(
            f"{key} is {value!r}, expected a positive whole number", where=where, fix=MAKE_AGAIN
        )
    return value


def read_centroids(path: Path) -> Float[Tensor, "clusters dim"]:
    """Return the centroids in a file, float32.

    Raises:
        InputError: no such file, or not one of centroids.
    """
    if not path.is_file():
        raise InputError("no such file", where=path, fix=MAKE_AGAIN)
    try:
        centroids = safetensors.torch.load_file(path)["centroids"]
    except (safetensors.SafetensorError, KeyError) as error:
        raise InputError(
            f"not a file of centroids ({error})", where=path, fix=MAKE_AGAIN
        ) from error
    return centroids


def centroid_bytes(centroids: Float[Tensor, "clusters dim"], metadata: dict[str, str]) -> bytes:
    """Return the content of a file of centroids."""
    tensors = {"centroids": centroids.float().cpu().contiguous()}
    return in_key_order(safetensors.torch.save(tensors, metadata=metadata))


def write_store(
    folder: Path,
    parts: Iterable[tuple[list[bytes], np.ndarray, np.ndarray, np.ndarray]],
    *,
    centroids: Float[Tensor, "clusters dim"],
    grid: FrameGrid,
    description: dict,
) -> UnitStore:
    """Write a store, whole or not at all, and return it opened.

    Args:
        folder: what was there before is replaced.
        parts: of the corpus: ids, samples of each, frames of each and the labels of all, one
            utterance after the other. Gone through twice, so a list or the like; the labels of one
            part are in memory at a time.
        centroids: what the labels number.
        grid: of the frames.
        description: JSON-able, what else stands in units.json.

    Raises:
        InputError: an utterance stands in the parts twice, no utterance, a full disk.
    """
    ids = [name for names, _, _, _ in parts for name in names]
    order = np.argsort(np.array(ids, dtype=np.bytes_), kind="stable")
    samples, frames = (
        np.concatenate([np.empty(0, np.int64), *(part[which] for part in parts)]).astype(np.int64)
        for which in (1, 2)
    )
    offsets = np.empty(len(ids), dtype=np.int64)
    offsets[order] = np.cumsum(frames[order]) - frames[order]
    with atomic_folder(folder) as target:
        with (target / "index").open("wb") as file:
            before = None
            for row in order.tolist():
                if ids[row] == before:
                    raise InputError(
                        f"utterance '{ids[row].decode('utf-8')}' stands in two of the folders",
                        fix="give each folder once",
                    )
                before = ids[row]
                file.write(b"%s %d %d %d\n" % (before, offsets[row], frames[row], samples[row]))
        with (target / "units.int16").open("wb") as file:
            row = 0
            for names, _, counts, labels in parts:
                content = labels.astype("<i2").tobytes()
                start = 0
                for count in counts.tolist():
                    end = start + count * _LABEL_BYTES
                    os.pwrite(file.fileno(), content[start:end], int(offsets[row]) * _LABEL_BYTES)
                    start, row = end, row + 1
                if start != len(content):
                    raise ValueError(f"{len(labels)} labels for {len(names)} utterances")
        raw = centroid_bytes(centroids, {})
        (target / "centroids.safetensors").write_bytes(raw)
        plain = {
            "clusters": centroids.size(0),
            "sample_rate": grid.sample_rate,
            "window_samples": grid.window_samples,
            "shift_samples": grid.shift_samples,
            "units_id": _identity(target),
            **description,
        }
        text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
        (target / "units.json").write_text(text, encoding="utf-8", newline="\n")
    return UnitStore(folder)


def _identity(folder: Path) -> str:
    """Return the SHA-256 of labels and centroids."""
    digest = hashlib.sha256()
    for name in ("units.int16", "centroids.safetensors"):
        with (folder / name).open("rb") as file:
            while block := file.read(_HASH_BYTES):
                digest.update(block)
    return digest.hexdigest()
