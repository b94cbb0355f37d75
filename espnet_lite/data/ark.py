"""Kaldi archives of audio: many recordings in one file, each found by `path:offset`.

An archive is `key content key content …`, and an offset in wav.scp is that of a content:

    RIFF…                       a WAV file, as Kaldi's own wav-copy writes it
    AUDIO <n> <length> …        a file of any format; length is n bytes, little-endian (kaldiio, ESPnet)
    fLaC…                       a FLAC file, which does not tell where it ends

Written are FLAC files after AUDIO. Matrices and pickles, which kaldiio reads too, are refused. One
file in place of thousands spares the file system; only the bytes of one recording are read.
"""

import io
import os
import struct
from pathlib import Path

import soundfile

from espnet_lite.data.audio_headers import STREAMED_BYTES
from espnet_lite.errors import InputError

_LENGTH_BYTES = 8  # of the length after AUDIO, at most; kaldiio writes as few as it needs
_BUFFER_BYTES = 1 << 16


class _Part(io.RawIOBase):
    """A part of an open file as a file of its own."""

    def __init__(self, file: io.FileIO, begin: int, length: int):
        self._file = file
        self._begin = begin
        self._length = length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}
        self._position = origin[whence] + offset
        return self._position

    def readinto(self, buffer) -> int:
        view = memoryview(buffer)[: max(0, self._length - self._position)]
        self._file.seek(self._begin + self._position)
        count = self._file.readinto(view)
        self._position += count
        return count


def audio_at(file: io.FileIO, offset: int) -> io.BufferedIOBase:
    """Return the audio file that begins at an offset of an open archive, as a file of its own.

    Raises:
        InputError: something else than audio stands there, or the archive ends before it does.
        soundfile.LibsndfileError: a FLAC file without AUDIO cannot be decoded.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(offset)
    head = file.read(5 + 1 + _LENGTH_BYTES)
    begin, length = offset, size - offset
    if head[:5] == b"AUDIO":
        length_bytes = head[5] if len(head) > 5 else 0
        field = head[6 : 6 + length_bytes]
        if not 0 < length_bytes <= _LENGTH_BYTES or len(field) < length_bytes:
            raise InputError(
                f"damaged archive: '{length_bytes}' after AUDIO is no size of a length"
            )
        begin, length = offset + 6 + length_bytes, int.from_bytes(field, "little")
        if length > size - begin:
            raise InputError(f"truncated: {length} bytes promised, the archive has {size - begin}")
    elif head[:4] == b"RIFF":
        if len(head) < 8 or (promised := struct.unpack_from("<I", head, 4)[0]) >= STREAMED_BYTES:
            raise InputError(
                "WAV of unknown length, expected one in its header",
                fix="write the archive again with Kaldi's wav-copy",
            )
        length = min(length, 8 + promised)  # find_shortfall names what is missing
    elif head[:4] != b"fLaC":
        raise InputError(f"bytes {head[:5]!r} at this offset, expected RIFF, fLaC or AUDIO")
    part = io.BufferedReader(_Part(file, begin, length), _BUFFER_BYTES)
    return _as_wav(part) if head[:4] == b"fLaC" else part


def _as_wav(part: io.BufferedReader) -> io.BytesIO:
    """Return a FLAC file that has something behind it as a WAV file.

    A seek in it might find the frames of another recording; reading on from its start is right.
    """
    with soundfile.SoundFile(part) as flac:
        samples = flac.read(dtype="int32")
        if len(samples) < flac.frames:
            raise InputError(
                f"truncated: the header says {flac.frames} frames, decoding ends after {len(samples)}"
            )
        wav = io.BytesIO()
        subtype = "PCM_16" if flac.subtype == "PCM_16" else "PCM_24"
        soundfile.write(wav, samples, flac.samplerate, format="WAV", subtype=subtype)
    wav.seek(0)
    return wav


class ArchiveWriter:
    """Archives audio.1.ark, audio.2.ark, … in a folder, a new one whenever one is full."""

    def __init__(self, folder: Path, *, max_bytes: int = 10**9):
        """Write nothing yet.

        Args:
            folder: it is there.
            max_bytes: an archive that has as many is full; it may exceed them by one recording.
        """
        self.folder = folder
        self.max_bytes = max_bytes
        self.number = 0
        self._file: io.BufferedWriter | None = None

    def add(self, key: str, encoded: bytes) -> tuple[int, int]:
        """Append an audio file and return (number of the archive, offset in it)."""
        if self._file is None or self._file.tell() >= self.max_bytes:
            self.close()
            self.number += 1
            self._file = (self.folder / archive_name(self.number)).open("wb")
        self._file.write(key.encode("utf-8") + b" ")
        offset = self._file.tell()
        length = len(encoded).to_bytes((len(encoded).bit_length() + 7) // 8, "little")
        self._file.write(b"AUDIO" + bytes([len(length)]) + length)
        self._file.write(encoded)
        return self.number, offset

    def close(self) -> None:
        """Close the archive that is being written, if any."""
        if self._file is not None:
            self._file.close()
            self._file = None


def archive_name(number: int) -> str:
    """Return the file name of an archive, counted from 1."""
    return f"audio.{number}.ark"
