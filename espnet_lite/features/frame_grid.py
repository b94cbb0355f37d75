"""Where the frames of features, labels and models lie in a waveform: the one place that joins rates."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from espnet_lite.errors import InputError


@dataclass(frozen=True)
class FrameGrid:
    """Frame j sees the samples from j · shift_samples to j · shift_samples + window_samples.

    Frames lie within the utterance (Kaldi's snip_edges, convolution without padding).
    """

    sample_rate: int  # Hz
    window_samples: int  # that one frame sees
    shift_samples: int  # from frame to frame

    @property
    def frame_ms(self) -> float:
        """Return the time from frame to frame."""
        return 1000 * self.shift_samples / self.sample_rate

    def num_frames(self, num_samples):
        """Return the frames of so many samples: an int, or an array or tensor of the kind given."""
        if isinstance(num_samples, Tensor):
            ends = (num_samples - self.window_samples).div(
                self.shift_samples, rounding_mode="floor"
            )
            return (ends + 1).clamp_min(0)
        ends = (num_samples - self.window_samples) // self.shift_samples
        return np.maximum(ends + 1, 0) if isinstance(ends, np.ndarray) else max(0, ends + 1)

    def subsampled(self, kernel: int, stride: int) -> "FrameGrid":
        """Return the grid of frames that each see `kernel` of these frames, `stride` apart."""
        return FrameGrid(
            self.sample_rate,
            self.window_samples + (kernel - 1) * self.shift_samples,
            self.shift_samples * stride,
        )

    def nearest(
        self, other: "FrameGrid", *, num_samples: int, start_samples: int = 0
    ) -> np.ndarray:
        """Return, for each frame of `other`, the frame of this grid whose middle is nearest.

        Of two frames as near, the later one.

        Args:
            other: grid of a model that sees a part of the utterance.
            num_samples: length of that part.
            start_samples: where the part begins in the utterance that this grid is laid over.

        Returns:
            int64 of shape [frames of `other` in the part]; may reach one frame or so beyond either
            end of this grid's frames, where the caller clips.

        Raises:
            InputError: the two are of different sample rates.
        """
        if other.sample_rate != self.sample_rate:
            raise InputError(
                f"labels of audio at {self.sample_rate} Hz for a model at {other.sample_rate} Hz",
                fix="make units of the audio that is trained on: ./run.sh --stage units",
            )
        frames = np.arange(other.num_frames(num_samples), dtype=np.int64)
        # Twice the distance of the middles, so that halves of samples stay whole numbers.
        twice = 2 * (start_samples + frames * other.shift_samples) + other.window_samples
        return (twice - self.window_samples + self.shift_samples) // (2 * self.shift_samples)
