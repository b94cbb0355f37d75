"""How much audio a file promises, read from its own header, to tell a truncated file.

libsndfile quietly takes the shorter of header and file for WAV and SPHERE, and reads an Ogg stream
up to the last whole page. FLAC and MP3 need no help: there its frame count is the header's.
"""

import os
import struct
from dataclasses import dataclass
from io import IOBase

# A program that writes WAV into a pipe does not know the length: sox leaves 0x7ffff000-ish, ffmpeg
# 0xffffffff. No size from here on is a promise.
STREAMED_BYTES = 0x7FFFF000
LARGEST_OGG_PAGE_BYTES = 65307  # RFC 3533, section 6
OGG_END_OF_STREAM = 0x04


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A file that has less than it promises; `unit` is `frames` or `end marks`."""

    promised: int
    found: int
    unit: str = "frames"

    def __str__(self) -> str:
        return f"truncated: the header says {self.promised} {self.unit}, the file has {self.found}"


def find_shortfall(file: IOBase) -> Shortfall | None:
    """Return what is missing from the audio that begins at the file's position, or None.

    The position is kept. A format that is not known here gives None.
    """
    begin = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(begin)
    magic = file.read(4)
    file.seek(begin)
    if magic == b"RIFF":
        found = _riff_shortfall(file, size)
    elif magic == b"NIST":
        found = _sphere_shortfall(file, size)
    elif magic == b"OggS":
        found = _ogg_shortfall(file, size)
    else:
        found = None
    file.seek(begin)
    return found


def _riff_shortfall(file: IOBase, size: int) -> Shortfall | None:
    file.seek(12, os.SEEK_CUR)
    block_align = 0
    while len(header := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", header)
        if name == b"fmt ":
            fields = file.read(min(length, 16))
            if len(fields) < 16:
                return None
            block_align = struct.unpack_from("<H", fields, 12)[0]
            file.seek(length - 16 + length % 2, os.SEEK_CUR)
        elif name == b"data":
            there = size - file.tell()
            if block_align == 0 or length >= STREAMED_BYTES or length <= there:
                return None
            return Shortfall(length // block_align, there // block_align)
        else:
            file.seek(length + length % 2, os.SEEK_CUR)
    return None


def _sphere_shortfall(file: IOBase, size: int) -> Shortfall | None:
    begin = file.tell()
    lines = file.read(1024).split(b"\n")
    fields = {}
    for line in lines[2:]:
        parts = line.split()
        if len(parts) == 3 and parts[1] == b"-i" and parts[2].isdigit():
            fields[parts[0]] = int(parts[2])
    if len(lines) < 2 or not lines[1].strip().isdigit() or b"sample_count" not in fields:
        return None
    frame_bytes = fields.get(b"sample_n_bytes", 2) * fields.get(b"channel_count", 1)
    there = (size - begin - int(lines[1])) // max(1, frame_bytes)
    # Compressed SPHERE (shorten) is smaller than its count; libsndfile refuses it by name.
    if there >= fields[b"sample_count"] or any(b"embedded" in line for line in lines):
        return None
    return Shortfall(fields[b"sample_count"], max(0, there))


def _ogg_shortfall(file: IOBase, size: int) -> Shortfall | None:
    file.seek(max(file.tell(), size - LARGEST_OGG_PAGE_BYTES))
    tail = file.read()
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return Shortfall(1, 0, "end marks")
    segments = tail[page + 26]
    table = tail[page + 27 : page + 27 + segments]
    is_whole = len(table) == segments and len(tail) >= page + 27 + segments + sum(table)
    is_end = bool(tail[page + 5] & OGG_END_OF_STREAM)
    return None if is_whole and is_end else Shortfall(1, 0, "end marks")
