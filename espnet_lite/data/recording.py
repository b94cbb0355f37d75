"""A recording behind a wav.scp entry: opened once, read forward, cut into spans."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence

import numpy as np
import soundfile

from espnet_lite.data.ark import audio_at
from espnet_lite.data.audio_entries import AudioEntry, parse_entry, run_pipe
from espnet_lite.data.audio_headers import find_shortfall
from espnet_lite.errors import InputError

# A segment may end this much after its recording; it is cut there, as in Kaldi's extract-segments.
MAX_OVERSHOOT_SECONDS = 0.5
# 16-bit formats that hold their samples exactly and open fast: they are used where they lie.
LOSSLESS_FORMATS = ("WAV", "WAVEX", "FLAC", "NIST", "AIFF")
_FETCH_AGAIN = "fetch the file again, or delete its line from wav.scp and run fix_data"
_BLOCK_FRAMES = 1 << 20
_MOST_AT_ONCE = 1 << 24  # frames: 17 minutes at 16 kHz


class Recording:
    """An open recording.

    Attributes:
        frames: samples of one channel, as its header says.
        sample_rate: in Hz.
        channels: number of channels in the file; one of them, or their mean, is read.
        is_lossless_16_bit: 16-bit samples without loss, in a file or archive, not a pipe.
    """

    def __init__(
        self,
        entry: str,
        file: soundfile.SoundFile,
        *,
        is_pipe: bool,
        channel: int | str | None,
    ):
        self.entry = entry
        self.frames = file.frames
        self.sample_rate = file.samplerate
        self.channels = file.channels
        self.is_lossless_16_bit = (
            file.format in LOSSLESS_FORMATS and file.subtype == "PCM_16" and not is_pipe
        )
        self._file = file
        self._channel = channel
        self._can_seek = file.format in LOSSLESS_FORMATS
        self._is_float = file.subtype in ("FLOAT", "DOUBLE")

    def span(self, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
        """Return (first frame, frame after the last) of a part; None for the begin and the end.

        Raises:
            InputError: the part lies outside of the recording.
        """
        start = start_seconds or 0.0
        first = round(start * self.sample_rate)
        last = self.frames if end_seconds is None else round(end_seconds * self.sample_rate)
        overshoot = last - self.frames
        if first >= self.frames or overshoot > MAX_OVERSHOOT_SECONDS * self.sample_rate:
            until = "its end" if end_seconds is None else f"{end_seconds:g} s"
            raise InputError(
                f"segment from {start:g} s to {until}, "
                f"the recording has {self.frames / self.sample_rate:.3f} s",
                where=self.entry,
                fix="correct the line in segments",
            )
        if last <= first:
            raise InputError(
                f"segment from {start:g} s to {end_seconds:g} s holds no sample", where=self.entry
            )
        return first, min(last, self.frames)

    def cut(self, spans: Sequence[tuple[int, int]]) -> Iterator[np.ndarray]:
        """Yield the samples (float32) of each span, sorted by start; call it once.

        Raises:
            InputError: while iterating: fewer frames than the header says, or not a number.
        """
        held = np.zeros(0, dtype=np.float32)  # frames from the last span's start to `end`
        end = 0
        for start, stop in spans:
            if start >= end:
                self._skip(end, start)
                held, end = held[:0], start
            else:
                held = held[len(held) - (end - start) :]
            if stop > end:
                held = np.concatenate([held, self._read(stop - end)])
                end = stop
            yield held[: stop - start]

    def _skip(self, position: int, target: int) -> None:
        """Move on to frame `target`; lossy audio is decoded up to it: seeking may be inexact."""
        if self._can_seek:
            if target > position:
                self._file.seek(target)
            return
        while position < target:
            position += len(self._read(min(_BLOCK_FRAMES, target - position)))

    def _read(self, frames: int) -> np.ndarray:
        """Return the next `frames` samples of one channel."""
        if frames > _MOST_AT_ONCE:  # a damaged header may promise more than memory holds
            parts = range(0, frames, _MOST_AT_ONCE)
            return np.concatenate([self._read(min(_MOST_AT_ONCE, frames - at)) for at in parts])
        try:
            block = self._file.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise InputError(
                f"truncated or damaged: not all of the {self.frames} frames its header says can "
                f"be decoded ({error.error_string})",
                where=self.entry,
                fix=_FETCH_AGAIN,
            ) from error
        if len(block) < frames:
            raise InputError(
                f"truncated: the header says {self.frames} frames, "
                f"decoding ends after {self._file.tell()}",
                where=self.entry,
                fix=_FETCH_AGAIN,
            )
        if self._is_float and not np.isfinite(block).all():
            raise InputError("samples that are not numbers (NaN or infinite)", where=self.entry)
        if self._channel == "mix":
            return block.mean(axis=1)
        return np.ascontiguousarray(block[:, self._channel or 0])


@contextlib.contextmanager
def open_recording(
    entry: str, *, channel: int | str | None = None, allow_pipes: bool = False
) -> Iterator[Recording]:
    """Yield the open recording behind a wav.scp entry.

    Args:
        entry: a path, `ark:offset`, or (with `allow_pipes`) a pipe.
        channel: needed for more than one channel: its number from 0, or "mix" for the mean.
        allow_pipes: run the command of an entry that ends with a bar (never through a shell).

    Raises:
        InputError: missing, empty or undecodable audio, a file shorter than its header says,
            several channels and no `channel`.
    """
    parsed = parse_entry(entry, allow_pipes=allow_pipes)
    with contextlib.ExitStack() as stack:
        if parsed.command is not None:
            source = io.BytesIO(run_pipe(parsed.command))
        else:
            source = _checked_source(parsed, entry, stack)
        file = stack.enter_context(_open_soundfile(source, entry))
        if file.channels > 1 and channel is None:
            raise InputError(
                f"{file.channels} channels, expected 1",
                where=entry,
                fix="dump with --channel 0 (the first one) or --channel mix (their mean)",
            )
        if isinstance(channel, int) and channel >= file.channels:
            raise InputError(
                f"no channel {channel}, it has {file.channels} (counted from 0)", where=entry
            )
        if file.frames == 0:
            raise InputError("no samples, expected audio", where=entry, fix=_FETCH_AGAIN)
        is_pipe = parsed.command is not None
        yield Recording(entry, file, is_pipe=is_pipe, channel=channel)


@contextlib.contextmanager
def utterance_named(utterance_id: str) -> Iterator[None]:
    """Put the name of an utterance before a fault of its audio."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error), where=f"utterance '{utterance_id}'") from error


def _open_soundfile(source: str | io.BufferedIOBase, entry: str) -> soundfile.SoundFile:
    with _decode_faults_named(entry):
        return soundfile.SoundFile(source)


def _checked_source(
    parsed: AudioEntry, entry: str, stack: contextlib.ExitStack
) -> str | io.BufferedIOBase:
    """Return the path of a file, or the open part of an archive that `stack` closes.

    Raises:
        InputError: a file that is missing, empty or shorter than its header says.
    """
    try:
        file = stack.enter_context(parsed.path.open("rb", buffering=0))
        if os.fstat(file.fileno()).st_size <= (parsed.offset or 0):
            what = "empty file" if parsed.offset is None else "offset beyond the archive's end"
            raise InputError(f"{what}, expected audio", where=entry, fix=_FETCH_AGAIN)
        source = file
        if parsed.offset is not None:
            with _decode_faults_named(entry):
                source = audio_at(file, parsed.offset)
        shortfall = find_shortfall(source)
    except OSError as error:
        raise InputError(
            f"cannot open audio file: {error.strerror}",
            where=entry,
            fix="correct the path in wav.scp (relative ones count from the current directory)",
        ) from error
    if shortfall is not None:
        raise InputError(str(shortfall), where=entry, fix=_FETCH_AGAIN)
    return str(parsed.path) if parsed.offset is None else source


@contextlib.contextmanager
def _decode_faults_named(entry: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(str(error), where=entry) from error
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"cannot be decoded as audio: {error.error_string}",
            where=entry,
            fix="fetch the file again, or convert it to WAV or FLAC",
        ) from error
