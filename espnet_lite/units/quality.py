"""How good units are: what they tell of phones (HuBERT, Hsu et al. 2021, §4.2), and how long they last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from espnet_lite.errors import InputError
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.units.store import UnitStore
from espnet_lite.units.textgrid import SILENCE, Interval, phone_class

# Alignments are cut to tens of milliseconds; more than this is another recording.
_LENGTH_TOLERANCE_SECONDS = 0.1


@dataclass(frozen=True)
class UnitQuality:
    """What units tell of the phone in the middle of their frame.

    Attributes:
        frames: counted.
        phones: classes that occur.
        units: clusters that occur.
        pnmi: mutual information of phone and unit / entropy of the phone: the part of what there
            is to know of the phone that the unit tells; 0 where there is one phone only.
        phone_purity: part of the frames whose phone is the most frequent one of their unit.
        cluster_purity: part of the frames whose unit is the most frequent one of their phone.
    """

    frames: int
    phones: int
    units: int
    pnmi: float
    phone_purity: float
    cluster_purity: float


def quality_of(counts: np.ndarray) -> UnitQuality:
    """Return the quality of units from how often phone i met unit j, shape [phones, units].

    Raises:
        InputError: no frame was counted.
    """
    frames = int(counts.sum())
    if frames == 0:
        raise InputError("no frame with a phone and a unit")
    joint = counts / frames
    by_phone, by_unit = joint.sum(axis=1), joint.sum(axis=0)
    entropy = _entropy(by_phone)
    information = entropy + _entropy(by_unit) - _entropy(joint.ravel())
    return UnitQuality(
        frames=frames,
        phones=int((by_phone > 0).sum()),
        units=int((by_unit > 0).sum()),
        pnmi=float(max(0.0, information) / entropy) if entropy > 0 else 0.0,
        phone_purity=float(joint.max(axis=0).sum()),
        cluster_purity=float(joint.max(axis=1).sum()),
    )


def _entropy(probabilities: np.ndarray) -> float:
    """Return the entropy in nats."""
    p = probabilities[probabilities > 0]
    return float(-(p * np.log(p)).sum())


def phones_at(
    intervals: Sequence[Interval], grid: FrameGrid, num_frames: int, *, numbers: dict[str, int]
) -> np.ndarray:
    """Return the class of the phone in the middle of each frame, int64; SILENCE beside all intervals.

    Args:
        intervals: start, end and label in their order, in seconds.
        grid: of the frames.
        num_frames: how many there are.
        numbers: class of each `phone_class`; classes met for the first time are added.
    """
    silence = numbers.setdefault(SILENCE, len(numbers))
    middles = np.arange(num_frames) * grid.shift_samples + grid.window_samples / 2
    if not intervals:
        return np.full(num_frames, silence, dtype=np.int64)
    seconds = middles / grid.sample_rate
    starts = np.array([start for start, _, _ in intervals])
    ends = np.array([end for _, end, _ in intervals])
    classes = np.array(
        [numbers.setdefault(phone_class(label), len(numbers)) for _, _, label in intervals]
    )
    index = np.searchsorted(starts, seconds, side="right") - 1  # the last that has begun
    is_inside = (index >= 0) & (seconds < ends[index])
    return np.where(is_inside, classes[index], silence)


@dataclass(frozen=True)
class PhoneCounts:
    """How often each phone met each unit.

    Attributes:
        counts: int64, shape [phones, clusters].
        phones: name of each row; SILENCE is the first.
    """

    counts: np.ndarray
    phones: list[str]

    def with_silence(self) -> UnitQuality:
        """Return the quality with silence as one more phone."""
        return quality_of(self.counts)

    def of_speech(self) -> UnitQuality | None:
        """Return the quality on the frames that are no silence; None where there are none."""
        return quality_of(self.counts[1:]) if self.counts[1:].any() else None


def count_phones(store: UnitStore, alignments: Mapping[str, Sequence[Interval]]) -> PhoneCounts:
    """Return how often phones and units met in the utterances of `alignments`.

    Raises:
        InputError: an utterance without units, or one whose alignment is of another length.
    """
    numbers = {SILENCE: 0}
    pairs = np.zeros((0, store.clusters), dtype=np.int64)
    for utterance, intervals in alignments.items():
        units = store.units_of(utterance).astype(np.int64)
        seconds = store.num_samples(utterance) / store.grid.sample_rate
        end = intervals[-1][1] if intervals else 0.0
        if intervals and abs(end - seconds) > _LENGTH_TOLERANCE_SECONDS:
            raise InputError(
                f"the alignment of utterance '{utterance}' ends at {end:.3f} s, its units were made "
                f"of {seconds:.3f} s",
                fix="give the alignments of this audio",
            )
        phones = phones_at(intervals, store.grid, len(units), numbers=numbers)
        if len(numbers) > len(pairs):
            pairs = np.pad(pairs, ((0, len(numbers) - len(pairs)), (0, 0)))
        flat = np.bincount(phones * store.clusters + units, minlength=pairs.size)
        pairs += flat.reshape(pairs.shape)
    return PhoneCounts(pairs, list(numbers))


def count_segments(units: np.ndarray, num_frames: np.ndarray) -> int:
    """Return the runs of one unit in utterances that lie one after the other.

    Args:
        units: labels of all utterances, shape [n].
        num_frames: of each utterance, n in all.
    """
    if not len(units):
        return 0
    is_start = np.ones(len(units), dtype=bool)
    is_start[1:] = units[1:] != units[:-1]
    starts = np.cumsum(num_frames) - num_frames
    is_start[starts[num_frames > 0]] = True
    return int(is_start.sum())
