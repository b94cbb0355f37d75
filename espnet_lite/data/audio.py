"""Samples of a recording as one array; resampling and speed change."""

import math
from dataclasses import dataclass

import numpy as np
import soxr

from espnet_lite.data.recording import open_recording


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header of a recording says; `frames` are samples of one channel, in the part asked for.

    `is_lossless_16_bit`: 16-bit samples without loss, in a file or archive, not a pipe.
    """

    frames: int
    sample_rate: int
    channels: int
    is_lossless_16_bit: bool


def audio_info(
    entry: str,
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    allow_pipes: bool = False,
) -> AudioInfo:
    """Return what the header of a recording says; a pipe is read whole.

    Args:
        entry: a path, `ark:offset`, or (with `allow_pipes`) a pipe.
        start_seconds, end_seconds: the part whose frames are counted; None for begin and end.
        allow_pipes: run the command of an entry that ends with a bar (never through a shell).

    Raises:
        InputError: missing, empty, truncated (as far as the header tells) or undecodable audio, a
            part outside of the recording.
    """
    with open_recording(entry, channel="mix", allow_pipes=allow_pipes) as recording:
        first, last = recording.span(start_seconds, end_seconds)
        return AudioInfo(
            frames=last - first,
            sample_rate=recording.sample_rate,
            channels=recording.channels,
            is_lossless_16_bit=recording.is_lossless_16_bit,
        )


def read_audio(
    entry: str,
    *,
    sample_rate: int | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    channel: int | str | None = None,
    allow_pipes: bool = False,
) -> tuple[np.ndarray, int]:
    """Return (samples, rate): float32 in [-1, 1], one channel.

    Args:
        entry: a path, `ark:offset`, or (with `allow_pipes`) a pipe.
        sample_rate: resample to it, in Hz; None keeps the recording's own rate.
        start_seconds, end_seconds: the part to read; None for the begin and the end.
        channel: needed for more than one channel: its number from 0, or "mix" for the mean.
        allow_pipes: run the command of an entry that ends with a bar (never through a shell).

    Raises:
        InputError: missing, empty, truncated or undecodable audio, several channels and no
            `channel`, a part outside of the recording.
    """
    with open_recording(entry, channel=channel, allow_pipes=allow_pipes) as recording:
        [samples] = recording.cut([recording.span(start_seconds, end_seconds)])
        rate = recording.sample_rate
    if sample_rate is not None and sample_rate != rate:
        return resample(samples, rate, sample_rate), sample_rate
    return samples, rate


def resample(samples: np.ndarray, from_hz: float | int, to_hz: float | int) -> np.ndarray:
    """Return the samples at another rate, `resampled_length` of them (soxr, quality HQ)."""
    wanted = resampled_length(len(samples), from_hz, to_hz)
    out = soxr.resample(np.ascontiguousarray(samples, dtype=np.float32), from_hz, to_hz, "HQ")
    if len(out) < wanted:
        return np.pad(out, (0, wanted - len(out)))
    return out[:wanted]


def resampled_length(num_samples: int, from_hz: float | int, to_hz: float | int) -> int:
    """Return the number of samples after resampling: the nearest whole number, at least one."""
    return max(1, math.floor(num_samples * to_hz / from_hz + 0.5))


def change_speed(samples: np.ndarray, factor: float | int) -> np.ndarray:
    """Return the samples played `factor` times as fast: shorter and higher above 1.

    `speed_length(len(samples), factor)` samples, as Kaldi's and sox's `speed`.
    """
    return samples if factor == 1.0 else resample(samples, factor, 1.0)


def speed_length(num_samples: int, factor: float | int) -> int:
    """Return the number of samples after `change_speed`."""
    return num_samples if factor == 1.0 else resampled_length(num_samples, factor, 1.0)


def speed_lengths(num_samples: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return `speed_length` of each pair, int64."""
    return np.maximum(1, np.floor(num_samples / factors + 0.5).astype(np.int64))


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Return the samples as 16-bit integers, rounded and clipped; exact for 16-bit sources."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
