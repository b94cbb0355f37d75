"""A recording behind a wav.scp entry: opened once, read forward, cut into spans."""

import contextlib
import io
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from espnet_lite.data.audio_entries import AudioEntry, parse_entry, run_pipe
from espnet_lite.data.audio_headers import find_shortfall
from espnet_lite.errors import InputError

# A segment may end this much after its recording; it is cut there, as in Kaldi's extract-segments.
MAX_OVERSHOOT_SECONDS = 0.5
# 16-bit formats that hold their samples exactly and open fast: they are used where they lie.
LOSSLESS_FORMATS = ("WAV", "WAVEX", "FLAC", "NIST", "AIFF")
_FETCH_AGAIN = "fetch the file again, or delete its line from wav.scp and run fix_data"
_BLOCK_FRAMES = 1 << 20


class _Samples:
    """Samples in memory behind the part of soundfile.SoundFile that is used here."""

    def __init__(self, samples: np.ndarray, sample_rate: int):
        self.is_16_bit = samples.dtype == np.int16
        if samples.dtype == np.uint8:  # 8-bit WAV is unsigned
            samples = (samples.astype(np.float32) - 128.0) / 128.0
        elif samples.dtype == np.int16:
            samples = samples.astype(np.float32) / 32768.0
        self.samples = samples.astype(np.float32).reshape(len(samples), -1)
        self.samplerate = sample_rate
        self.frames, self.channels = self.samples.shape
        self.position = 0

    def tell(self) -> int:
        return self.position

    def seek(self, frame: int) -> None:
        self.position = frame

    def read(self, frames: int, *, dtype: str, always_2d: bool) -> np.ndarray:
        block = self.samples[self.position : self.position + frames]
        self.position += len(block)
        return block


class Recording:
    """An open recording.

    Attributes:
        frames: samples of one channel, as its header says.
        sample_rate: in Hz.
        channels: number of channels in the file; one of them, or their mean, is read.
        is_lossless_16_bit: 16-bit samples without loss, in a file or archive, not a pipe.
    """

    def __init__(
        self, entry: str, file: "soundfile.SoundFile | _Samples", *, channel: int | str | None
    ):
        is_sound_file = isinstance(file, soundfile.SoundFile)
        self.entry = entry
        self.frames = file.frames
        self.sample_rate = file.samplerate
        self.channels = file.channels
        if is_sound_file:
            is_pipe = not isinstance(file.name, str)
            is_pcm_16 = file.format in LOSSLESS_FORMATS and file.subtype == "PCM_16"
            self.is_lossless_16_bit = is_pcm_16 and not is_pipe
        else:
            self.is_lossless_16_bit = file.is_16_bit
        self._file = file
        self._channel = channel
        self._can_seek = not is_sound_file or file.format in LOSSLESS_FORMATS
        self._is_float = is_sound_file and file.subtype in ("FLOAT", "DOUBLE")

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
    with _open(entry, allow_pipes=allow_pipes) as file:
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
        yield Recording(entry, file, channel=channel)


@contextlib.contextmanager
def _open(entry: str, *, allow_pipes: bool) -> Iterator["soundfile.SoundFile | _Samples"]:
    parsed = parse_entry(entry, allow_pipes=allow_pipes)
    if parsed.command is not None:
        with _open_soundfile(io.BytesIO(run_pipe(parsed.command)), entry) as file:
            yield file
        return
    _check_file(parsed, entry)
    if parsed.offset is not None:
        yield _read_ark(entry, parsed.path)
        return
    with _open_soundfile(str(parsed.path), entry) as file:
        yield file


@contextlib.contextmanager
def utterance_named(utterance_id: str) -> Iterator[None]:
    """Put the name of an utterance before a fault of its audio."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error), where=f"utterance '{utterance_id}'") from error


def _open_soundfile(source: str | io.BytesIO, entry: str) -> soundfile.SoundFile:
    with _decode_faults_named(entry):
        return soundfile.SoundFile(source)


def _check_file(parsed: AudioEntry, entry: str) -> None:
    """Raise for a file that is missing, empty or shorter than its header says."""
    try:
        with parsed.path.open("rb") as file:
            if parsed.path.stat().st_size <= (parsed.offset or 0):
                what = "empty file" if parsed.offset is None else "offset beyond the archive's end"
                raise InputError(f"{what}, expected audio", where=entry, fix=_FETCH_AGAIN)
            file.seek(parsed.offset or 0)
            shortfall = find_shortfall(file)
    except OSError as error:
        raise InputError(
            f"cannot open audio file: {error.strerror}",
            where=entry,
            fix="correct the path in wav.scp (relative ones count from the current directory)",
        ) from error
    if shortfall is not None:
        raise InputError(str(shortfall), where=entry, fix=_FETCH_AGAIN)


@contextlib.contextmanager
def _decode_faults_named(entry: str) -> Iterator[None]:
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"cannot be decoded as audio: {error.error_string}",
            where=entry,
            fix="fetch the file again, or convert it to WAV or FLAC",
        ) from error


def _read_ark(entry: str, path: Path) -> _Samples:
    """Return the audio at an offset of a Kaldi archive."""
    import kaldiio
    import kaldiio.python_wave

    with path.open("rb") as file:
        file.seek(int(entry.rpartition(":")[2]))
        magic = file.read(5)
    # Anything else in an archive is a matrix or a pickle, which kaldiio would load as well.
    if magic != b"AUDIO" and magic[:4] not in (b"RIFF", b"fLaC"):
        raise InputError(
            f"bytes {magic!r} at this offset, expected RIFF, fLaC or AUDIO", where=entry
        )
    faults = (OSError, EOFError, ValueError, RuntimeError, struct.error, kaldiio.python_wave.Error)
    try:
        rate, samples = kaldiio.load_mat(entry)
    except faults as error:
        raise InputError(f"cannot be decoded as audio: {error}", where=entry) from error
    return _Samples(samples, rate)
