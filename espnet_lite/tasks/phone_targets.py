"""The phone of each frame from forced alignments: what a probe of frames is trained to tell."""

from collections.abc import Mapping, Sequence

import numpy as np

from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.models.probe import SILENCE_CLASS
from espnet_lite.units.quality import phones_at
from espnet_lite.units.textgrid import SILENCE, Interval, phone_class


class PhoneTargets:
    """The phone in the middle of each frame, as the loader asks for labels of frames.

    Attributes:
        phones: names of the classes; silence comes first.
    """

    def __init__(self, alignments: Mapping[str, Sequence[Interval]], *, grid: FrameGrid):
        """Hold alignments.

        Args:
            alignments: of each utterance (start, end, label) in turn, in seconds.
            grid: of the model that the labels are for.
        """
        found = {phone_class(label) for intervals in alignments.values() for *_, label in intervals}
        self.phones = sorted(found - {SILENCE})
        self.phones.insert(SILENCE_CLASS, SILENCE)
        self._numbers = {phone: number for number, phone in enumerate(self.phones)}
        self._alignments = alignments
        self._grid = grid

    def units_for(
        self, utterance: str, *, num_samples: int, start_samples: int, part_samples: int
    ) -> np.ndarray:
        """Return int64 phones, one for each frame of the part; silence beside all intervals."""
        offset = start_samples / self._grid.sample_rate
        intervals = [
            (start - offset, end - offset, label)
            for start, end, label in self._alignments[utterance]
        ]
        num_frames = self._grid.num_frames(part_samples)
        return phones_at(intervals, self._grid, num_frames, numbers=self._numbers)
